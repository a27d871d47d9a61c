"""How far the runs in a folder are, and what has been measured of them, as Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from training.checkpoint import RunFolder
from training.evaluation.runs import Run, load_run


def status(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """Lines; a run that has not begun says so."""
    runs = {name: load_run(folder / name) if RunFolder(folder / name).has_begun else None for name in names}
    yield "| run | epochs | seconds of an epoch, median | images/s | held-out: clean, PGD-10 | on |"
    yield "|---|---:|---:|---:|---|---|"
    for name, run in runs.items():
        yield f"| {name} | not run | | | | |" if run is None or not run.history else _progress(name, run)
    yield ""
    yield "| run | weights | attack | n | accuracy, 95 % interval |"
    yield "|---|---|---|---:|---|"
    for name, run in runs.items():
        for result in run.results if run else ():
            interval = f"{100 * result.low:.2f} - {100 * result.high:.2f}"
            accuracy = f"{100 * result.accuracy:.2f} % ({interval})"
            yield f"| {name} | {result.weights} | {result.attack} | {result.n:,} | {accuracy} |"


def _progress(name: str, run: Run) -> str:
    seconds = median(line["epoch_seconds"] for line in run.history)
    speed = median(line["train_images_per_second"] for line in run.history)
    last = run.history[-1]
    accuracies = f"{last['validation_clean_accuracy']:.1%}, {last['validation_pgd10_accuracy']:.1%}"
    done = f"{len(run.history)} of {run.config.recipe.epochs}"
    return f"| {name} | {done} | {seconds:.1f} | {speed:,.0f} | {accuracies} | {run.hardware} |"
