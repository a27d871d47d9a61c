"""The command python -m training.evaluation maps: where the evidence for a few images' classes lies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from training.accuracy import frozen
from training.checkpoint import CheckpointError, RunFolder
from training.data import ImageData, to_floats
from training.device import Device, pick_device
from training.evaluation.arguments import RunArguments
from training.evaluation.command_line import tell
from training.evaluation.features_report import write_csv
from training.evaluation.inspection import (
    Inspected,
    Threat,
    check_epsilon,
    check_is_new,
    open_run,
    spread,
)
from training.evaluation.maps import Maps, grad_cam, maps_of
from training.evaluation.maps_figure import draw_maps
from training.evaluation.protocol import EPSILON
from training.evaluation.suite import CheckpointAttack
from training.models import FSRNet
from training.source import DataError

PROGRAM = "python -m training.evaluation maps"

MOST_IMAGES = 16
"""Rows of one picture that can still be read."""


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """Grad-CAM and the evidence for the true class in FSR's features, over clean and attacked images.

    Writes maps.png and maps.csv.
    """

    out: Path
    """Folder to make."""
    natural: Path | None = None
    """Run folder of a network trained on clean images (--objective natural), whose Grad-CAM is drawn beside."""
    images: int = 4
    """So many images, spread evenly over the split."""
    attack: CheckpointAttack = "pgd20"
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog=PROGRAM, args=args)
    tell(lambda: [draw(arguments)], CheckpointError, DataError)


def draw(arguments: Arguments) -> str:
    """Compute the maps, write the files and return what they show."""
    check_is_new(arguments.out)
    check_epsilon(arguments.epsilon)
    run = open_run(arguments.checkpoint, arguments.weights)
    threat = Threat(arguments.attack, arguments.epsilon, arguments.seed)
    threat.check_against(run)
    natural = None if arguments.natural is None else _natural_network(arguments.natural, run)
    data, name = arguments.open_data(run.config)
    data = spread(data, arguments.images, "images", most=MOST_IMAGES)
    attacked = threat.describe(len(data.classes), len(data))
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = pick_device()
    device.place_model(run.model)
    labels = data.labels.to(device.torch_device)
    conditions, cams = {}, {}
    with tqdm(total=2, unit="condition", leave=False) as bar:
        for condition, images in _conditions(run.model, data, threat, device):
            bar.set_description(condition)
            conditions[condition] = maps_of(run.model, images, labels)
            if natural is not None:
                device.place_model(natural)
                cams[condition] = grad_cam(natural, images, labels).cpu()
            bar.update()
    caption = (
        "Orange speaks for the true class, blue against it. Evidence: the auxiliary head's weights times a feature, on "
        "one scale per image; the number below is the mean over the map, the head's logit. Grad-CAM: of "
        f"the last features, each map on its own scale. {run.description}. {name}. Attacked: {attacked}."
    )
    if arguments.natural is not None:
        objective = RunFolder(arguments.natural).config().recipe.objective
        caption += f" Natural training: {arguments.natural} (objective {objective}), on the same images."
    draw_maps(conditions, cams or None, data.labels, data.classes, caption).savefig(arguments.out / "maps.png", dpi=130)
    write_csv(
        arguments.out / "maps.csv",
        ["image", "condition", "label", "answer", "map", "row", "column", "value"],
        _values(conditions, cams, data),
    )
    return f"{arguments.out}: maps.png and maps.csv of {len(data)} images\n{caption}"


def _natural_network(path: Path, run: Inspected) -> FSRNet:
    config = RunFolder(path).config()
    if (config.classes, config.image_shape) != (run.config.classes, run.config.image_shape):
        found, expected = (
            f"{', '.join(each.classes[:10])} at {each.image_shape[0]}x{each.image_shape[1]} pixels"
            for each in (config, run.config)
        )
        raise CheckpointError(
            f"{path} was trained on {found}, {run.path} on {expected}; expected the same by --natural"
        )
    return RunFolder(path).load_model("best")


def _conditions(model: FSRNet, data: ImageData, threat: Threat, device: Device) -> Iterator[tuple[str, Tensor]]:
    """The images as they are, then attacked."""
    images = device.place_images(to_floats(data.pixels), model)
    yield "clean", images
    with frozen(model):
        yield "attacked", threat.build(data.shape)(model, images, data.labels.to(device.torch_device))


def _values(conditions: Mapping[str, Maps], cams: Mapping[str, Tensor], data: ImageData) -> Iterator[Sequence[object]]:
    for condition, maps in conditions.items():
        named: dict[str, Tensor] = {"grad_cam": maps.grad_cam}
        named |= {str(name): part for name, part in maps.evidence.items()}
        if cams:
            named["natural_grad_cam"] = cams[condition]
        for name, values in named.items():
            for image, row, column in torch.cartesian_prod(*(torch.arange(size) for size in values.shape)).tolist():
                label, answer = data.labels[image], maps.answers[image]
                shown = data.classes[int(label)], data.classes[int(answer)]
                yield image, condition, *shown, name, row, column, float(values[image, row, column])
