"""What the manifest of a model version says of the deployed files: tests 16, 17 and 21."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.checkpoint import CheckpointError
from training.evaluation.obfuscation import Verdict, in_words
from training.evaluation.protocol import CLEAN_UPLOADS, at_bound, attacked_uploads, is_bounded_by
from training.evaluation.statistics import ROUNDING

SAME = 0.003
"""How far accuracies of a deployed file may lie from the checkpoint's."""
SAME_ROUNDED = 0.01
"""The same in bf16, fp16 and int8, which round."""


def deployed(version: Path | None) -> Verdict:
    """Test 16: the deployed file under the same attacks on the same images as its checkpoint."""
    test = "the deployed file has the checkpoint's accuracies within 0.3 points"
    if version is None:
        return Verdict("16", test, "not run", "--version names the exported version")
    checkpoint = {_measures(one): one for one in _accuracies(version, "checkpoint_accuracies")}
    pairs = [
        (one, checkpoint[_measures(one)])
        for one in _accuracies(version, "accuracies")
        if _measures(one) in checkpoint and one["attack"] != "square"
    ]
    if not pairs:
        return Verdict("16", test, "not run", "measure it with python -m export.verify")
    gaps = [abs(one["accuracy"] - checkpoint["accuracy"]) for one, checkpoint in pairs]
    found = ", ".join(f"{_in_words(one)} {100 * gap:.2f}" for (one, _), gap in zip(pairs, gaps, strict=True))
    most = [SAME if one["precision"] == "fp32" else SAME_ROUNDED for one, _ in pairs]
    is_same = all(gap <= allowed + ROUNDING for gap, allowed in zip(gaps, most, strict=True))
    return Verdict("16", test, "pass" if is_same else "fail", f"apart by points: {found}")


def checked(version: Path | None, epsilon: float) -> Verdict:
    """Test 17: what each check of the server calls suspicious, of clean images and of successful attacks."""
    test = "checks on the fly: false alarms, and what they catch"
    if version is None:
        why = "--version names the exported version; measure it with python -m export.checks VERSION --data DATA"
        return Verdict("17", test, "not run", why)
    figures = [one for one in manifest_of(version).get("checks", []) if is_bounded_by(epsilon, one["epsilon"])]
    if not figures:
        return Verdict("17", test, "not run", f"measure it with python -m export.checks {version} --data DATA")
    rates = {one["false_alarm_rate"] for one in figures}
    found = (
        f"{one['check']}: {one['suspicious']:.2%} of {one['attack']} (n = {one['n']:,})"
        for one in figures
        if one["false_alarm_rate"] == min(rates)
    )
    return Verdict("17", test, "figure", f"at {min(rates):.0%} false alarms, {', '.join(found)}")


def through_uploads(version: Path | None, epsilon: float) -> Verdict:
    """Test 21: attacks in the pixels of larger uploads, through rounding, encoding, decoding and resizing."""
    test = "attacks through encoding, decoding and resizing, beside those on the decoded pixels"
    if version is None:
        why = "--version names the exported version; measure it with python -m export.uploads VERSION --data DATA"
        return Verdict("21", test, "not run", why)
    complete = list(_complete(_accuracies(version, "accuracies"), epsilon))
    if not complete:
        why = f"measure it with python -m export.uploads {version} --data DATA --epsilon {epsilon:.6g}"
        return Verdict("21", test, "not run", why)
    found = max(complete, key=lambda group: group[CLEAN_UPLOADS[0]]["n"])
    figures = in_words({name: one["accuracy"] for name, one in found.items()})
    of = found[CLEAN_UPLOADS[0]]
    return Verdict("21", test, "figure", f"{figures}; n = {of['n']:,}, {of['data']}")


def _complete(accuracies: Sequence[dict[str, Any]], epsilon: float) -> Iterator[Mapping[str, dict[str, Any]]]:
    """By name, for each attack and images: everything that is to stand beside each other; the lowest of several."""
    groups: dict[tuple[object, ...], dict[str, dict[str, Any]]] = {}
    for one in accuracies:
        if is_bounded_by(epsilon, one["epsilon"]):
            group = groups.setdefault((one["data"], one["data_sha256"], one["n"]), {})
            if one["attack"] not in group or one["accuracy"] < group[one["attack"]]["accuracy"]:
                group[one["attack"]] = one
    for group in groups.values():
        for attack in {name.partition("_")[0] for name in group if name not in CLEAN_UPLOADS}:
            names = (*CLEAN_UPLOADS, *attacked_uploads(attack))
            if all(name in group for name in names):
                yield {name: group[name] for name in names}


def _accuracies(version: Path, name: str) -> list[dict[str, Any]]:
    manifest = manifest_of(version)
    try:
        accuracies = manifest[name]
        for one in accuracies:
            _measures(one)
    except (KeyError, TypeError) as error:
        raise no_manifest(version, error) from error
    return accuracies


def _in_words(accuracy: Mapping[str, Any]) -> str:
    engine = f"{accuracy['runtime']}, {accuracy['precision']}"
    return f"{at_bound(accuracy['attack'], accuracy['epsilon'])} (n = {accuracy['n']:,}, {engine})"


def _measures(accuracy: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(accuracy[name] for name in ("attack", "definition", "epsilon", "n", "data_sha256", "seed"))


def manifest_of(version: Path) -> Any:
    """As JSON; the files are not checked. Raises CheckpointError where there is none."""
    path = version / "manifest.json"
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); expected a model version made by python -m export"
        ) from error
    except ValueError as error:
        raise no_manifest(version, error) from error


def no_manifest(version: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{version / 'manifest.json'} is no manifest of a model version: {error!r}")
