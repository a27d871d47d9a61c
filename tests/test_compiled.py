"""Evaluations with a compiled network: what is measured is the same."""

import shutil
from dataclasses import replace

import pytest

from training.evaluation.command import Arguments, report
from training.evaluation.results import load_flags, load_results

pytestmark = pytest.mark.slow

ATTACKS = ("pgd20", "relaxed_mask", "detached_mask", "mask_alone", "all_heads", "feature_matching", "nattack", "square")


@pytest.mark.parametrize("feature", ["output", "robust"])
def test_a_compiled_network_keeps_the_same_images_under_every_kind_of_attack(checkpoint, tmp_path, feature):
    plain = Arguments(
        shutil.copytree(checkpoint, tmp_path / "plain"),
        attacks=ATTACKS if feature == "output" else ("pgd20",),
        feature=feature,
        queries=602,
        epsilon=0.1 if feature == "output" else 0.3,
    )
    compiled = replace(plain, checkpoint=shutil.copytree(checkpoint, tmp_path / "compiled"), compile=True)
    for arguments in (plain, compiled):
        report(arguments)
    pairs = list(zip(*(load_results(of.checkpoint) for of in (plain, compiled)), strict=True))
    assert len(pairs) == 1 + len(plain.attacks)
    for one, other in pairs:
        assert one.key == other.key
        assert other.runtime == f"{one.runtime}, compiled"
        assert (load_flags(plain.checkpoint, one) == load_flags(compiled.checkpoint, other)).all(), one.attack
    assert len({one.accuracy for one, _ in pairs}) > 1, "attacks do something"
