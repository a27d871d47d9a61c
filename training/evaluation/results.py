"""Measured accuracies, kept in the run folder as evaluation.json, and which images kept their label, beside it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from training.checkpoint import CheckpointError, Weights
from training.evaluation.flags import Booleans, FlagsFile, read_flags
from training.lock import in_turn

EVALUATION_FILE = "evaluation.json"
FLAGS_FOLDER = "flags"
SPLIT = ", split "
"""Between the name of the data and that of the split, in the words of results."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Measurement:
    """What is measured, with everything that its figures depend on."""

    weights: Weights
    weights_sha256: str
    """Of the weights' file, so that figures of weights since replaced are not taken for these."""
    attack: str
    definition: str
    epsilon: float
    n: int
    data: str
    """Name and split, such as CIFAR-10 (JPEG), split test."""
    data_sha256: str
    """Of the images and labels used: `ImageData.sha256`."""
    seed: int
    runtime: str
    precision: str
    answered_by: str = "network"
    """Other than the whole network: the feature that its FSR module passed on."""

    @property
    def data_name(self) -> str:
        return self.data.rpartition(SPLIT)[0]

    @property
    def is_on_test_images(self) -> bool:
        return self.data.rpartition(SPLIT)[2] == "test"

    @property
    def key(self) -> tuple[object, ...]:
        """Two measurements that agree in this measure the same thing."""
        return (
            self.weights_sha256,
            self.attack,
            self.definition,
            self.epsilon,
            self.n,
            self.data_sha256,
            self.seed,
            self.answered_by,
        )

    @property
    def flags_path(self) -> Path:
        """Of the flags, relative to the run folder."""
        digest = hashlib.sha256(json.dumps(self.key).encode()).hexdigest()[:12]
        return Path(FLAGS_FOLDER) / f"{self.attack}-{self.weights}-{self.n}-{digest}.npz"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Result(Measurement):
    """Share of `n` images that keep their label under an attack (`clean`: as they are), with its 95 % interval."""

    accuracy: float
    low: float
    high: float
    seconds: float
    measured: str
    """Day it was finished, ISO 8601."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of fsr-serve, and of the package that attacks where one does; empty for results from before they were kept."""
    commit: str | None = None
    """None outside a checkout; ends in + where files differ from it."""


def weights_sha256(run: Path, weights: Weights) -> str:
    return hashlib.sha256((run / f"{weights}.safetensors").read_bytes()).hexdigest()


_RESULTS = TypeAdapter(tuple[Result, ...])


def load_results(run: Path) -> tuple[Result, ...]:
    """What has been measured of the run so far. Raises CheckpointError where the file is damaged."""
    path = run / EVALUATION_FILE
    if not path.exists():
        return ()
    try:
        return _RESULTS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged: {error}. Delete it to measure anew") from error


def kept_result(run: Path, measurement: Measurement) -> Result | None:
    """What the measurement gave, if it was finished before."""
    return next((result for result in load_results(run) if _is_same(result, measurement)), None)


def save_result(run: Path, result: Result) -> None:
    """Add the result, replacing an earlier one of the same measurement. Several processes may measure a run."""
    with in_turn(run):
        _write(run, [*_others(run, result), result])


def forget(run: Path, measurement: Measurement) -> None:
    """What the measurement gave, and its flags, so that it is measured anew."""
    (run / measurement.flags_path).unlink(missing_ok=True)
    with in_turn(run):
        _write(run, _others(run, measurement))


def _others(run: Path, measurement: Measurement) -> list[Result]:
    return [other for other in load_results(run) if not _is_same(other, measurement)]


def _write(run: Path, results: Sequence[Result]) -> None:
    part = run / f".{EVALUATION_FILE}"
    part.write_text(json.dumps([asdict(item) for item in results], indent=2) + "\n")
    part.replace(run / EVALUATION_FILE)


def _is_same(one: Measurement, other: Measurement) -> bool:
    """Best weights that are also the last have a result as either."""
    return (one.weights, one.key) == (other.weights, other.key)


def open_flags(run: Path, measurement: Measurement) -> FlagsFile:
    """The flags so far, to be gone on with."""
    return FlagsFile(run / measurement.flags_path, measurement.n)


def load_flags(run: Path, measurement: Measurement) -> Booleans:
    """Which images kept their label, (n,). Raises DataError where that was not kept or is not finished."""
    return read_flags(run / measurement.flags_path, measurement.n)
