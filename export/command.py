"""The command python -m export: load, export, compare, and only then put in place."""

import contextlib
import logging
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import tyro
from pydantic_core import to_jsonable_python
from torch import Tensor

from export.graph import OPSET, fold_batch_norm, write_graph
from export.parity import Parity, ParityError, compare
from fsr_serve.artifact import (
    IMAGES,
    LOGITS,
    MODEL_FILE,
    WEIGHTS_FILE,
    Accuracy,
    Manifest,
    Preprocessing,
    Tensors,
    file_sha256,
    write_manifest,
)
from fsr_serve.errors import ArtifactError
from training.checkpoint import CheckpointError, RunConfig, RunFolder, Weights
from training.data import DataError, ImageData, hold_out, load_images, to_floats
from training.evaluation.statistics import wilson

COMPARED_IMAGES = 256


class TargetError(ValueError):
    """The target of the export cannot be used."""


@dataclass(frozen=True)
class Arguments:
    """Turn a checkpoint into a model version: an ONNX graph with the Gumbel noise frozen, weights and manifest.

    The exported file is always compared with torch on held-out images, clean and perturbed; a file that
    differs is not written.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Run folder made by python -m training."""
    target: tyro.conf.Positional[Path]
    """Folder to make, MODELS/NAME/VERSION with a whole number as VERSION."""
    data: str | None = None
    """Where the data it was trained on lies now; by default where it lay then."""
    weights: Weights = "best"
    """best: highest PGD-10 accuracy on validation images. last: after the last epoch."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m export")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # lists every optional package that is absent
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch|copyreg")
    try:
        parity = export(arguments)
    except (ArtifactError, CheckpointError, DataError, ParityError, TargetError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; nothing was written")
    print(
        f"{arguments.target}: max |torch - onnxruntime| {parity.max_difference:.0e} over {len(parity.clean)} images, "
        "each clean and perturbed"
    )


def export(arguments: Arguments) -> Parity:
    """Write the model version. It appears at the target whole and compared, or not at all."""
    target = arguments.target
    _check_target(target)
    folder = RunFolder(arguments.checkpoint)
    config = folder.config()
    model = folder.load_model(arguments.weights)
    images = load_images(arguments.data or config.data, "train")
    config.check_data(images)
    trained_on, held_out = hold_out(images, config.recipe.held_out, config.seed)
    held_out = held_out.spread(COMPARED_IMAGES)
    compared = _first(COMPARED_IMAGES, held_out, trained_on.spread(COMPARED_IMAGES))
    torch.manual_seed(config.seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        write_graph(fold_batch_norm(model), config.image_shape, part)
        parity = compare(model, part, *compared)
        write_manifest(part, _manifest(config, arguments.weights, parity, len(held_out), part))
        part.chmod(0o755)  # temporary files are for their owner only; the server may be another user
        for file in part.iterdir():
            file.chmod(0o644)
        part.rename(target)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):  # leave no model without a version: a server would refuse to start
            target.parent.rmdir()
        if isinstance(error, OSError) and target.exists():
            raise _exists(target) from error
        raise
    return parity


def _check_target(target: Path) -> None:
    if not (target.name.isdecimal() and int(target.name) > 0):
        raise TargetError(f"target is {str(target)!r}; expected MODELS/NAME/VERSION with a whole number as VERSION")
    if target.exists():
        raise _exists(target)


def _exists(target: Path) -> TargetError:
    return TargetError(f"{target} exists; a version is never overwritten, so export to the next number")


def _first(count: int, *parts: ImageData) -> tuple[Tensor, Tensor]:
    """`count` images float32 (n, 3, h, w) and labels, in the order of the parts; few images are gone through again."""
    pixels, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("pixels", "labels"))
    order = torch.arange(count) % len(labels)
    return to_floats(pixels[order]), labels[order]


def _manifest(config: RunConfig, weights: Weights, parity: Parity, distinct: int, folder: Path) -> Manifest:
    def accuracy(attack: str, correct: npt.NDArray[np.bool_]) -> Accuracy:
        interval = wilson(int(correct[:distinct].sum()), distinct)
        data = f"{config.data_name}, held out of training"
        return Accuracy(attack=attack, n=distinct, data=data, **interval._asdict())

    height, width = config.image_shape
    return Manifest(
        classes=config.classes,
        preprocessing=Preprocessing(height=height, width=width),
        tensors={MODEL_FILE: Tensors(inputs=(IMAGES,), outputs=(LOGITS,))},
        files={name: file_sha256(folder / name) for name in (MODEL_FILE, WEIGHTS_FILE)},
        training={
            "data": config.data_name,
            "method": f"{config.recipe.attack} adversarial training{' with FSR' if config.model.fsr else ''}",
            "recipe": {"name": config.recipe_name, **to_jsonable_python(config.recipe)},
            "weights": weights,
            "seed": config.seed,
            "model": to_jsonable_python(config.model),
        },
        accuracies=(
            accuracy("none", parity.clean),
            accuracy("PGD-10, L-infinity 8/255", parity.perturbed),
        ),
        versions={
            "opset": str(OPSET),
            "onnxruntime": onnxruntime.__version__,
            **{name: version(name) for name in ("torch", "onnx", "onnxscript")},
        },
    )
