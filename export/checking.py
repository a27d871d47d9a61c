"""The command python -m export.checks: what clean images look like to a version's checks, and what these find.

Nothing here imports torch.
"""

import hashlib
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tyro

from export.arguments import VersionArguments, check_at_least, check_epsilon
from export.changing import being_changed, open_version, write_manifest
from export.check_figures import RATES, Measured, Setting, attacked, figures_of, signals_on
from export.errors import VerificationError
from export.labelled_images import load_as_served
from export.measuring import check_can_measure, check_is_as_measured, runtime_of
from export.searches import SEARCHES, Searcher
from fsr_serve.artifact import CHECKS_FILE, MODEL_FILE, CheckFigure, ModelVersion
from fsr_serve.checks.calibration import Calibration
from fsr_serve.checks.history import QueryHistory, reach_of
from fsr_serve.checks.signals import Observer, signals_of
from fsr_serve.errors import StartupError
from fsr_serve.session import OnnxModel
from training.evaluation.protocol import EPSILON, GradientAttackName
from training.source import DataError, spread

LINKED = 0.01
"""Share of clean images that the history may find alike to another."""
LEAST_REACH = 0.001
"""Of the history: above the rounding of distances, and a quarter of what noise within 8/255 does to thumbnails."""
FEWEST = 200
"""Images: half of them calibrate, which must be enough for one check at 1 % false alarms (`Calibration.least_rate`)."""


@dataclass(frozen=True)
class Arguments(VersionArguments):
    """Calibrate the checks of a model version on clean images that it was not trained on, and measure what they find.

    Half of them, drawn at random, calibrate. False alarms are counted on the others, and finds on some of these,
    attacked through the attack graph. What is written: checks.npz, and the figures in the manifest.
    """

    attacks: tuple[GradientAttackName, ...] = ("pgd20", "cw")
    """That make the images to be found. cw goes on after the answer is wrong, so it also hides from the confidence."""
    attacked: int = 500
    """Images to attack; all others where there are fewer."""
    searched: int = 50
    """Images to attack by Square, as published and disguised, as one client among those who send the other images."""
    queries: int = 1000
    """Of Square, per image."""
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""
    seed: int = 0
    """Of which images calibrate, of random starts, of Square and of its disguise."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m export.checks")
    try:
        figures = calibrate(arguments)
    except (StartupError, DataError, VerificationError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; nothing was changed")
    print(*map(line, figures), sep="\n")
    print(least_rates(Calibration.read(arguments.version / CHECKS_FILE)))


def calibrate(arguments: Arguments) -> tuple[CheckFigure, ...]:
    """Calibrate all checks that the version's graphs allow, and return the figures that now stand in its manifest.

    Raises VerificationError for a signed version, arguments out of range, or attacks without an attack graph;
    ArtifactError and DeviceError for a version or device that cannot be used; DataError for the images.
    """
    check_epsilon(arguments.epsilon)
    check_at_least(1, attacked=arguments.attacked, searched=arguments.searched, queries=arguments.queries)
    check_at_least(0, seed=arguments.seed)
    version = open_version(arguments.version)
    check_can_measure(version, arguments.attacks, "Choose --attacks with nothing after it")
    data = load_as_served(arguments.data, arguments.split, version.manifest, arguments.images)
    if len(data.labels) < FEWEST:
        raise DataError(f"there are {len(data.labels)} images; expected at least {FEWEST}, half of them to calibrate")
    half, rest = halves(len(data.labels), arguments.seed)
    calibrating, others = data.images[half], data.part(rest)
    session = OnnxModel(version.path / MODEL_FILE, device=arguments.device, threads=arguments.threads)
    setting = Setting(
        version=version,
        epsilon=arguments.epsilon,
        queries=arguments.queries,
        seed=arguments.seed,
        device=arguments.device,
        threads=arguments.threads,
        runtime=runtime_of(session),
    )
    observer = Observer(version, signals_of(version), device=arguments.device, threads=arguments.threads)
    reach = reach_of(calibrating, LINKED)
    if reach < LEAST_REACH:
        raise DataError(
            f"more than {LINKED:.0%} of the images to calibrate on look as another one at 8x8 pixels; expected "
            "pictures that differ. Leave copies out"
        )
    history = QueryHistory(reach, len(calibrating))
    history.count(calibrating)  # now full, as a server's is, so that each is compared with all others
    signals = signals_on(observer, calibrating, "calibrate") | {"similar": history.count(calibrating)}
    calibration = Calibration(signals, reach)
    clean = signals_on(observer, others.images, "clean") | {"similar": history.count(others.images)}
    count = len(others.labels)
    some = others.part(spread(count, min(arguments.attacked, count)))
    searcher = Searcher(session, calibration, arguments.epsilon, arguments.queries, arguments.seed, min(RATES))
    measured = Measured(
        clean,
        [attacked(name, setting, observer, some) for name in dict.fromkeys(arguments.attacks)],
        {name: searcher.search(name, others, min(arguments.searched, count)) for name in SEARCHES},
    )
    figures = tuple(figures_of(calibration, measured, setting, arguments.measured_on, data.sha256))
    write_checks(version, calibration, figures)
    return figures


def halves(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rising indices of the two: at random, since every other image of data in turns would be of other classes."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: (count + 1) // 2]), np.sort(order[(count + 1) // 2 :])


def line(figure: CheckFigure) -> str:
    """One row of the report."""
    interval = f"{figure.low:>8.2%} - {figure.high:.2%}"
    text = f"{figure.check:<12}{figure.attack:<18}{figure.suspicious:>8.2%}{interval} of {figure.n}"
    text += f" suspicious at {figure.false_alarm_rate:.0%}"
    if figure.accepted_and_wrong is None:
        return f"{text} false alarms"
    text += f", accepted and wrong {figure.accepted_and_wrong:.2%} of {figure.attacked}"
    if figure.auroc is not None:
        text += f", AUROC {figure.auroc:.3f}"
    return text if figure.queries is None else f"{text}, after {figure.queries:g} queries (median)"


def least_rates(calibration: Calibration) -> str:
    """From which false-alarm rate on checks can find anything: below, no p-value is small enough."""
    together, alone = (calibration.least_rate(count) for count in (len(calibration.checks), 1))
    return (
        f"calibrated on {calibration.n} images, which is enough for FSR_FALSE_ALARM_RATE={together:g} or more with all "
        f"{len(calibration.checks)} checks, {alone:g} or more with one"
    )


def write_checks(version: ModelVersion, calibration: Calibration, figures: tuple[CheckFigure, ...]) -> None:
    """Put the calibration into the version. Raises VerificationError where it was signed or replaced since."""
    with being_changed(version.path) as present:  # others may have measured it meanwhile
        check_is_as_measured(present, version)
        content = calibration.as_bytes()
        digests = present.manifest.files | {CHECKS_FILE: hashlib.sha256(content).hexdigest()}
        changes = {"files": dict(sorted(digests.items())), "checks": figures}
        write_manifest(version.path, present.manifest.model_copy(update=changes), {CHECKS_FILE: content})
