"""The command python -m export.checks: what clean images look like to a version's checks, and what these find.

Nothing here imports torch.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from export.changing import being_changed, open_version
from export.check_figures import Measured, Setting, attacked, figures_of, searched, signals_on
from export.errors import VerificationError
from export.labelled_images import load_as_served
from export.measuring import check_can_measure, check_is_unsigned
from fsr_serve.artifact import (
    CHECKS_FILE,
    CheckFigure,
    ModelVersion,
    file_sha256,
    part_of,
    put_in_place,
    write_manifest,
)
from fsr_serve.checks.calibration import Calibration
from fsr_serve.checks.history import QueryHistory, reach_of
from fsr_serve.checks.signals import Observer, signals_of
from fsr_serve.errors import StartupError
from fsr_serve.session import Device
from training.evaluation.protocol import EPSILON, GradientAttackName
from training.source import DataError, spread

LINKED = 0.01
"""Share of clean images that the history may take for a variant of another."""
FEWEST = 200
"""Images: half of them calibrate, which must be enough for a false alarm in a hundred."""


@dataclass(frozen=True)
class Arguments:
    """Calibrate the checks of a model version on clean images that it was not trained on, and measure what they find.

    Every other image calibrates. False alarms are counted on the others, and finds on some of these, attacked through
    the attack graph. What is written: checks.npz, and the figures in the manifest.
    """

    version: tyro.conf.Positional[Path]
    """MODELS/NAME/VERSION."""
    data: str
    """Hugging Face id or folder with the classes of the model."""
    data_name: str | None = None
    """Name of the data in the manifest; by default what --data says."""
    split: str = "test"
    images: int | None = None
    """Use only so many images, spread evenly over the split."""
    attacks: tuple[GradientAttackName, ...] = ("pgd20", "cw")
    """That make the images to be found. cw goes on after the answer is wrong, so it also hides from the confidence."""
    attacked: int = 500
    """Images to attack; all others where there are fewer."""
    searched: int = 50
    """Images to attack by Square, as one client among those who send the other images."""
    queries: int = 1000
    """Of Square, per image."""
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""
    seed: int = 0
    """Of random starts and of Square's proposals."""
    device: Device = "auto"
    threads: int | None = None
    """CPU threads; all cores by default."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m export.checks")
    try:
        figures = calibrate(arguments)
    except (StartupError, DataError, VerificationError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; nothing was changed")
    print(*map(line, figures), sep="\n")


def calibrate(arguments: Arguments) -> tuple[CheckFigure, ...]:
    """Calibrate all checks that the version's graphs allow, and return the figures that now stand in its manifest.

    Raises VerificationError for a signed version, arguments out of range, or attacks without an attack graph;
    ArtifactError and DeviceError for a version or device that cannot be used; DataError for the images.
    """
    if not 0 < arguments.epsilon <= 1:
        raise VerificationError(f"epsilon is {arguments.epsilon}; expected above 0 and at most 1 ([0, 1] pixels)")
    for name in ("attacked", "searched", "queries"):
        if getattr(arguments, name) < 1:
            raise VerificationError(f"{name} is {getattr(arguments, name)}; expected 1 or more")
    if arguments.seed < 0:
        raise VerificationError(f"seed is {arguments.seed}; expected 0 or more")
    version = open_version(arguments.version)
    check_can_measure(version, arguments.attacks, "Choose --attacks with nothing after it")
    data = load_as_served(arguments.data, arguments.split, version.manifest, arguments.images)
    if len(data.labels) < FEWEST:
        raise DataError(f"there are {len(data.labels)} images; expected at least {FEWEST}, half of them to calibrate")
    calibrating, others = data.images[::2], data.part(slice(1, None, 2))
    setting = Setting(
        version, arguments.epsilon, arguments.queries, arguments.seed, arguments.device, arguments.threads
    )
    observer = Observer(version, signals_of(version), device=arguments.device, threads=arguments.threads)
    reach = reach_of(calibrating, LINKED)
    signals = signals_on(observer, calibrating, "calibrate") | {"similar": QueryHistory(reach).count(calibrating)}
    calibration = Calibration(signals, reach)
    clean = signals_on(observer, others.images, "clean") | {"similar": QueryHistory(reach).count(others.images)}
    count = len(others.labels)
    some = others.part(spread(count, min(arguments.attacked, count)))
    measured = Measured(
        clean,
        [attacked(name, setting, observer, some) for name in dict.fromkeys(arguments.attacks)],
        searched(setting, calibration, others, min(arguments.searched, count)),
    )
    data_name = f"{arguments.data_name or arguments.data}, split {arguments.split}"
    figures = tuple(figures_of(calibration, measured, setting, data_name, data.sha256))
    _write(version, calibration, figures)
    return figures


def line(figure: CheckFigure) -> str:
    """One row of the report."""
    interval = f"{figure.low:>8.2%} - {figure.high:.2%}"
    text = f"{figure.check:<12}{figure.attack:<8}{figure.suspicious:>8.2%}{interval} of {figure.n}"
    text += f" suspicious at {figure.false_alarm_rate:.0%}"
    if figure.accepted_and_wrong is None:
        return f"{text} false alarms"
    text += f", accepted and wrong {figure.accepted_and_wrong:.2%} of {figure.attacked}"
    if figure.auroc is not None:
        text += f", AUROC {figure.auroc:.3f}"
    return text if figure.queries is None else f"{text}, after {figure.queries:g} queries (median)"


def _write(version: ModelVersion, calibration: Calibration, figures: tuple[CheckFigure, ...]) -> None:
    """Put the calibration into the version. Raises VerificationError where it was signed since."""
    with being_changed(version.path) as present:  # others may have measured it meanwhile
        check_is_unsigned(version.path)
        part = part_of(version.path, CHECKS_FILE)
        calibration.write(part)
        files = dict(sorted({**present.manifest.files, CHECKS_FILE: file_sha256(part)}.items()))
        write_manifest(version.path, present.manifest.model_copy(update={"files": files, "checks": figures}))
        put_in_place(version.path, CHECKS_FILE)
