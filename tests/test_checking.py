"""python -m export.checks: calibrated on some images, measured on others, and written whole or not at all."""

import shutil

import numpy as np
import pytest
from conftest import CLASSES
from PIL import Image

from export import changing, checking, measuring
from export.check_figures import Measured, Setting, figures_of
from export.checking import FEWEST, Arguments, calibrate, halves, least_rates, line
from export.errors import VerificationError
from export.searches import Search
from export.verification import Arguments as Verify
from export.verification import verify
from fsr_serve.artifact import CHECKS_FILE, read_version
from fsr_serve.checks.calibration import CHECKS, Calibration
from fsr_serve.errors import ArtifactError
from training.source import DataError


@pytest.fixture
def version(models, tmp_path):
    return shutil.copytree(models / "colours" / "1", tmp_path / "colours" / "1")


def run(version, tiny_data, **options):
    small = {"split": "train", "images": 240, "attacked": 12, "searched": 6, "queries": 30, "threads": 1}
    return calibrate(Arguments(version, str(tiny_data), **small | {"epsilon": 0.3} | options))


def test_the_figures_stand_in_the_manifest_of_a_version_that_is_still_whole(version, tiny_data):
    before = read_version(version)
    figures = run(version, tiny_data, data_name="colours")
    after = read_version(version)
    assert after.manifest.checks == figures
    assert after.manifest.files.keys() == {*before.manifest.files, CHECKS_FILE}
    assert after.manifest.accuracies == before.manifest.accuracies
    calibration = Calibration.read(version / CHECKS_FILE)
    assert (calibration.n, calibration.checks) == (120, tuple(CHECKS))
    clean = [figure for figure in figures if figure.attack == "clean"]
    assert [(figure.check, figure.false_alarm_rate) for figure in clean] == [
        (check, rate) for check in CHECKS for rate in (0.01, 0.05)
    ]
    for figure in clean:
        assert (figure.n, figure.calibrated_on, figure.data) == (120, 120, "colours, split train")
        assert figure.low <= figure.suspicious <= figure.high
        assert figure.suspicious <= figure.false_alarm_rate + 5 * (2 * figure.false_alarm_rate / 120) ** 0.5
        assert "false alarms" in line(figure)
    assert list(version.parent.iterdir()) == [version], "nothing is left behind"


@pytest.mark.parametrize("classes", [2, 10])
def test_images_of_classes_in_turns_calibrate_as_well(classes):
    half, rest = halves(2001, seed=3)
    assert sorted([*half, *rest]) == list(range(2001))
    assert len(half) == 1001
    shares = np.bincount(half % classes) / len(half)
    assert abs(shares - 1 / classes).max() < 5 * (1 / classes / len(half)) ** 0.5
    assert (halves(2001, seed=4)[0] != half).any()


def test_images_that_look_alike_to_the_history_do_not_calibrate(version, tmp_path):
    """Other pixels, of the same means over 8x8 parts."""
    random = np.random.default_rng(0)
    base = np.kron([[0, 100], [150, 255]], np.ones((8, 8)))[:, :, None].repeat(3, 2)
    base += random.integers(-50, 51, base.shape)
    for index in range(210):
        parts = base.reshape(8, 2, 8, 2, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 4)
        shuffled = random.permuted(parts, axis=1).reshape(8, 8, 3, 2, 2).transpose(0, 3, 1, 4, 2).reshape(16, 16, 3)
        folder = tmp_path / "data" / "test" / CLASSES[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shuffled.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    before = read_version(version)
    with pytest.raises(DataError, match="look as another one at 8x8 pixels; expected pictures that differ"):
        run(version, tmp_path / "data", split="test", images=None)
    assert read_version(version) == before


def test_what_an_attack_turns_is_looked_for_and_what_is_missed_is_counted(version, tiny_data):
    figures = run(version, tiny_data, attacks=("pgd20",))
    for figure in (figure for figure in figures if figure.attack == "pgd20"):
        assert figure.attacked == 12
        assert 1 <= figure.n <= 12, "turned from right to wrong"
        missed = figure.n * (1 - figure.suspicious) / 12
        assert figure.accepted_and_wrong >= missed - 1e-9, "and those that were wrong anyway"
        assert 0 <= figure.auroc <= 1
        assert f"AUROC {figure.auroc:.3f}" in line(figure)
    assert {figure.check for figure in figures if figure.attack == "pgd20"} == {"confidence", "separation", "probe"}


def test_of_few_images_all_are_attacked(version, tiny_data):
    figures = run(version, tiny_data, images=200, attacks=("fgsm",), attacked=500, searched=500, queries=3)
    assert {figure.attacked for figure in figures if figure.attack == "fgsm"} == {100}
    assert 50 < figures[-1].attacked <= 100, "those that are right"


def test_an_attack_by_queries_is_noticed_by_the_history(version, tiny_data):
    *_, figure, disguised = run(version, tiny_data, attacks=(), epsilon=8 / 255)
    assert (figure.check, figure.attack, figure.definition) == ("history", "square", "Square, 30 queries")
    assert (disguised.check, disguised.attack, disguised.n) == ("history", "disguised_square", figure.n)
    assert figure.suspicious > 0.9
    assert figure.queries <= 30
    assert figure.accepted_and_wrong <= 1 - figure.suspicious


def test_calibrated_again_it_is_replaced(version, tiny_data):
    run(version, tiny_data, attacks=())
    first = read_version(version)
    figures = run(version, tiny_data, attacks=(), images=300)
    second = read_version(version)
    assert second.manifest.checks == figures
    assert second.manifest.files[CHECKS_FILE] != first.manifest.files[CHECKS_FILE]


def test_interrupted_it_is_finished_by_the_next_command(version, tiny_data, monkeypatch):
    run(version, tiny_data, attacks=())

    put_in_place = changing.put_in_place

    def interrupt(path, name):
        if name == CHECKS_FILE:
            raise KeyboardInterrupt
        put_in_place(path, name)

    monkeypatch.setattr(changing, "put_in_place", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(version, tiny_data, attacks=(), images=300)
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match=r"checks\.npz has SHA-256"):
        read_version(version)
    verify(Verify(version, str(tiny_data), attacks=()))
    assert Calibration.read(version / CHECKS_FILE).n == 150
    assert {figure.calibrated_on for figure in read_version(version).manifest.checks} == {150}


def test_accuracies_known_before_are_not_measured_again(version, tiny_data, monkeypatch):
    asked = Verify(version, str(tiny_data), attacks=("fgsm",), threads=1)
    before = verify(asked)
    run(version, tiny_data, attacks=())
    monkeypatch.setattr(measuring.FlagsFile, "write", None)
    assert verify(asked) == before


def test_a_search_is_noticed_at_each_rate_by_its_first_query_at_or_under_it():
    signals = {"similar": np.arange(199, dtype=np.float32)}
    searches = [
        Search([0.9, 0.05, 0.5, 0.02, 0.01], is_wrong=False),
        Search([0.9, 0.4, 0.3, 0.05], is_wrong=True),
        Search([0.2, 0.9], is_wrong=True),
    ]
    setting = Setting(None, 8 / 255, queries=5, seed=0, device="cpu", threads=1, runtime="onnxruntime 1.0")
    figures = figures_of(
        Calibration(signals, 0.1), Measured(signals, [], {"square": searches}), setting, "data", "0" * 64
    )
    at = {figure.false_alarm_rate: figure for figure in figures if figure.attack == "square"}
    assert (at[0.01].suspicious, at[0.01].queries, at[0.01].accepted_and_wrong) == (1 / 3, 5, 2 / 3)
    assert (at[0.05].suspicious, at[0.05].queries, at[0.05].accepted_and_wrong) == (2 / 3, 3, 1 / 3)


def calibration_of(images):
    needed = {signal for signals in CHECKS.values() for signal in signals}
    return Calibration({signal: np.zeros(images, np.float32) for signal in needed}, 0.1)


@pytest.mark.parametrize("checks", [1, 4])
@pytest.mark.parametrize("images", [99, 100, 120, 2500])
def test_the_least_rate_is_that_at_which_the_least_p_value_is_an_alarm(images, checks):
    calibration = calibration_of(images)
    rate = calibration.least_rate(checks)
    assert calibration.least_p_value <= rate / checks
    assert calibration.least_p_value > (rate - 0.0001) / checks


def test_the_fewest_images_allow_one_check_at_one_percent():
    assert calibration_of(FEWEST // 2).least_rate(1) <= 0.01


def test_the_command_says_what_the_images_allow(version, tiny_data, monkeypatch, capsys):
    command = ["export.checks", str(version), "--data", str(tiny_data), "--split", "train", "--images", "240"]
    monkeypatch.setattr("sys.argv", [*command, "--searched", "1", "--queries", "2", "--threads", "1", "--attacks"])
    checking.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        last
        == least_rates(Calibration.read(version / CHECKS_FILE))
        == (
            "calibrated on 120 images, which is enough for FSR_FALSE_ALARM_RATE=0.0331 or more with all 4 checks, "
            "0.0083 or more with one"
        )
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"images": 199}, DataError, "there are 199 images; expected at least 200"),
        ({"attacked": 0}, VerificationError, "attacked is 0; expected 1 or more"),
        ({"searched": 0}, VerificationError, "searched is 0; expected 1 or more"),
        ({"epsilon": 0.0}, VerificationError, "epsilon is 0.0"),
        ({"queries": 0}, VerificationError, "queries is 0; expected 1 or more"),
        ({"seed": -1}, VerificationError, "seed is -1; expected 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_changes(version, tiny_data, options, error, message):
    before = read_version(version)
    with pytest.raises(error, match=message):
        run(version, tiny_data, **options)
    assert read_version(version) == before


def test_a_signed_version_is_refused(version, tiny_data):
    (version / "model.sig").write_text("signed")
    with pytest.raises(VerificationError, match="is signed"):
        run(version, tiny_data)


def test_figures_do_not_depend_on_how_often_they_are_measured(version, tiny_data):
    first = run(version, tiny_data, attacks=("pgd20",))
    array = Calibration.read(version / CHECKS_FILE).signals["probe"]
    assert run(version, tiny_data, attacks=("pgd20",)) == first
    np.testing.assert_array_equal(Calibration.read(version / CHECKS_FILE).signals["probe"], array)
