"""Augmentations against what they are by definition."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from training import color_shape
from training.augmentation import augment, crop_flip, crop_shift, cutmix, erase
from training.recipes import RECIPES


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_augmentation_crops_the_padded_image_and_flips_half():
    torch.manual_seed(0)
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5).expand(2000, 3, 5, 5)
    padded = torch.nn.functional.pad(image[0, 0], (2, 2, 2, 2))
    crops = {tuple(padded[y : y + 5, x : x + 5].flatten().tolist()) for y in range(5) for x in range(5)}
    flips = {tuple(padded[y : y + 5, x : x + 5].flip(1).flatten().tolist()) for y in range(5) for x in range(5)}
    rows = [tuple(row) for row in crop_flip(image, padding=2)[:, 0].flatten(1).tolist()]
    assert set(rows) == crops | flips
    assert sum(row in flips for row in rows) / len(rows) == pytest.approx(0.5, abs=0.05)


def test_crop_shift_keeps_a_part_of_the_image_somewhere_else():
    image = torch.arange(1.0, 1025.0).view(1, 1, 32, 32).expand(300, 3, 32, 32)
    shifted = crop_shift(image)
    cut = set()
    for index in range(300):
        rows, columns = (shifted[index, 0] > 0).nonzero(as_tuple=True)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        part = shifted[index, 0, top:bottom, left:right]
        y, x = divmod(int(part[0, 0]) - 1, 32)
        assert torch.equal(part, image[0, 0, y : y + part.shape[0], x : x + part.shape[1]])
        cut.add(64 - part.shape[0] - part.shape[1])
    assert cut == set(range(12))


def test_erasing_blackens_one_rectangle_of_2_to_33_percent_in_half_of_the_images():
    erased = erase(torch.ones(2000, 3, 32, 32), 0.5)[:, 0] == 0
    touched = erased.flatten(1).any(dim=1)
    assert touched.float().mean().item() == pytest.approx(0.5, abs=0.05)
    areas = erased[touched].float().mean(dim=(1, 2))
    assert 0.01 < areas.min() < areas.max() < 0.36
    sides = erased[touched].any(dim=2).sum(dim=1) * erased[touched].any(dim=1).sum(dim=1)
    assert torch.equal(sides, erased[touched].sum(dim=(1, 2))), "a rectangle"


def test_cutmix_mixes_labels_by_area():
    labels = torch.arange(50) % 5
    images = labels.float().view(50, 1, 1, 1).expand(50, 3, 16, 16).contiguous()
    mixed, shown, shares = cutmix(images, labels, 5)
    for index in range(50):
        area = torch.stack([(mixed[index, 0] == c).float().mean() for c in range(5)])
        torch.testing.assert_close(shares[index], area)
        assert shares[index, shown[index]] >= 0.5


PILLOW = {
    "saturation": lambda image: ImageEnhance.Color(image).enhance(1.5),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.5),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.5),
    "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(1.5),
    "autocontrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "shear": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0.1, -1.6, 0, 1, 0)),
    "rotate": lambda image: image.rotate(10),
}


@pytest.mark.parametrize("name", PILLOW)
def test_colours_and_shapes_change_as_in_pillow(name, monkeypatch):
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(20, 200, (4, 4, 3), dtype=np.uint8)).resize((32, 32))
    images = torch.from_numpy(np.array(smooth)).permute(2, 0, 1)[None] / 255
    fixed = {"shear": 0.1, "rotate": np.pi / 18}.get(name)
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda tensor, low, high: tensor.fill_(1.5))
    monkeypatch.setattr(color_shape, "_signed", lambda images, low, high: images.new_full((1,), fixed))
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    expected = torch.from_numpy(np.array(PILLOW[name](smooth))).permute(2, 0, 1)
    found = (getattr(color_shape, name)(images)[0] * 255).round()
    difference = (found - expected).abs()
    if name in ("shear", "rotate"):
        assert (difference > 2).float().mean() < 0.08, "nearest pixels may differ where they tie"
    else:
        assert difference.max() <= 2


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "idbh_weak", "cutmix"])
def test_augmented_images_keep_shape_and_range(augmentation):
    recipe = dataclasses.replace(RECIPES["paper"], augmentation=augmentation)
    pixels = torch.randint(256, (64, 3, 20, 24), dtype=torch.uint8)
    images, target = augment(pixels, torch.arange(64) % 3, 3, recipe, 1.0)
    assert images.shape == pixels.shape
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(images * 255, pixels.float()) == (augmentation == "none")
    assert target.labels.shape == (64,)


def test_label_smoothing_spreads_a_share_over_all_classes():
    recipe = dataclasses.replace(RECIPES["paper"], label_smoothing=0.3)
    _, target = augment(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 2]), 3, recipe, 1.0)
    torch.testing.assert_close(target.distribution, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))
