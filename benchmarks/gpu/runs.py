"""What is trained at full scale and what is measured of it, as data, in the order in which it is worth the time."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.queue import Job
from training.checkpoint import RunFolder

PLAIN = ("--no-fsr",)
RUNS: Mapping[str, tuple[str, ...]] = {
    "at": ("--recipe", "paper", *PLAIN),
    "at-fsr": ("--recipe", "paper"),
    "strong": ("--recipe", "strong", *PLAIN),
    "strong-fsr": ("--recipe", "strong"),
    "trades": ("--recipe", "paper", "--objective", "trades", *PLAIN),
    "trades-fsr": ("--recipe", "paper", "--objective", "trades"),
    "mart": ("--recipe", "paper", "--objective", "mart", *PLAIN),
    "mart-fsr": ("--recipe", "paper", "--objective", "mart"),
    "fd": ("--recipe", "paper", "--rival", "fd", *PLAIN),
    "cas": ("--recipe", "paper", "--rival", "cas", *PLAIN),
    "cifs": ("--recipe", "paper", "--rival", "cifs", *PLAIN),
    **{f"at-seed{seed}": ("--recipe", "paper", "--seed", f"{seed}", *PLAIN) for seed in (1, 2)},
    **{f"at-fsr-seed{seed}": ("--recipe", "paper", "--seed", f"{seed}") for seed in (1, 2)},
}
"""Arguments of python -m training by the name of the run: Tables 1, 3 and 4, and the recipe `strong`."""


class Judged(NamedTuple):
    """Attacks on so many test images spread evenly, on all there are for None."""

    attacks: tuple[str, ...]
    images: int | None


JUDGED: Mapping[str, Judged] = {
    "ensemble": Judged(("ensemble",), None),
    "autoattack": Judged(("autoattack",), 1000),
    "fsr": Judged(("relaxed_mask", "all_heads", "all_heads_margin"), 1000),
}
"""What is measured of best and of last weights; `fsr` of runs with FSR alone."""


def chains(
    names: Sequence[str], folder: Path, data: str, data_name: str, options: Sequence[str]
) -> Iterator[list[Job]]:
    """Of each named run: its training with `options`, new or gone on with, then what is measured of it."""
    for name in names:
        yield [_training(name, folder, data, data_name, options), *_judging(name, folder, data)]


def _training(name: str, folder: Path, data: str, data_name: str, options: Sequence[str]) -> Job:
    out = folder / name
    where = ("--data", data, "--out", str(out))
    arguments = ("--resume",) if RunFolder(out).has_begun else (*RUNS[name], "--data-name", data_name)
    return Job(f"{name}-training", (sys.executable, "-m", "training", *where, *arguments, *options))


def _judging(name: str, folder: Path, data: str) -> Iterator[Job]:
    for what, judged in JUDGED.items():
        if what == "fsr" and "--no-fsr" in RUNS[name]:
            continue
        images = () if judged.images is None else ("--images", f"{judged.images}")
        for weights in ("best", "last"):
            command = (sys.executable, "-m", "training.evaluation", str(folder / name), "--data", data)
            arguments = ("--weights", weights, *images, "--attacks", *judged.attacks)
            yield Job(f"{name}-{what}-{weights}", command + arguments)
