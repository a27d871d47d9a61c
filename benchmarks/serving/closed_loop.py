"""One model under a closed loop: this server beside its peers and beside a bare onnxruntime loop.

Server CPU time outside the session, per image, is measured in two ways, both with all processes and threads of the
server over one run of wrk, divided by the images answered:

- near-free model: all of it, since the session costs microseconds: an upper bound with nothing subtracted;
- any other model: less the CPU time per image of the bare loop at the batch size that the server had in the mean
  during that very run (`fsr_batch_images`), with the same threads on the same cores.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.serving.alternatives import Alternative, peers, this_server
from benchmarks.serving.bare_loop import BareLoop, Loop, bare_loop
from benchmarks.serving.conditions import Conditions
from benchmarks.serving.models import SHIPPED, SIDE, near_free, width_64
from benchmarks.serving.pictures import Body, small_jpegs, tensor
from benchmarks.serving.rows import Row, medians, ratios
from benchmarks.serving.servers import Server, all_stopped, check_answers, serving
from benchmarks.serving.wrk import drive

PICTURES = 64
TENSOR_IMAGES = 32
"""In one Open Inference request."""
TENSOR_CONNECTIONS = 2
"""One request is computed while the next waits. The batch that runs when wrk stops does not count, a loss of half a
batch in the mean: choose --seconds so that it does not matter."""
WARM_UP_SECONDS = 1


@dataclass
class Answers:
    """Of one server in every round."""

    images_per_second: list[float] = field(default_factory=list)
    cpu_ms_per_image: list[float] = field(default_factory=list)
    mean_batch: list[float] = field(default_factory=list)
    """Of this server only."""


def near_free_rows(conditions: Conditions) -> Iterator[Row]:
    version, name = near_free(conditions.folder), "near-free model"
    wanted = {"BentoML's idiom": ">= 5", "floor": ">= 0.50", "LitServe": "> 1"}
    with serving(_alternatives(version, conditions), conditions.cores, _jpegs()[0]) as servers:
        answers = _rounds(name, servers, conditions)
    yield from _peer_rows(name, answers, wanted, conditions)
    yield Row(f"{name}: server CPU ms per image, all of it", tuple(answers["this server"].cpu_ms_per_image), "<= 0.4")


def width_64_rows(conditions: Conditions) -> Iterator[Row]:
    """Slow enough that a ratio to the bare loop says something of the server rather than of the processor."""
    yield from _rows_of_a_real_model(
        "ResNet-18 width 64", width_64(conditions.folder), conditions, classify_wanted=">= 0.90", infer_wanted=">= 0.95"
    )


def shipped_rows(conditions: Conditions) -> Iterator[Row]:
    yield from _rows_of_a_real_model("model that ships", SHIPPED, conditions, cpu_wanted="<= 0.4")


def _rows_of_a_real_model(
    name: str,
    version: Path,
    conditions: Conditions,
    classify_wanted: str = "",
    infer_wanted: str = "",
    cpu_wanted: str = "",
) -> Iterator[Row]:
    with (
        serving(_alternatives(version, conditions), conditions.cores, _jpegs()[0]) as servers,
        bare_loop(version / "model.onnx", conditions.threads, conditions.cores) as loop,
    ):
        bare = _BareRounds(loop, conditions)
        answers = _rounds(name, servers, conditions, bare)
    yield from _peer_rows(name, answers, {}, conditions)
    speed = [one.per_second for one in bare.best]
    for alternative, wanted, how in (
        ("this server", classify_wanted, f"/classify, {conditions.connections} connections"),
        ("open inference", infer_wanted, f"/v2 infer, {TENSOR_IMAGES} images a request, FP32 binary"),
    ):
        found = answers[alternative].images_per_second
        title = f"{name}: images/s, {how} / bare onnxruntime loop at its best batch, {bare.batch}"
        yield Row(title, ratios(found, speed), wanted, medians(server=found, loop=speed))
    mine, session = answers["this server"], [one.cpu_ms_per_image for one in bare.same]
    outside = tuple(whole - part for whole, part in zip(mine.cpu_ms_per_image, session, strict=True))
    behind = medians(server_CPU_ms=mine.cpu_ms_per_image, session=session, mean_batch=mine.mean_batch)
    yield Row(f"{name}: server CPU ms per image outside the session", outside, cpu_wanted, behind)


class _BareRounds:
    """The loop in every round: at its best batch size, and at the one that this server just had."""

    def __init__(self, loop: BareLoop, conditions: Conditions) -> None:
        self._loop, self._seconds = loop, conditions.seconds
        self.batch = loop.best_batch(min(1.0, conditions.seconds))
        self.best: list[Loop] = []
        self.same: list[Loop] = []

    def run(self, mean_batch: float) -> None:
        self.best.append(self._loop.run(self.batch, self._seconds))
        self.same.append(self._loop.run(max(1, round(mean_batch)), self._seconds))


def _alternatives(version: Path, conditions: Conditions) -> list[Alternative]:
    return [this_server(version, conditions.threads), *peers(version, conditions.threads)]


def _jpegs() -> list[bytes]:
    return small_jpegs(PICTURES, SIDE, SIDE)


def _rounds(
    name: str, servers: Sequence[Server], conditions: Conditions, bare: _BareRounds | None = None
) -> dict[str, Answers]:
    """Every server once in each round, in the same order; the others are stopped meanwhile."""
    jpegs = _jpegs()
    check_answers(servers, jpegs[:8])
    server = servers[0]
    entries = {one.alternative.name: (one, [one.alternative.encode(jpeg) for jpeg in jpegs]) for one in servers}
    if bare is not None:
        model = server.alternative.environment["FSR_MODEL"]
        infer = replace(server.alternative, name="open inference", path=f"/v2/models/{model}/infer")
        bodies = [tensor(jpegs[start : start + TENSOR_IMAGES]) for start in range(0, PICTURES, TENSOR_IMAGES)]
        entries["open inference"] = replace(server, alternative=infer), bodies
    answers = {entry: Answers() for entry in entries}
    with all_stopped(servers):
        for one, bodies in entries.values():
            _measure(one, bodies, replace(conditions, seconds=WARM_UP_SECONDS), Answers())
        for _ in tqdm(range(conditions.rounds), desc=name, leave=False, file=sys.stderr):
            for entry, (one, bodies) in entries.items():
                _measure(one, bodies, conditions, answers[entry])
            if bare is not None:
                bare.run(answers["this server"].mean_batch[-1])
    return answers


def _measure(server: Server, bodies: Sequence[Body], conditions: Conditions, answers: Answers) -> None:
    is_tensor, is_ours = "Inference-Header-Content-Length" in bodies[0].headers, server.alternative.is_ours
    each, connections = (TENSOR_IMAGES, TENSOR_CONNECTIONS) if is_tensor else (1, conditions.connections)
    with server.awake():
        batches, cpu = batch_counts(server) if is_ours else (0.0, 0.0), server.cpu_seconds()
        load = drive(
            server.port,
            server.alternative.path,
            bodies,
            connections=connections,
            seconds=conditions.seconds,
            cores=conditions.cores.load,
        )
        cpu = server.cpu_seconds() - cpu
        after = batch_counts(server) if is_ours else (0.0, 0.0)
    answers.images_per_second.append(each * load.per_second)
    answers.cpu_ms_per_image.append(1000 * cpu / (each * load.requests))
    if is_ours:
        answers.mean_batch.append((after[0] - batches[0]) / (after[1] - batches[1]))


def batch_counts(server: Server) -> tuple[float, float]:
    """Images and batches that this server has computed so far."""
    metrics = server.get("/metrics")
    found = [re.search(rf"^fsr_batch_images_{name} (\S+)$", metrics, re.MULTILINE) for name in ("sum", "count")]
    images, batches = (float(match[1]) if match else 0.0 for match in found)
    return images, batches


def _peer_rows(
    name: str, answers: Mapping[str, Answers], wanted: Mapping[str, str], conditions: Conditions
) -> Iterator[Row]:
    mine = answers["this server"].images_per_second
    for peer in ("BentoML's idiom", "floor", "LitServe"):
        other = answers[peer].images_per_second
        title = f"{name}: requests/s, {conditions.connections} connections, this server / {peer}"
        yield Row(title, ratios(mine, other), wanted.get(peer, ""), medians(server=mine, peer=other))
