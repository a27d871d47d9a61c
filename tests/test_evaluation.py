"""What the evaluation command reports, and what it refuses."""

import shutil
from dataclasses import replace
from datetime import date
from importlib.metadata import version

import pytest
import torch
from scipy.stats import norm
from torch import nn

from training.accuracy import correct_under, frozen
from training.checkpoint import CheckpointError, RunFolder
from training.data import load_images, to_floats
from training.device import pick_device
from training.evaluation import measure
from training.evaluation.command import Arguments, report
from training.evaluation.results import load_results, save_result
from training.evaluation.statistics import wilson
from training.evaluation.suite import attack_named


@pytest.fixture
def checkpoint(checkpoint, tmp_path):
    """A copy, because evaluations are kept in the run folder."""
    return shutil.copytree(checkpoint, tmp_path / "run")


def rows(text):
    """attack -> accuracy, low, high in percent."""
    table = [line.replace("%", "").replace(" - ", " ").split() for line in text.splitlines()[4:]]
    return {name: tuple(map(float, values[:3])) for name, *values in table}


def test_the_report_names_everything_and_equals_an_evaluation_by_hand(checkpoint, tiny_data):
    text = report(Arguments(checkpoint, attacks=("fgsm", "pgd20", "cw"), weights="last"))
    assert "resnet18 with FSR, last weights, recipe fast" in text
    assert "colours, split test, n = 24, L-infinity epsilon 8/255, seed 0, float32" in text
    data = load_images(str(tiny_data), "test")
    model = RunFolder(checkpoint).load_model("last")
    images = to_floats(data.pixels).requires_grad_()
    logits = model(images)
    torch.nn.functional.cross_entropy(logits, data.labels).backward()
    attacked = model((images + 8 / 255 * images.grad.sign()).clamp(0, 1))
    for name, expected in (("clean", logits), ("fgsm", attacked)):
        share = (expected.argmax(dim=1) == data.labels).double().mean().item()
        assert rows(text)[name][0] == pytest.approx(100 * share, abs=0.01)
    assert rows(text).keys() == {"clean", "fgsm", "pgd20", "cw"}


def test_the_same_seed_gives_the_same_report(checkpoint):
    arguments = Arguments(checkpoint, attacks=("pgd10",), images=12)
    assert report(arguments) == report(replace(arguments, again=True))
    assert "n = 12," in report(arguments)


def test_a_row_does_not_depend_on_the_rows_above_it(checkpoint):
    both, alone = (report(Arguments(checkpoint, attacks=names, again=True)) for names in (("pgd10", "cw"), ("cw",)))
    assert both.splitlines()[-1] == alone.splitlines()[-1]


def test_what_was_measured_before_says_when_and_is_measured_anew_if_asked(checkpoint):
    arguments = Arguments(checkpoint, attacks=("fgsm",), images=12)
    first = report(arguments)
    save_result(checkpoint, replace(load_results(checkpoint)[1], measured="2020-01-01", seconds=99.0))
    clean, fgsm = report(arguments).splitlines()[-2:]
    assert clean.endswith(f"images as they are; measured {date.today()}")
    assert fgsm.endswith("one step of epsilon, no random start; measured 2020-01-01")
    assert report(replace(arguments, again=True)) == first
    assert [(one.attack, one.measured, one.seconds < 99) for one in load_results(checkpoint)] == [
        ("clean", str(date.today()), True),
        ("fgsm", str(date.today()), True),
    ]


def test_an_ensemble_is_made_anew_with_its_parts(checkpoint):
    arguments = Arguments(checkpoint, attacks=("ensemble",), images=2)
    report(arguments)
    for result in load_results(checkpoint):
        save_result(checkpoint, replace(result, measured="2020-01-01"))
    assert report(arguments).count("; measured 2020-01-01") == 6
    assert "; measured" not in report(replace(arguments, again=True))


def test_a_batch_is_as_many_images_as_are_asked_for(checkpoint, monkeypatch):
    seen = []

    def attack(model, images, labels):
        seen.append(len(images))
        return images

    monkeypatch.setattr(measure, "attack_named", lambda *_, **__: attack)
    report(Arguments(checkpoint, split="train", attacks=("fgsm",), batch=400))
    assert seen == [400, 200]


def test_wilson_interval_is_the_textbook_formula():
    accuracy, low, high = wilson(39, 100)
    z = norm.ppf(0.975)
    centre, spread = (39 + z**2 / 2) / (100 + z**2), z / (100 + z**2) * (39 * 61 / 100 + z**2 / 4) ** 0.5
    assert (accuracy, low, high) == pytest.approx((0.39, centre - spread, centre + spread))


def test_accuracy_is_measured_in_eval_mode_only(tiny_data):
    model = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(3, 3))
    attack = attack_named("fgsm", epsilon=0.1, seed=0, image_shape=(16, 16))
    data = load_images(str(tiny_data), "test")
    with pytest.raises(ValueError, match="the model is in train mode; expected eval mode"):
        correct_under(attack, model.train(), data, pick_device())
    assert correct_under(attack, model.eval(), data, pick_device()).shape == (24,)
    assert model[2].weight.requires_grad


def test_a_frozen_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)).train()
    with frozen(model):
        assert not model.training
        assert not model[0].weight.requires_grad
    assert model.training
    assert [layer.weight.requires_grad for layer in model] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "images is 0; expected 1 to 24"),
        ({"images": 25}, "images is 25; expected 1 to 24"),
        ({"epsilon": 8}, "epsilon is 8; expected a bound above 0 and at most 1"),
        ({"queries": 0}, "queries is 0; expected 1 or more"),
        ({"processes": 0}, "processes is 0; expected 1 or more"),
        ({"split": "validation"}, "has no split 'validation'; it has train, test"),
    ],
)
def test_bad_arguments_are_refused_by_name(checkpoint, arguments, message):
    with pytest.raises(ValueError, match=message):
        report(Arguments(checkpoint, **arguments))


def test_data_of_other_classes_is_refused(checkpoint, tmp_path, tiny_data):
    for name in ("red", "blue"):
        folder = tmp_path / "test" / name
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes((tiny_data / "test" / name / "0.png").read_bytes())
    with pytest.raises(ValueError, match="the data has the 2 classes blue, red; .* was trained on the 3 classes"):
        report(Arguments(checkpoint, data=str(tmp_path)))


def test_what_was_measured_is_kept_with_all_that_makes_it_comparable(checkpoint):
    report(Arguments(checkpoint, attacks=("fgsm", "square"), queries=20, images=12))
    report(Arguments(checkpoint, attacks=("fgsm",), images=12))
    clean, square, fgsm = sorted(load_results(checkpoint), key=lambda result: "clean square fgsm".index(result.attack))
    assert (clean.n, clean.epsilon, fgsm.epsilon, fgsm.seed, fgsm.weights) == (12, 0.0, 8 / 255, 0, "best")
    assert square.definition == "Square, 20 queries"
    assert clean.low <= clean.accuracy <= clean.high
    assert clean.runtime == f"torch {torch.__version__}"
    assert clean.versions == {"fsr-serve": version("fsr-serve")}
    (checkpoint / "evaluation.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"evaluation.json is damaged: (.|\n)*Delete it to measure anew"):
        load_results(checkpoint)
