"""What the commands features and maps write, and what they refuse."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from training.checkpoint import RunFolder
from training.data import load_images, to_floats
from training.evaluation import features_command, maps_command
from training.evaluation.maps import grad_cam, maps_of
from training.evaluation.mask_statistics import BINS
from training.evaluation.statistics import wilson
from training.models.separated import SYMBOLS, recorded


@pytest.fixture(scope="module")
def plain(checkpoint, tmp_path_factory):
    """A run of a network without FSR, its weights random."""
    config = RunFolder(checkpoint).config()
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "plain")
    torch.manual_seed(0)
    config = replace(config, model=replace(config.model, fsr=False))
    folder.create(config)
    folder.save_weights("best", config.model.build().state_dict())
    return folder.path


@pytest.fixture(scope="module")
def features(checkpoint, tmp_path_factory):
    """The folder left by the features command."""
    out = tmp_path_factory.mktemp("features") / "out"
    features_command.main([str(checkpoint), "--out", str(out), "--images", "12", "--training-images", "100"])
    return out


@pytest.fixture(scope="module")
def maps(checkpoint, plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("maps") / "out"
    maps_command.main([str(checkpoint), "--out", str(out), "--images", "2", "--natural", str(plain)])
    return out


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_features_are_measured_as_by_hand(features, checkpoint, tiny_data):
    model = RunFolder(checkpoint).load_model("best")
    tests = load_images(str(tiny_data), "test").spread(12)
    training = load_images(str(tiny_data), "train").spread(100)
    pooled = []
    for data in (tests, training):
        with torch.no_grad(), recorded(model) as passes:
            model(to_floats(data.pixels))
        pooled.append({name: passes[0].named(name).mean(dim=(2, 3)).numpy().astype(float) for name in SYMBOLS})
    rows = {
        (row["feature"], row["among"], row["images"], int(row["k"])): row for row in table(features / "neighbours.csv")
    }
    assert len(rows) == 7 * 2 * 2  # three features among two kinds and f~ among its own, twice, for two k
    for feature, among in (("robust", "same"), ("nonrobust", "output"), ("output", "same")):
        neighbours = pooled[1]["output" if among == "output" else feature]
        cosines = pooled[0][feature] @ neighbours.T / np.linalg.norm(neighbours, axis=1)
        cosines /= np.linalg.norm(pooled[0][feature], axis=1, keepdims=True)
        correct = 0
        for own, label in zip(cosines, tests.labels.tolist(), strict=True):
            nearest = np.argsort(-own)[:20]
            weights = np.exp(own[nearest] / 0.07)
            correct += int(np.bincount(training.labels[nearest], weights, 3).argmax() == label)
        row = rows[feature, among, "clean", 20]
        assert (float(row["accuracy"]), float(row["low"])) == pytest.approx(wilson(correct, 12)[:2])
        assert row["n"] == "12"


def test_the_features_report_names_everything(features):
    text = (features / "features.md").read_text()
    for words in (
        "resnet18 with FSR (mask gumbel, tau 0.1), best weights (SHA-256 ",
        "colours, split test, n = 12 (SHA-256 ",
        "neighbours: colours, split train, n = 100",
        "pgd20 (cross-entropy, 20 steps of epsilon/10, random start), L-infinity epsilon 8/255, seed 0, on the whole",
        "gamma 0.07",
        "| recalibrated (f~-) |",
        "| attacked, 20-NN | paper, 5-NN | paper, 20-NN |",
        "| 66.34 | 65.64 |",
        "| units with abs(r) > 1 (saturated) |",
    ):
        assert words in text
    assert Image.open(features / "features.png").size[0] > 1000
    shares = [float(row["share"]) for row in table(features / "mask_histogram.csv")]
    assert len(shares) == 2 * BINS
    assert sum(shares[:BINS]) == pytest.approx(sum(shares[BINS:])) == pytest.approx(1)
    assert len(table(features / "mask_channels.csv")) == 2 * 32


def test_maps_are_written_as_they_are_computed(maps, checkpoint, plain, tiny_data):
    data = load_images(str(tiny_data), "test").spread(2)
    images = to_floats(data.pixels)
    computed = maps_of(RunFolder(checkpoint).load_model("best"), images, data.labels)
    natural = grad_cam(RunFolder(plain).load_model("best"), images, data.labels)
    expected = {"grad_cam": computed.grad_cam, "natural_grad_cam": natural, **computed.evidence}
    rows = table(maps / "maps.csv")
    assert len(rows) == 2 * 2 * 6 * 2 * 2  # images, conditions, maps, rows and columns
    for row in rows:
        place = tuple(int(row[name]) for name in ("image", "row", "column"))
        if row["condition"] == "clean":
            assert float(row["value"]) == pytest.approx(float(expected[row["map"]][place]), rel=1e-5, abs=1e-4)
        assert row["label"] == data.classes[data.labels[place[0]]]
    assert Image.open(maps / "maps.png").size[0] > 1000


COMMANDS = pytest.mark.parametrize("command", [features_command, maps_command], ids=["features", "maps"])


@COMMANDS
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--images", "0"], "images is 0; expected 1 to "),
        (["--images", "25"], "images is 25; expected 1 to "),
        (["--epsilon", "8"], "epsilon is 8.0; expected a bound above 0 and at most 1 "),
        (["--epsilon", "0"], "epsilon is 0.0; expected a bound above 0 and at most 1 "),
        (["--epsilon", "nan"], "epsilon is nan; expected a bound above 0 and at most 1 "),
        (["--split", "validation"], "has no split 'validation'; it has train, test"),
    ],
)
def test_bad_arguments_are_refused_by_name_and_leave_nothing(command, given, message, checkpoint, tmp_path):
    with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
        command.main([str(checkpoint), "--out", str(tmp_path / "out"), *given])
    assert list(tmp_path.iterdir()) == []


@COMMANDS
def test_a_network_without_fsr_is_refused(command, plain, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*plain holds resnet18 without FSR; expected a network whose FSR"):
        command.main([str(plain), "--out", str(tmp_path / "out")])


@COMMANDS
def test_what_is_no_run_is_refused(command, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*config.json cannot be read .*expected a run folder"):
        command.main([str(tmp_path), "--out", str(tmp_path / "out")])


@COMMANDS
def test_a_folder_with_something_in_it_is_refused(command, checkpoint, tmp_path):
    (tmp_path / "notes.txt").touch()
    for out in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(SystemExit, match=rf"^error: {out} is there already; choose another --out"):
            command.main([str(checkpoint), "--out", str(out)])


@COMMANDS
def test_data_of_other_classes_is_refused(command, checkpoint, tiny_data, tmp_path):
    for name in ("red", "blue"):
        folder = tmp_path / "test" / name
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes((tiny_data / "test" / name / "0.png").read_bytes())
    with pytest.raises(SystemExit, match="^error: the data has the 2 classes blue, red; .* trained on the 3 classes"):
        command.main([str(checkpoint), "--data", str(tmp_path), "--out", str(tmp_path / "out")])


def test_too_few_neighbours_are_refused(checkpoint, tmp_path):
    with pytest.raises(SystemExit, match="^error: training_images is 19; expected 20 to 600"):
        features_command.main([str(checkpoint), "--out", str(tmp_path / "out"), "--training-images", "19"])


def test_a_natural_network_of_other_classes_is_refused(checkpoint, plain, tmp_path):
    config = RunFolder(plain).config()
    RunFolder(tmp_path / "other").create(replace(config, classes=("a", "b", "c")))
    with pytest.raises(SystemExit, match="^error: .*other was trained on a, b, c at 16x16 pixels, .*expected the same"):
        maps_command.main([str(checkpoint), "--natural", str(tmp_path / "other"), "--out", str(tmp_path / "out")])
