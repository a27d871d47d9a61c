"""This server against itself: JPEG scale, and OpenVINO in bf16 against onnxruntime in fp32."""

import sys
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from benchmarks.serving.alternatives import Alternative, this_server
from benchmarks.serving.conditions import Conditions
from benchmarks.serving.models import SHIPPED, SIDE, near_free
from benchmarks.serving.pictures import photograph, small_jpegs
from benchmarks.serving.rows import Row, medians, ratios
from benchmarks.serving.servers import all_stopped, check_answers, serving
from benchmarks.serving.wrk import drive

PHOTOGRAPH_CONNECTIONS = 4
BF16_TOLERANCE = 0.05
"""Of probabilities: bf16 has eight bits of mantissa."""


def photograph_rows(conditions: Conditions) -> Iterator[Row]:
    """A near-free model, so that the decoding is what is compared."""
    scales = ("reduced", "full")
    alternatives = [
        this_server(near_free(conditions.folder, scale), conditions.threads, scale, FSR_REQUEST_TIMEOUT_MS="60000")
        for scale in scales
    ]
    jpeg = photograph()
    found = _rounds("photograph", alternatives, [jpeg], conditions, PHOTOGRAPH_CONNECTIONS)
    title = f"photograph of 12 megapixels, {len(jpeg) / 1e6:.1f} MB: requests/s, jpeg_scale reduced / full"
    yield Row(title, ratios(*(found[scale] for scale in scales)), "> 1", medians(**found))


def bf16_rows(conditions: Conditions) -> Iterator[Row]:
    title = "model that ships: requests/s, OpenVINO bf16 / onnxruntime fp32"
    if not _has_bf16():
        yield Row(title, (), "> 1", "this processor has no bf16")
        return
    engines = {"onnxruntime": {}, "OpenVINO": {"FSR_RUNTIME": "openvino", "FSR_PRECISION": "bf16"}}
    alternatives = [this_server(SHIPPED, conditions.threads, name, **engine) for name, engine in engines.items()]
    jpegs = small_jpegs(64, SIDE, SIDE)
    found = _rounds("bf16", alternatives, jpegs, conditions, conditions.connections, BF16_TOLERANCE)
    yield Row(title, ratios(found["OpenVINO"], found["onnxruntime"]), "> 1", medians(**found))


def _has_bf16() -> bool:
    try:
        import openvino
    except ModuleNotFoundError:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _rounds(
    name: str,
    alternatives: Sequence[Alternative],
    jpegs: Sequence[bytes],
    conditions: Conditions,
    connections: int,
    tolerance: float | None = None,
) -> dict[str, list[float]]:
    """Requests per second of each alternative in every round. Answers are compared where there is a tolerance."""
    found: dict[str, list[float]] = {alternative.name: [] for alternative in alternatives}
    with serving(alternatives, conditions.cores, jpegs[0]) as servers:
        if tolerance is not None:
            check_answers(servers, jpegs[:8], tolerance)
        bodies = [servers[0].alternative.encode(jpeg) for jpeg in jpegs]
        with all_stopped(servers):
            for index in tqdm(range(-1, conditions.rounds), desc=name, leave=False, file=sys.stderr):
                for server in servers:
                    with server.awake():
                        load = drive(
                            server.port,
                            server.alternative.path,
                            bodies,
                            connections=connections,
                            seconds=conditions.seconds,
                            cores=conditions.cores.load,
                        )
                    if index >= 0:  # the first round warms up
                        found[server.alternative.name].append(load.per_second)
    return found
