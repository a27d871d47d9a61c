"""This server against itself: JPEG scale, and OpenVINO in bf16 against onnxruntime in fp32."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.serving.alternatives import this_server
from benchmarks.serving.closed_loop import PICTURES, TENSOR_CONNECTIONS, TENSOR_IMAGES
from benchmarks.serving.conditions import Conditions
from benchmarks.serving.models import SHIPPED, SIDE, near_free, width_64
from benchmarks.serving.pictures import Body, photograph, raw, small_jpegs, tensor
from benchmarks.serving.rows import Row, medians, ratios
from benchmarks.serving.servers import Server, all_stopped, check_answers, serving
from benchmarks.serving.wrk import drive

PHOTOGRAPH_CONNECTIONS = 4
BF16_TOLERANCE = 0.05
"""Of probabilities: bf16 has eight bits of mantissa."""


@dataclass(frozen=True)
class Load:
    """What is asked of every server in turn."""

    bodies: Sequence[Body]
    connections: int
    path: str = "/classify"


def photograph_rows(conditions: Conditions) -> Iterator[Row]:
    """A near-free model, so that the decoding is what is compared."""
    scales = ("reduced", "full")
    alternatives = [
        this_server(near_free(conditions.folder, scale), conditions.threads, scale, FSR_REQUEST_TIMEOUT_MS="60000")
        for scale in scales
    ]
    jpeg = photograph()
    with serving(alternatives, conditions.cores, jpeg) as servers:
        found = _rounds("photograph", servers, Load([raw(jpeg)], PHOTOGRAPH_CONNECTIONS), conditions)
    title = f"photograph of 12 megapixels, {len(jpeg) / 1e6:.1f} MB: requests/s, jpeg_scale reduced / full"
    yield Row(title, ratios(*(found[scale] for scale in scales)), "> 1", medians(**found))


def bf16_rows(conditions: Conditions) -> Iterator[Row]:
    if not _has_bf16():
        yield Row("OpenVINO bf16 / onnxruntime fp32", (), "> 1", "this processor has no bf16")
        return
    width = width_64(conditions.folder)
    yield from _bf16_rows_of("ResNet-18 width 64", width, (">= 3 with AMX", ">= 4 with AMX"), conditions)
    yield from _bf16_rows_of("model that ships", SHIPPED, ("> 1", "> 1"), conditions)


def _bf16_rows_of(name: str, version: Path, wanted: tuple[str, str], conditions: Conditions) -> Iterator[Row]:
    engines = {"onnxruntime": {}, "OpenVINO": {"FSR_RUNTIME": "openvino", "FSR_PRECISION": "bf16"}}
    alternatives = [this_server(version, conditions.threads, engine, **engines[engine]) for engine in engines]
    jpegs = small_jpegs(PICTURES, SIDE, SIDE)
    tensors = [tensor(jpegs[start : start + TENSOR_IMAGES]) for start in range(0, PICTURES, TENSOR_IMAGES)]
    loads = {
        f"/classify, {conditions.connections} connections": Load([raw(jpeg) for jpeg in jpegs], conditions.connections),
        f"/v2 infer, {TENSOR_IMAGES} images a request": Load(
            tensors, TENSOR_CONNECTIONS, f"/v2/models/{version.parent.name}/infer"
        ),
    }
    with serving(alternatives, conditions.cores, jpegs[0]) as servers:
        check_answers(servers, jpegs[:8], BF16_TOLERANCE)
        for (how, load), ratio in zip(loads.items(), wanted, strict=True):
            found = _rounds(f"bf16, {name}", servers, load, conditions)
            title = f"{name}: requests/s, {how}, OpenVINO bf16 / onnxruntime fp32"
            yield Row(title, ratios(found["OpenVINO"], found["onnxruntime"]), ratio, medians(**found))


def _has_bf16() -> bool:
    try:
        import openvino
    except ModuleNotFoundError:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _rounds(name: str, servers: Sequence[Server], load: Load, conditions: Conditions) -> dict[str, list[float]]:
    """Requests per second of each server in every round."""
    found: dict[str, list[float]] = {server.alternative.name: [] for server in servers}
    with all_stopped(servers):
        for index in tqdm(range(-1, conditions.rounds), desc=name, leave=False, file=sys.stderr):
            for server in servers:
                with server.awake():
                    answered = drive(
                        server.port,
                        load.path,
                        load.bodies,
                        connections=load.connections,
                        seconds=conditions.seconds,
                        cores=conditions.cores.load,
                    )
                if index >= 0:  # the first round warms up
                    found[server.alternative.name].append(answered.per_second)
    return found
