"""Maps over their images as one picture, in the manner of the paper's Figure 1, for clean and attacked images."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from training.evaluation.features_figure import COLOURS, MATH
from training.evaluation.maps import Maps

Pixels = npt.NDArray[np.float32]

FOR, AGAINST = (0.835, 0.369, 0.0), (0.0, 0.447, 0.698)
"""Vermilion and blue: apart for colour-blind readers too."""
STRONGEST = 0.9
"""Opacity of the strongest evidence over its image."""

PANEL, GAP, LINE, BLOCK_GAP = 1.2, 0.07, 0.2, 0.22  # inches; LINE is for the number below a panel
LEFT, RIGHT, TOP, BOTTOM = 1.85, 0.25, 0.8, 1.85
TILE = 160
"""Pixels along a panel's picture."""
LONGEST = 15
"""Letters of a class name that fit beside the panels."""


def draw_maps(
    conditions: Mapping[str, Maps],
    natural: Mapping[str, Tensor] | None,
    labels: Tensor,
    classes: Sequence[str],
    caption: str,
) -> Figure:
    """A row per image and condition ("clean", "attacked"); `natural` holds another network's Grad-CAM by condition."""
    features = list(next(iter(conditions.values())).evidence)
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in classes]
    headings = ["image", *(["Grad-CAM,\nnatural training"] if natural else []), "Grad-CAM,\nthis network"]
    headings += [f"evidence in\n{MATH[feature]}" for feature in features]
    row_height = PANEL + LINE
    block_height = len(conditions) * row_height + BLOCK_GAP
    width = LEFT + len(headings) * (PANEL + GAP) + RIGHT
    height = TOP + len(labels) * block_height + BOTTOM
    figure = Figure(figsize=(width, height))

    def place(left: float, top: float, panel_width: float, panel_height: float) -> tuple[float, float, float, float]:
        """Inches from the left and the top -> shares of the figure."""
        return left / width, 1 - (top + panel_height) / height, panel_width / width, panel_height / height

    def write(left: float, top: float, words: str, **style: Any) -> None:
        styled: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9} | style
        figure.text(left / width, 1 - top / height, words, **styled)

    for column, heading in enumerate(headings):
        write(
            LEFT + column * (PANEL + GAP) + PANEL / 2, TOP - 0.1, heading, va="bottom", fontsize=10.5, linespacing=1.4
        )
    for index, label in enumerate(labels.tolist()):
        scale = max(float(part[index].abs().max()) for maps in conditions.values() for part in maps.evidence.values())
        for row, (condition, maps) in enumerate(conditions.items()):
            top = TOP + index * block_height + row * row_height
            answer = int(maps.answers[index])
            words = f"{condition}\nanswered: {names[answer]}\n{'right' if answer == label else 'wrong'}"
            write(0.15, top + PANEL / 2 + 0.1, words, ha="left", color=COLOURS[condition], linespacing=1.5)
            if row == 0:
                write(0.15, top + 0.1, names[label], ha="left", fontsize=12, fontweight="bold")
            grey = _enlarged(maps.images[index].mean(dim=0).numpy(), Image.Resampling.NEAREST)
            colours = maps.images[index].permute(1, 2, 0).numpy()
            cams = [*([natural[condition]] if natural else []), maps.grad_cam]
            pictures = [colours, *(_over(grey, cam[index].numpy(), float(cam[index].max())) for cam in cams)]
            pictures += [_over(grey, maps.evidence[feature][index].numpy(), scale) for feature in features]
            for column, picture in enumerate(pictures):
                axes = figure.add_axes(place(LEFT + column * (PANEL + GAP), top, PANEL, PANEL))
                axes.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
                axes.set_axis_off()
            for column, feature in enumerate(features, start=len(pictures) - len(features)):
                number = f"{float(maps.evidence[feature][index].mean()):+.2f}"
                write(LEFT + column * (PANEL + GAP) + PANEL / 2, top + PANEL + LINE / 2, number)
    bar = figure.add_axes(place(LEFT, height - BOTTOM + 0.1, 3.5, 0.14))
    colours_of_evidence = LinearSegmentedColormap.from_list("evidence", [AGAINST, (1.0, 1.0, 1.0), FOR])
    bar.imshow([np.linspace(-1, 1, 256)], aspect="auto", cmap=colours_of_evidence, extent=(-1, 1, 0, 1))
    bar.set_yticks([])
    bar.set_xticks([-1, 0, 1], ["strongest\nagainst", "none", "strongest\nfor the class"], fontsize=9)
    text = textwrap.fill(caption, round(width * 15))
    write(0.15, height - BOTTOM + 0.75, text, ha="left", va="top", color="0.25", linespacing=1.35)
    return figure


def _enlarged(values: Pixels, resampling: Image.Resampling) -> Pixels:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((TILE, TILE), resampling))


def _over(grey: Pixels, values: Pixels, scale: float) -> Pixels:
    """The lightened picture under a map: the stronger the evidence as a share of `scale`, the more opaque."""
    strength = _enlarged(values / max(scale, 1e-12), Image.Resampling.BILINEAR)[..., None]
    opacity = STRONGEST * np.abs(strength)
    light = 0.4 + 0.6 * grey[..., None]
    return np.clip((1 - opacity) * light + opacity * np.where(strength > 0, FOR, AGAINST), 0, 1)
