"""The command python -m export: a checkpoint, or any other network, becomes a model version."""

import importlib
import logging
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from pydantic_core import to_jsonable_python
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from export.errors import ExportError
from export.parity import Parity
from export.target import check_target
from export.version import Source, make_version
from fsr_serve.artifact import Accuracy, JpegScale, Precision
from fsr_serve.errors import ArtifactError
from training.checkpoint import CheckpointError, RunConfig, RunFolder, Weights
from training.data import ImageData, hold_out, load_images, to_floats
from training.evaluation.results import load_results, weights_sha256
from training.objectives import OBJECTIVES
from training.source import DataError


@dataclass(frozen=True)
class Arguments:
    """Turn a checkpoint into a model version: ONNX graphs with the Gumbel noise frozen, weights and manifest.

    The files are always compared with torch on held-out images, clean and attacked by PGD-20; files that differ, or
    that lose more than a fifth of the checkpoint's robust accuracy, are not written.

    Any other network: python -m export --module PACKAGE:FACTORY --weights FILE --data DATA TARGET
    """

    checkpoint: tyro.conf.Positional[Path]
    """Run folder made by python -m training."""
    target: tyro.conf.Positional[Path]
    """Folder to make, MODELS/NAME/VERSION with a whole number as VERSION."""
    data: str | None = None
    """Where the data it was trained on lies now; by default where it lay then. Where it is not at hand, other images of
    the same classes: their split test is compared with torch, and int8 calibrates on their split train."""
    weights: Weights = "best"
    """best: highest PGD-10 accuracy on validation images. last: after the last epoch."""
    precision: Precision = "fp32"
    """fp32: the reference. fp16: for GPUs. int8: for CPUs; ranges are calibrated on training images."""
    attack_graph: bool = True
    """Make attack.onnx too, with which the deployed file can be attacked."""
    jpeg_scale: JpegScale | None = None
    """How large the server decodes JPEGs, full or reduced; by default as in training, and never such that the
    training images would have other pixels."""


@dataclass(frozen=True)
class ModuleArguments:
    """Turn any torch network into a model version: images (n, 3, h, w) in [0, 1] -> logits (n, classes).

    The data gives class names and image size. Its `test` split is compared with torch, clean and attacked by PGD-20;
    files that differ are not written.
    """

    target: tyro.conf.Positional[Path]
    """Folder to make, MODELS/NAME/VERSION with a whole number as VERSION."""
    module: str
    """PACKAGE:FACTORY, called without arguments for the network; its code is imported and run."""
    weights: Path
    """State of the network, a safetensors file."""
    data: str
    """Hugging Face id or folder, with the splits train and test."""
    precision: Precision = "fp32"
    """fp32: the reference. fp16: for GPUs. int8: for CPUs; ranges are calibrated on training images."""
    attack_graph: bool = True
    """Make attack.onnx too, with which the deployed file can be attacked."""
    jpeg_scale: JpegScale = "full"
    """How large JPEGs are decoded. reduced: at 1/2, 1/4 or 1/8, still twice what the network takes; several times
    faster for photographs, with slightly other pixels. export.verify measures what the server will see."""


def main() -> None:
    is_module = any(word.partition("=")[0] == "--module" for word in sys.argv[1:])
    kind: type[Arguments | ModuleArguments] = ModuleArguments if is_module else Arguments
    arguments = tyro.cli(kind, prog="python -m export")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # lists every optional package that is absent
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch|copyreg")
    warnings.filterwarnings("ignore", message=".*dynamic_shapes|.*axis name", module="torch|export")
    try:
        parity = export(arguments)
    except (ArtifactError, CheckpointError, DataError, ExportError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; nothing was written")
    print(summary(arguments.target, parity))


def export(arguments: Arguments | ModuleArguments) -> Parity:
    """Write the model version. It appears at the target whole and compared, or not at all."""
    check_target(arguments.target)
    source = read_module(arguments) if isinstance(arguments, ModuleArguments) else read_checkpoint(arguments)
    return make_version(
        source,
        arguments.target,
        arguments.precision,
        has_attack_graph=arguments.attack_graph,
    )


def summary(target: Path, parity: Parity) -> str:
    """What was proved, in two lines."""
    n = len(parity.clean.flags)
    robust = f", under PGD-20 {parity.attacked.share:.1%}" if parity.attacked is not None else ""
    return (
        f"{target}: max |torch - onnxruntime| {parity.max_difference:.0e} over {n} images, each clean and attacked; "
        f"{parity.same_labels:.2%} the same labels\n"
        f"the file keeps {parity.clean.share:.1%} of them right{robust}; torch {parity.torch_clean.share:.1%} and "
        f"{parity.torch_attacked.share:.1%}"
    )


def read_checkpoint(arguments: Arguments) -> Source:
    """Raises CheckpointError, DataError, or ExportError for a JPEG scale that contradicts the training."""
    folder = RunFolder(arguments.checkpoint)
    config = folder.config()
    model = folder.load_model(arguments.weights)
    jpeg_scale = arguments.jpeg_scale or config.jpeg_scale
    images = load_images(arguments.data or config.data, "train", config.image_shape, jpeg_scale)
    if jpeg_scale != config.jpeg_scale and images.sha256 != config.data_sha256:
        raise ExportError(
            f"jpeg_scale is {jpeg_scale!r} but {arguments.checkpoint} was trained with {config.jpeg_scale!r}, which "
            f"makes other pixels of its images. Leave out --jpeg-scale, or train with --jpeg-scale {jpeg_scale}"
        )
    if arguments.data is None or images.sha256 == config.data_sha256:
        config.check_data(images)
        trained_on, held_out = hold_out(images, config.recipe.held_out, config.seed)
        held_out_name = f"{config.data_name}, held out of training"
    else:
        trained_on, held_out = images, load_images(arguments.data, "test", config.image_shape, jpeg_scale)
        held_out_name = f"{arguments.data}, split test"
        if {trained_on.classes, held_out.classes} != {config.classes}:
            raise DataError(
                f"{arguments.data!r} is not the training data of {arguments.checkpoint}, and has not its classes, "
                f"{', '.join(config.classes[:10])}. Say by --data where that lies, or images of the same classes"
            )
    return Source(
        model=model,
        held_out=held_out,
        trained_on=trained_on,
        held_out_name=held_out_name,
        seed=config.seed,
        training=_training(config, arguments.weights, weights_sha256(arguments.checkpoint, arguments.weights)),
        accuracies=_measured(arguments.checkpoint, arguments.weights),
        jpeg_scale=jpeg_scale,
    )


def read_module(arguments: ModuleArguments) -> Source:
    """Raises ExportError when the factory or its weights cannot be used, or DataError."""
    model = _build(arguments.module)
    try:
        model.load_state_dict(load_file(arguments.weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ExportError(f"{arguments.weights} does not hold the weights of {arguments.module}: {error}") from error
    test, train = (load_images(arguments.data, split) for split in ("test", "train"))
    if test.classes != train.classes or test.shape != train.shape:
        raise DataError(f"the splits test and train of {arguments.data!r} differ in classes or image size")
    model.eval()
    _check_answers(model, arguments.module, test)
    return Source(
        model=model,
        held_out=test,
        trained_on=train,
        held_out_name=f"{arguments.data}, split test",
        seed=0,
        training={"method": "unknown: exported from a module", "module": arguments.module},
        accuracies=(),
        jpeg_scale=arguments.jpeg_scale,
    )


def _build(module: str) -> nn.Module:
    package, _, factory = module.partition(":")
    if not package or not factory.isidentifier():
        raise ExportError(f"module is {module!r}; expected PACKAGE:FACTORY, such as my_package.networks:create")
    try:
        model = getattr(importlib.import_module(package), factory)()
    except Exception as error:  # code of the user
        raise ExportError(f"{module} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ExportError(f"{module} returns a {type(model).__name__}; expected a torch.nn.Module")
    return model


def _check_answers(model: nn.Module, module: str, images: ImageData) -> None:
    """Raise ExportError unless each of two images gets a logit per class, whatever the other image is."""
    height, width = images.shape
    two = to_floats(images.pixels[[0, -1]])
    try:
        with torch.no_grad():
            answer, alone = model(two), model(two[:1])
    except Exception as error:  # code of the user
        raise ExportError(
            f"{module} fails on images of {height}x{width} pixels: {type(error).__name__}: {error}. Expected a network "
            f"for images (n, 3, {height}, {width}), as the data has them"
        ) from error
    found = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
    expected = (2, len(images.classes))
    if not isinstance(answer, Tensor) or answer.shape != expected:
        raise ExportError(
            f"{module} answers two images with {found}; expected logits of shape {expected}, one for each of the "
            f"{expected[1]} classes of the data"
        )
    if not torch.allclose(answer[:1], alone, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ExportError(
            f"{module} answers an image differently in a batch; expected independent images. A batch norm without "
            "running statistics does that"
        )


def _training(config: RunConfig, weights: Weights, digest: str) -> dict:
    return {
        "data": config.data_name,
        "method": _method(config),
        "recipe": {"name": config.recipe_name, **to_jsonable_python(config.recipe)},
        "weights": weights,
        "weights_sha256": digest,
        "seed": config.seed,
        "start": config.start,
        "model": to_jsonable_python(config.model),
    }


def _method(config: RunConfig) -> str:
    recipe, model = config.recipe, config.model
    attack = f" by {recipe.attack}" if OBJECTIVES[recipe.objective].images == "attacked" else ""
    modules = [*(["FSR"] if model.fsr else []), *([model.rival] if model.rival else [])]
    return f"{recipe.objective}{attack}{' with ' if modules else ''}{' and '.join(modules)}"


def _measured(run: Path, weights: Weights) -> tuple[Accuracy, ...]:
    """Clean and attacked; corruptions and rotations stay in the run folder."""
    digest = weights_sha256(run, weights)
    results = {
        result.key: asdict(result)  # once, where the best weights are the last
        for result in load_results(run)
        if result.weights_sha256 == digest
        and result.answered_by == "network"
        and (result.epsilon > 0 or result.attack == "clean")
    }
    return tuple(
        Accuracy(**{name: value for name, value in result.items() if name in Accuracy.model_fields})
        for result in results.values()
    )
