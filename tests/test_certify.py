"""python -m training.evaluation certify: stopped, gone on with, kept in the run folder."""

import shutil

import pytest

from training.checkpoint import RunFolder
from training.data import load_images
from training.evaluation import certify_command
from training.evaluation.certify_command import Arguments, main, report
from training.evaluation.results import load_flags, load_results
from training.evaluation.smoothing import ABSTAINED, Certificate

FEW = {"images": 6, "samples": 300}


@pytest.fixture
def run(checkpoint, tmp_path):
    """A copy, because evaluations are kept in the run folder."""
    return shutil.copytree(checkpoint, tmp_path / "run")


def certified(run):
    """By radius, what evaluation.json says and which images are certified."""
    return {one.attack: (one.accuracy, load_flags(run, one).tolist()) for one in load_results(run)}


def test_an_image_counts_up_to_the_radius_of_its_certificate_where_its_label_is_the_answer(run, monkeypatch):
    data = load_images(RunFolder(run).config().data, "test", (16, 16)).spread(6)
    answers = iter(
        [
            Certificate(int(data.labels[0]), 0.6),
            Certificate(int(data.labels[1]), 0.25),
            Certificate(int(data.labels[2] + 1) % 3, 5.0),
            Certificate(ABSTAINED, 0.0),
            Certificate(int(data.labels[4]), 0.1),
            Certificate(int(data.labels[5]), 0.0),
        ]
    )
    monkeypatch.setattr(certify_command, "certify", lambda *arguments: next(answers))
    lines = list(report(Arguments(run, radii=(0.5, 0.0, 0.25), **FEW)))
    assert certified(run) == {
        "certified_l2_0": (4 / 6, [True, True, False, False, True, True]),
        "certified_l2_0.25": (2 / 6, [True, True, False, False, False, False]),
        "certified_l2_0.5": (1 / 6, [True, False, False, False, False, False]),
    }
    assert [line.split()[1:4] for line in lines[-3:]] == [
        ["0", "|", "66.67"],
        ["0.25", "|", "33.33"],
        ["0.5", "|", "16.67"],
    ]


def test_it_goes_on_where_it_was_stopped_with_the_same_figures(run, checkpoint, tmp_path, monkeypatch):
    whole = shutil.copytree(checkpoint, tmp_path / "whole")
    list(report(Arguments(whole, **FEW)))
    certify, count = certify_command.certify, iter(range(4))

    def stopped(*arguments):
        if next(count) == 3:
            raise KeyboardInterrupt
        return certify(*arguments)

    monkeypatch.setattr(certify_command, "certify", stopped)
    with pytest.raises(SystemExit, match="the same command goes on from here"):
        main([str(run), "--images", "6", "--samples", "300"])
    count = iter(range(3))
    list(report(Arguments(run, **FEW)))
    assert certified(run) == certified(whole)
    list(report(Arguments(run, **FEW)))  # kept: certifies nothing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma is 0.0; expected a deviation above 0"),
        ({"alpha": 1.0}, "alpha is 1.0; expected a probability"),
        ({"radii": (0.5, -0.1)}, r"radii are \(0.5, -0.1\); expected one or more, each 0 or more"),
        ({"samples": 0}, "samples is 0; expected 1 or more"),
    ],
)
def test_values_out_of_range_are_refused(run, options, message):
    with pytest.raises(certify_command.DataError, match=message):
        list(report(Arguments(run, **options)))
