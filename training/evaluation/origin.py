"""Was a model version exported from this very checkpoint?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from training.checkpoint import CheckpointError, RunFolder, Weights
from training.evaluation.deployed import manifest_of, no_manifest
from training.evaluation.results import weights_sha256


def check_is_of(version: Path, checkpoint: Path, weights: Weights) -> None:
    """Raise CheckpointError for a version that was exported from another network than these weights."""
    theirs, ours = _origin(version), _of_checkpoint(checkpoint, weights)
    if "weights" not in theirs:
        raise CheckpointError(f"{version} was not exported from a run; expected a version made from {checkpoint}")
    # manifests made before they held the digest tell networks apart by all else that they say
    names = ["weights_sha256"] if "weights_sha256" in theirs else [name for name in ours if name in theirs]
    for name in names:
        if theirs[name] != ours[name]:
            raise CheckpointError(
                f"{version} was exported from another network than the {weights} weights of {checkpoint}: {name} is "
                f"{theirs[name]}, expected {ours[name]}. Name by --version what python -m export made of these weights"
            )


def _origin(version: Path) -> Mapping[str, Any]:
    """What the manifest says of the network that the version was made from."""
    manifest = manifest_of(version)
    try:
        return _flat({**manifest["training"], "classes": manifest["classes"]})
    except (KeyError, TypeError) as error:
        raise no_manifest(version, error) from error


def _of_checkpoint(checkpoint: Path, weights: Weights) -> Mapping[str, Any]:
    """The same of a checkpoint, in the order in which it is compared."""
    config = RunFolder(checkpoint).config()
    told = {
        "weights_sha256": weights_sha256(checkpoint, weights),
        "classes": config.classes,
        "model": config.model,
        "recipe": config.recipe,
        "seed": config.seed,
        "weights": weights,
    }
    return _flat(to_jsonable_python(told))


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """By name, and what is inside of fields by path, such as recipe.epochs."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= {f"{name}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {name: value}
    return flat
