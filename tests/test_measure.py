"""Evaluations that are interrupted, shared by processes, repeated from other starts, and put together."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch

from training.attacks import fgsm, margin, pgd
from training.checkpoint import RunFolder
from training.data import load_images, to_floats
from training.evaluation import measure
from training.evaluation.command import ENSEMBLE, Arguments, report
from training.evaluation.flags import FlagsFile, read_flags
from training.evaluation.passed_on import passing_on
from training.evaluation.protocol import Budget, RandomStarts
from training.evaluation.results import load_flags, load_results
from training.evaluation.suite import attack_named
from training.source import DataError

STRONG = 64 / 255  # breaks some of the images and not others


@pytest.fixture
def checkpoint(checkpoint, tmp_path):
    """A copy, because evaluations are kept in the run folder."""
    return shutil.copytree(checkpoint, tmp_path / "run")


def flags_of(checkpoint):
    return {result.attack: load_flags(checkpoint, result) for result in load_results(checkpoint)}


def test_it_goes_on_where_it_was_stopped(checkpoint, tmp_path, monkeypatch):
    asked = Arguments(checkpoint, attacks=("pgd10", "square"), epsilon=STRONG, queries=20, batch=7)
    whole = shutil.copytree(checkpoint, tmp_path / "whole")
    text = report(Arguments(whole, attacks=asked.attacks, queries=20, epsilon=STRONG, batch=7))
    measured, of = [], measure._flags

    def stop_at_the_sixth(job, part, images):
        measured.append((job.attack, part.start))
        if len(measured) == 6:
            raise KeyboardInterrupt
        return of(job, part, images)

    monkeypatch.setattr(measure, "_flags", stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        report(asked)
    assert re.sub("; measured .*", "", report(asked)).splitlines()[1:] == text.splitlines()[1:]
    clean = [(None, first) for first in (0, 7, 14, 21)]
    attacked = [(name, first) for name in ("pgd10", "square") for first in (0, 7, 14, 21)]
    assert measured == [*clean, ("pgd10", 0), ("pgd10", 7), *attacked[1:]]
    for attack, flags in flags_of(checkpoint).items():
        np.testing.assert_array_equal(flags, flags_of(whole)[attack])


def test_weights_that_are_replaced_meanwhile_are_not_taken_for_those_that_were_named(checkpoint, monkeypatch):
    weights = RunFolder(checkpoint).load_model("best").state_dict()
    of = measure._flags

    def replaced_after_the_first(job, part, images):
        if part.start:
            RunFolder(checkpoint).save_weights("best", {name: value + 1 for name, value in weights.items()})
            measure._opened.cache_clear()  # as in another process
        return of(job, part, images)

    monkeypatch.setattr(measure, "_flags", replaced_after_the_first)
    with pytest.raises(DataError, match="the best weights of .* were replaced while they were measured"):
        report(Arguments(checkpoint, attacks=("fgsm",), batch=7))


@pytest.mark.slow
def test_several_processes_find_what_one_finds(checkpoint, tmp_path):
    alone = shutil.copytree(checkpoint, tmp_path / "alone")
    asked = {"attacks": ("pgd10", "square"), "epsilon": STRONG, "queries": 20, "batch": 7}
    texts = [report(Arguments(run, processes=count, **asked)) for run, count in ((alone, 1), (checkpoint, 3))]
    assert len({tuple(text.splitlines()[1:]) for text in texts}) == 1
    for attack, flags in flags_of(checkpoint).items():
        np.testing.assert_array_equal(flags, flags_of(alone)[attack])


def test_the_ensemble_is_the_worst_of_clean_and_its_attacks_on_each_image(checkpoint):
    report(Arguments(checkpoint, attacks=("ensemble", "pgd20"), epsilon=STRONG))
    flags = flags_of(checkpoint)
    assert flags.keys() == {"clean", *ENSEMBLE, "ensemble"}
    by_image = [all(flags[name][image] for name in ("clean", *ENSEMBLE)) for image in range(24)]
    assert flags["ensemble"].tolist() == by_image
    (result,) = (result for result in load_results(checkpoint) if result.attack == "ensemble")
    assert result.accuracy == sum(by_image) / 24
    assert result.definition == "right under each of clean, fgsm, pgd20, pgd100, cw"


def test_ensembles_of_other_strength_are_other_measurements(checkpoint):
    for how in ({}, {"restarts": 2}, {"random_start": False}):
        report(Arguments(checkpoint, attacks=("ensemble",), images=2, **how))
    names = "right under each of clean, fgsm, pgd20, pgd100, cw"
    found = [result.definition for result in load_results(checkpoint) if result.attack == "ensemble"]
    assert found == [names, f"{names}, 2 random starts", f"{names}, no random start"]


def test_an_image_is_broken_if_any_start_breaks_it(checkpoint, tiny_data):
    data, model = load_images(str(tiny_data), "test"), RunFolder(checkpoint).load_model("best")
    images = to_floats(data.pixels)

    def is_right(adversarial):
        with torch.no_grad():
            return model(adversarial).argmax(1) == data.labels

    alone = []
    for seed in (5, (5, 1), (5, 2)):
        start = torch.from_numpy(RandomStarts(seed, image_values=3 * 16 * 16).next(tuple(images.shape), STRONG))
        found = pgd(
            model, images, data.labels, epsilon=STRONG, step_size=STRONG / 10, steps=30, start=start, loss=margin
        )
        alone.append(is_right(found))
    attack = attack_named("cw", epsilon=STRONG, seed=5, image_shape=(16, 16), budget=Budget(restarts=3))
    assert torch.equal(is_right(attack(model, images, data.labels)), torch.stack(alone).all(dim=0))


def test_without_random_start_the_seed_does_not_matter(checkpoint):
    asked = {"attacks": ("pgd20",), "epsilon": STRONG, "random_start": False}
    texts = [report(Arguments(checkpoint, seed=seed, **asked)).splitlines()[-1] for seed in (0, 1)]
    assert texts[0] == texts[1]
    assert texts[0].endswith("cross-entropy, 20 steps of epsilon/10, no random start")


def test_flags_are_known_in_any_order_and_only_when_whole(tmp_path):
    path = tmp_path / "flags.npz"
    FlagsFile(path, 10).write(slice(4, 8), np.array([True, False, True, True]), 1.5)
    again = FlagsFile(path, 10)
    assert list(again.unknown(4)) == [slice(0, 4), slice(8, 10)]
    assert again.seconds == 1.5
    with pytest.raises(DataError, match=r"flags.npz knows 4 of 10 images. Run the same command again"):
        read_flags(path, 10)
    again.write(slice(0, 4), np.zeros(4, bool), 0.5)
    again.write(slice(8, 10), np.ones(2, bool), 0.5)
    assert read_flags(path, 10).tolist() == [False] * 4 + [True, False, True, True, True, True]


WRITER = """
import sys
from pathlib import Path
import numpy as np
from training.evaluation.flags import FlagsFile
flags = FlagsFile(Path(sys.argv[1]), 4)
for _ in range(200):
    flags.write(slice(0, 4), np.ones(4, bool), 0.0)
"""


def test_two_processes_that_measure_the_same_disturb_neither(tmp_path):
    path = tmp_path / "flags.npz"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert read_flags(path, 4).all()
    assert list(tmp_path.iterdir()) == [path], "nothing is left behind"


def test_what_another_process_found_meanwhile_is_kept(tmp_path):
    path = tmp_path / "flags.npz"
    quick, slow = FlagsFile(path, 4), FlagsFile(path, 4)
    quick.write(slice(0, 4), np.array([True, False, True, False]), 1.0)
    slow.write(slice(0, 2), np.array([True, False]), 1.0)
    assert read_flags(path, 4).tolist() == [True, False, True, False]
    assert list(slow.unknown(2)) == []


def test_a_killed_process_is_said_and_the_command_goes_on(checkpoint, monkeypatch):
    class Killed:
        """An executor whose process the system has killed."""

        def __init__(self, *arguments, **options):
            pass

        def submit(self, *call):
            future = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

        def shutdown(self, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr("training.evaluation.measure.ProcessPoolExecutor", Killed)
    with pytest.raises(DataError, match="was killed, perhaps for its memory; the same command goes on, with fewer"):
        report(Arguments(checkpoint, attacks=("fgsm",), batch=7, processes=2))


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip"])
def test_damaged_flags_are_refused_by_name(tmp_path, content):
    path = tmp_path / "flags.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"flags.npz is damaged: .*Delete it to measure anew"):
        FlagsFile(path, 10)
    FlagsFile(tmp_path / "other.npz", 3).write(slice(0, 3), np.ones(3, bool), 0.0)
    with pytest.raises(DataError, match=r"other.npz does not hold flags of 10 images"):
        FlagsFile(tmp_path / "other.npz", 10)


def test_a_feature_passed_on_is_another_network_under_attack(checkpoint, tiny_data):
    whole = report(Arguments(checkpoint, attacks=("fgsm",), epsilon=STRONG))
    text = report(Arguments(checkpoint, attacks=("fgsm",), epsilon=STRONG, feature="nonrobust"))
    assert "recipe fast, f- passed on" in text.splitlines()[0]
    assert "passed on" not in whole
    answered = {(result.answered_by, result.attack) for result in load_results(checkpoint)}
    assert answered == {(by, attack) for by in ("network", "f- passed on") for attack in ("clean", "fgsm")}
    data = load_images(str(tiny_data), "test")
    model = passing_on(RunFolder(checkpoint).load_model("best"), "nonrobust")
    attacked = fgsm(model, to_floats(data.pixels), data.labels, epsilon=STRONG)
    (result,) = (
        result for result in load_results(checkpoint) if (result.answered_by, result.attack) == ("f- passed on", "fgsm")
    )
    assert result.accuracy == (model(attacked).argmax(1) == data.labels).double().mean().item()
