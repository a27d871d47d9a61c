"""Measured accuracies, kept in the run folder as evaluation.json."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from training.checkpoint import CheckpointError, Weights

EVALUATION_FILE = "evaluation.json"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Result:
    """Share of `n` images that keep their label under an attack (`clean`: as they are), with its 95 % interval."""

    weights: Weights
    weights_sha256: str
    """Of the weights' file, so that figures of weights since replaced are not taken for these."""
    attack: str
    definition: str
    epsilon: float
    accuracy: float
    low: float
    high: float
    n: int
    data: str
    data_sha256: str
    """Of the images and labels used: `ImageData.sha256`."""
    seed: int
    runtime: str
    precision: str
    seconds: float
    measured: str
    """Day it was finished, ISO 8601."""

    @property
    def measures(self) -> tuple[object, ...]:
        """Two results that agree in this measure the same thing."""
        return self.weights_sha256, self.attack, self.epsilon, self.n, self.data_sha256, self.seed


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


def save_result(run: Path, result: Result) -> None:
    """Add the result, replacing an earlier one of the same measurement."""
    kept = [other for other in load_results(run) if other.measures != result.measures]
    part = run / f".{EVALUATION_FILE}"
    part.write_text(json.dumps([asdict(item) for item in (*kept, result)], indent=2) + "\n")
    part.replace(run / EVALUATION_FILE)
