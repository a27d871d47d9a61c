"""Latency under Poisson load, and what an overloaded server does.

Capacity is what wrk reaches at the start of each run. Latency counts from the planned time of a request, so that a
stall delays all that come meanwhile; a lone request is one of many at even distances of twenty mean service times.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

from tqdm import tqdm

from benchmarks.serving.alternatives import this_server
from benchmarks.serving.conditions import Conditions
from benchmarks.serving.models import SHIPPED, SIDE
from benchmarks.serving.open_loop.answers import Answers, drive_openly
from benchmarks.serving.open_loop.poisson import Times, even_arrivals, poisson_arrivals
from benchmarks.serving.pictures import small_jpegs
from benchmarks.serving.rows import Row, medians
from benchmarks.serving.servers import Server, serving
from benchmarks.serving.wrk import drive

LONE_LOAD = 0.05
LONE_SECONDS = 10.0
LOADS = {0.5: "<= 5", 0.7: "<= 10"}
"""Shares of the capacity, and what p99 may be of a lone request's latency."""
OVERLOAD = 3.0


class _Run:
    """All loads once, one after the other."""

    def __init__(self, server: Server, conditions: Conditions, processes: int, deadline_ms: int, seed: int) -> None:
        bodies = [server.alternative.encode(jpeg) for jpeg in small_jpegs(64, SIDE, SIDE)]
        path, cores, seconds = server.alternative.path, conditions.cores.load, conditions.seconds
        load = drive(
            server.port,
            path,
            bodies,
            connections=conditions.connections,
            seconds=min(10.0, seconds),
            cores=cores,
        )

        def send(times: Times, headers: dict[str, str] | None = None) -> Answers:
            return drive_openly(server.port, path, bodies, times, processes=processes, cores=cores, headers=headers)

        self.capacity = load.per_second
        self.lone = send(even_arrivals(LONE_LOAD * self.capacity, min(LONE_SECONDS, seconds)))
        self.loaded = {
            share: send(poisson_arrivals(share * self.capacity, seconds, seed + index))
            for index, share in enumerate(LOADS)
        }
        times = poisson_arrivals(OVERLOAD * self.capacity, seconds, seed + len(LOADS))
        self.overload = send(times, {"X-Request-Timeout-Ms": str(deadline_ms)})


def open_loop_rows(
    conditions: Conditions, *, runs: int, seconds: float, processes: int, deadline_ms: int
) -> Iterator[Row]:
    server = this_server(SHIPPED, conditions.threads)
    own = replace(conditions, seconds=seconds)
    with serving([server], conditions.cores, small_jpegs(1, SIDE, SIDE)[0]) as (running,):
        bar = tqdm(range(runs), desc="open loop", leave=False, file=sys.stderr)
        found = [_Run(running, own, processes, deadline_ms, seed=100 * number) for number in bar]
    for share in LOADS:
        yield from _latency_rows(found, share)
    yield from _overload_rows(found, deadline_ms)


def _latency_rows(runs: list[_Run], share: float) -> Iterator[Row]:
    name = f"open loop, model that ships, Poisson at {share:.0%} of capacity"
    for percentile, wanted in ((50, ""), (99, LOADS[share])):
        measured = [run.loaded[share].milliseconds(percentile) for run in runs]
        lone = [run.lone.milliseconds(50) for run in runs]
        behind = medians(
            ms=measured,
            lone_ms=lone,
            capacity=[run.capacity for run in runs],
            generator_late_p99_ms=[run.loaded[share].late_ms for run in runs],
        )
        values = tuple(one / other for one, other in zip(measured, lone, strict=True))
        yield Row(f"{name}: p{percentile} / lone request", values, wanted, behind)
    not_answered = tuple(1 - run.loaded[share].share(200) for run in runs)
    yield Row(f"{name}: share not answered with 200", not_answered, "0")


def _overload_rows(runs: list[_Run], deadline_ms: int) -> Iterator[Row]:
    name = f"open loop, model that ships, {OVERLOAD:g} times capacity, deadline {deadline_ms} ms"
    answers = [run.overload for run in runs]
    ok, full, expired = (tuple(one.share(status) for one in answers) for status in (200, 429, 504))
    p99 = [one.milliseconds(99) for one in answers]
    late = medians(p99_ms=p99, generator_late_p99_ms=[one.late_ms for one in answers])
    yield Row(f"{name}: share of 200", ok, "about 1/3", late)
    yield Row(f"{name}: share of 429", full, "the rest")
    yield Row(f"{name}: share of 504", expired, "< 0.01")
    others = tuple(max(0.0, 1 - sum(shares)) for shares in zip(ok, full, expired, strict=True))
    yield Row(f"{name}: share of anything else", others, "0", medians(broken=[one.broken for one in answers]))
    # as the client sees it: with its own lateness, both ways through the kernel, and waiting to be read
    missed = tuple(float((one.latency[one.status == 200] > deadline_ms / 1000).mean()) for one in answers)
    yield Row(f"{name}: share of the accepted beyond their deadline", missed, "0", medians(p99_ms=p99))
    kept = tuple(one.share(200) * OVERLOAD for one in answers)
    yield Row(f"{name}: answered with 200 / capacity", kept, "about 1")
