"""Corruptions and rotations of images, and the command that measures accuracy under them."""

import colorsys
import io
import shutil
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import affine_transform, convolve1d
from torch import nn

from export import command as export_command
from training.checkpoint import RunFolder
from training.data import ImageData, load_images, to_floats
from training.device import pick_device
from training.evaluation import corruptions_command, measure
from training.evaluation.changes import CHANGES, USUAL_KINDS, correct_under_change, names_of
from training.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from training.evaluation.corruptions_command import Arguments, report
from training.evaluation.results import load_flags, load_results
from training.evaluation.rotations import Rotation, grid, randomly_rotated, rotated


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def run(checkpoint, tmp_path):
    """A copy, because evaluations are kept in the run folder."""
    return shutil.copytree(checkpoint, tmp_path / "run")


def corrupted(kind, pixels, severity):
    return CORRUPTIONS[kind](pixels, severity, np.random.default_rng(1)).astype(float)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_keep_shape_and_type_and_grow_with_severity(kind):
    waves = (np.sin(np.mgrid[:32, :32].sum(axis=0) / 3)[..., None] * [60, 90, 110] + 120).astype(np.uint8)
    found = [CORRUPTIONS[kind](waves, severity, np.random.default_rng(1)) for severity in SEVERITIES]
    assert {(one.shape, one.dtype) for one in found} == {((32, 32, 3), np.dtype(np.uint8))}
    distances = [np.abs(one.astype(float) - waves).mean() for one in found]
    assert distances[0] > 0
    assert distances[-1] > distances[0]


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.04), (3, 0.08), (5, 0.10)])
def test_gaussian_noise_has_its_deviation(severity, deviation):
    noise = corrupted("gaussian_noise", np.full((200, 200, 3), 128, np.uint8), severity) - 128
    assert noise.std() / 255 == pytest.approx(deviation, rel=0.02)
    assert noise.mean() == pytest.approx(-0.5, abs=0.2)  # truncated


@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (2, 250), (5, 50)])
def test_shot_noise_has_the_variance_of_its_photons(severity, photons):
    share = 100 / 255
    noise = corrupted("shot_noise", np.full((200, 200, 3), 100, np.uint8), severity) / 255
    assert noise.var() == pytest.approx(share / photons, rel=0.05)


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.4), (4, 0.8), (5, 1.0)])
def test_gaussian_blur_is_a_convolution_with_the_sampled_gaussian(pixels, severity, sigma):
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    expected = pixels.astype(float)
    for axis in (0, 1):
        expected = convolve1d(expected, kernel, axis=axis, mode="nearest")
    assert np.abs(corrupted("gaussian_blur", pixels, severity) - np.floor(expected)).max() <= 1


@pytest.mark.parametrize(("severity", "added"), [(1, 0.05), (5, 0.3)])
def test_brightness_raises_the_value_of_hsv(pixels, severity, added):
    pixels[0, 0] = 0  # black has no hue
    found = corrupted("brightness", pixels, severity)
    for place in ((0, 0), (3, 7), (20, 30), (31, 31)):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[place] / 255))
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))) * 255
        assert np.abs(found[place] - np.floor(expected)).max() <= 1


def test_contrast_shrinks_the_distances_from_the_mean(pixels):
    found, mean = corrupted("contrast", pixels, 3), pixels.mean(axis=(0, 1))
    assert np.abs(found - np.floor(mean + 0.4 * (pixels - mean))).max() <= 1


def test_pixelate_makes_boxes():
    halves = np.zeros((20, 20, 3), np.uint8)
    halves[:, 10:] = 200
    found = corrupted("pixelate", halves, 5)  # 13 boxes over 20 pixels
    assert len(np.unique(found[0, :, 0])) == 3
    np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))


def test_jpeg_has_the_quality_of_the_severity(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=58)
    np.testing.assert_array_equal(corrupted("jpeg_compression", pixels, 3), np.asarray(Image.open(file)))


@pytest.mark.parametrize("degrees", [-30, -11.5, 20])
def test_a_rotation_is_the_affine_map(degrees):
    y, x = np.mgrid[:32, :32]
    smooth = np.stack([128 + 100 * np.sin(x / 6 + y / 9 + shift) for shift in range(3)], axis=-1).astype(np.uint8)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.array([[cosine, sine], [-sine, cosine]])  # (row, column) of the result -> of the source
    centre, shift = np.array([15.5, 15.5]), np.array([-2.0, 3.0])  # up and to the right
    expected = np.stack(
        [
            affine_transform(channel.astype(float), matrix, centre - matrix @ (centre + shift), order=1)
            for channel in smooth.transpose(2, 0, 1)
        ],
        axis=-1,
    )
    found = rotated(smooth, degrees, 3 / 32, -2 / 32).astype(float)
    inner = expected.min(axis=-1) > 20  # the ends of the image differ by how bilinear meets black
    assert inner.mean() > 0.6
    assert np.abs(found - expected)[inner].max() <= 2


def test_a_shift_moves_pixels_and_leaves_black(pixels):
    found = rotated(pixels, 0, 3 / 32, -2 / 32)
    np.testing.assert_array_equal(found[:30, 3:], pixels[2:, :29])
    assert found[30:].max() == found[:, :3].max() == 0


def test_the_grid_is_that_of_the_paper():
    places = grid()
    assert len(places) == 31 * 5 * 5 == len(set(places))
    assert {place.degrees for place in places} == set(map(float, range(-30, 31, 2)))
    assert {round(32 * place.right, 6) for place in places} == {-3, -1.5, 0, 1.5, 3}
    assert Rotation(0.0, 0.0, 0.0) in places


def test_drawn_rotations_stay_within_the_limits(pixels, monkeypatch):
    drawn = []
    monkeypatch.setattr("training.evaluation.rotations.rotated", lambda pixels, *place: drawn.append(place))
    for seed in range(500):
        randomly_rotated(pixels, np.random.default_rng(seed))
    degrees, right, down = np.abs(drawn).max(axis=0)
    assert 29 < degrees <= 30
    assert 0.09 < min(right, down) <= max(right, down) <= 3 / 32


class Corner(nn.Module):
    """Class 1 where the first pixel is bright: wrong about white images as soon as black enters the corner."""

    def forward(self, images):
        corner = images[:, 0, 0, 0]
        return torch.stack([torch.full_like(corner, 0.5), corner], dim=1)


def test_an_image_is_right_if_it_is_right_in_every_version():
    white = ImageData(torch.full((40, 3, 16, 16), 255, dtype=torch.uint8), torch.ones(40, dtype=torch.long), ("0", "1"))
    found = {
        name: correct_under_change(CHANGES[name], Corner().eval(), white, pick_device(), seed=3)
        for name in ("rotation_random", "rotation_worst10", "brightness_1")
    }
    assert found["brightness_1"].all()
    corners = [[rotated_at((3, image, version))[0, 0, 0] / 255 > 0.5 for version in range(10)] for image in range(40)]
    assert found["rotation_random"].tolist() == [versions[0] for versions in corners]
    assert found["rotation_worst10"].tolist() == [all(versions) for versions in corners]
    assert 0 < found["rotation_random"].sum() < 40
    part = correct_under_change(
        CHANGES["rotation_random"], Corner().eval(), white.subset(torch.arange(30, 40)), pick_device(), seed=3, first=30
    )
    assert torch.equal(part, found["rotation_random"][30:])


def rotated_at(seed):
    return randomly_rotated(np.full((16, 16, 3), 255, np.uint8), np.random.default_rng(seed))


def test_the_grid_breaks_what_any_of_its_places_breaks():
    white = ImageData(torch.full((2, 3, 16, 16), 255, dtype=torch.uint8), torch.tensor([1, 0]), ("0", "1"))
    asked = torch.zeros((), dtype=torch.long)

    class Counted(Corner):
        def forward(self, images):
            asked.add_(len(images))
            return super().forward(images)

    assert not correct_under_change(CHANGES["rotation_grid"], Counted().eval(), white, pick_device(), seed=0).any()
    assert asked < 775  # what is broken is not tried on
    with pytest.raises(ValueError, match="the model is in train mode; expected eval mode"):
        correct_under_change(CHANGES["brightness_1"], Corner().train(), white, pick_device(), seed=0)


def test_what_was_measured_is_kept_and_is_what_one_finds_by_hand(run, tiny_data):
    lines = list(report(Arguments(run, kinds=("contrast", "rotation_random"), images=12)))
    results = {result.attack: result for result in load_results(run)}
    assert results.keys() == {"clean", *names_of("contrast"), "rotation_random"}
    data, model = load_images(str(tiny_data), "test").spread(12), RunFolder(run).load_model("best")
    shares = []
    for severity in SEVERITIES:
        images = [CORRUPTIONS["contrast"](image, severity, None) for image in data.pixels.permute(0, 2, 3, 1).numpy()]
        floats = to_floats(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        correct = (model(floats).argmax(1) == data.labels).numpy()
        np.testing.assert_array_equal(load_flags(run, results[f"contrast_{severity}"]), correct)
        shares.append(100 * correct.mean())
    cells = [f"{share:.2f}" for share in (*shares, np.mean(shares))]
    assert f"| contrast | {' | '.join(cells)} |" in lines
    assert results["contrast_1"].data_sha256 == results["clean"].data_sha256 == data.sha256
    assert (results["contrast_1"].epsilon, results["contrast_5"].n) == (0.0, 12)


def test_a_manifest_will_not_hold_them(run):
    list(report(Arguments(run, kinds=("rotation_random",), images=6)))
    assert [accuracy.attack for accuracy in export_command._measured(run, "best")] == ["clean"]


def test_it_goes_on_where_it_was_stopped(run, tmp_path, monkeypatch):
    asked = Arguments(run, kinds=("shot_noise", "rotation_worst10"), batch=7)
    whole = shutil.copytree(run, tmp_path / "whole")
    lines = list(report(Arguments(whole, kinds=asked.kinds)))[1:]
    of, measured = measure._flags, []

    def stop_at_the_seventh(job, part, images):
        measured.append((job.change, part.start))
        if len(measured) == 7:
            raise KeyboardInterrupt
        return of(job, part, images)

    monkeypatch.setattr(measure, "_flags", stop_at_the_seventh)
    with pytest.raises(KeyboardInterrupt):
        list(report(asked))
    first, said, *rest = list(report(asked))[1:]
    assert [first, *rest] == lines
    assert said == f"1 of 7 figures were measured before, on {date.today()}"
    assert len(measured) == len(set(measured)) + 1 == 4 * 7 + 1


def test_what_was_measured_before_is_measured_anew_if_asked(run):
    asked = Arguments(run, kinds=("rotation_random",), images=3)
    first = list(report(asked))
    assert "2 of 2 figures were measured before" in list(report(asked))[2]
    assert list(report(replace(asked, again=True))) == first
    assert len(load_results(run)) == 2


def test_every_kind_has_its_changes_and_they_tell_themselves_apart():
    assert len({change.definition for change in CHANGES.values()}) == len(CHANGES) == 7 * 5 + 3
    assert {name for kind in (*USUAL_KINDS, "rotation_grid") for name in names_of(kind)} == set(CHANGES)


def test_the_command_prints_what_it_measured(run, capsys):
    corruptions_command.main([str(run), "--kinds", "rotation_random", "--images", "6"])
    shown = capsys.readouterr().out
    assert "n = 6, seed 0\nclean: " in shown
    assert "| rotation_random | " in shown
