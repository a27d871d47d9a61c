"""A run as it goes on: the progress bar, and the history for TensorBoard."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from training.arguments import ArgumentError
from training.recipes import Recipe
from training.train import Progress


class Underway:
    """Scalars on their way from the device, which goes on meanwhile."""

    def __init__(self, scalars: Mapping[str, Tensor]) -> None:
        self._names = tuple(scalars)
        together = torch.stack(list(scalars.values()))
        self._values = together.to("cpu", non_blocking=True)  # into pinned memory, from a GPU
        self._copied: torch.cuda.Event | None = None
        if together.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def arrived(self) -> dict[str, float] | None:
        """Their values by name; None until they are here."""
        if self._copied is not None and not self._copied.query():
            return None
        return dict(zip(self._names, self._values.tolist(), strict=True))


@contextmanager
def progress_bar(recipe: Recipe, total: int, done: int, is_shown: bool) -> Iterator[Progress]:
    """A bar of `total` images; what it says of losses and accuracy is one refresh old, so that no GPU is waited for."""
    underway: Underway | None = None
    with tqdm(total=total, initial=done, unit="img", smoothing=0.02, disable=not is_shown) as bar:

        def progress(epoch: int, images: int, means: Mapping[str, Tensor]) -> None:
            nonlocal underway
            if not bar.update(images):  # the bar is not due
                return
            bar.set_description(f"epoch {epoch}/{recipe.epochs}", refresh=False)
            if underway is None:
                underway = Underway(means)
            elif (values := underway.arrived()) is not None:
                bar.set_postfix_str(_shown(values), refresh=False)
                underway = Underway(means)

        yield progress


def _shown(means: Mapping[str, float]) -> str:
    losses = [f"{name.removesuffix('_loss')} {value:.2f}" for name, value in means.items() if "loss" in name]
    return f"{' '.join(losses)} accuracy {means['train_accuracy']:.1%}"


@contextmanager
def tensorboard(folder: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Takes lines of the history and writes them for TensorBoard below `folder`; None writes nothing."""
    if folder is None:
        yield lambda line: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as missing:
        raise ArgumentError(
            "--tensorboard needs tensorboard; install it with: pip install '.[tensorboard]'"
        ) from missing

    with SummaryWriter(folder / "tensorboard") as writer:

        def record(line: Mapping[str, Any]) -> None:
            for name, value in line.items():
                if name != "epoch":
                    writer.add_scalar(name, value, line["epoch"])

        yield record
