"""The curves of a run as a picture."""

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def plot_history(history: list[dict[str, Any]], path: Path) -> None:
    """Draw losses and accuracies per epoch into a PNG at `path`."""
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for axes, suffix in ((losses, "loss"), (accuracies, "accuracy")):
        for name in (name for name in history[-1] if name.endswith(suffix)):
            axes.plot(epochs, [record.get(name, math.nan) for record in history], label=name.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    losses.set_ylabel("loss")
    accuracies.set_ylabel("accuracy")
    accuracies.set_ylim(0, 1)
    part = path.with_suffix(".part")
    figure.savefig(part, format="png", dpi=120)
    part.replace(path)
