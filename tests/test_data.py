"""Data: what loads, and what is refused and how."""

import datasets
import numpy as np
import pytest
import torch
from conftest import CLASSES, SIDE, colour
from PIL import Image

from training.data import ImageData, hold_out, load_extra, load_images, to_floats
from training.data_sets import DATA_SETS
from training.recipes import RECIPES
from training.source import DataError


def test_a_folder_per_class_loads_with_its_names(tiny_data):
    data = load_images(str(tiny_data), "test")
    assert data.classes == CLASSES
    assert data.pixels.shape == (24, 3, SIDE, SIDE)
    assert data.pixels.dtype == torch.uint8
    assert data.pixels.float().mean(dim=(2, 3)).argmax(dim=1).tolist() == [2 - label for label in data.labels.tolist()]


@pytest.mark.parametrize("image_column", ["img", "image"])
def test_parquet_loads_with_the_data_sets_own_class_names(tmp_path, image_column):
    random = np.random.default_rng(0)
    pixels = [colour(random, channel) for channel in (0, 1, 1, 2)]
    features = datasets.Features(
        {image_column: datasets.Image(), "label": datasets.ClassLabel(names=["zoo", "ant", "bee"])}
    )
    rows = {image_column: [Image.fromarray(image) for image in pixels], "label": [0, 1, 1, 2]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    data = load_images(str(tmp_path), "train")
    assert data.classes == ("zoo", "ant", "bee")
    assert data.labels.tolist() == [0, 1, 1, 2]
    assert np.array_equal(data.pixels.permute(0, 2, 3, 1).numpy(), np.stack(pixels))


def test_grey_images_become_rgb(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 77).save(tmp_path / "train" / name / "0.png")
    assert load_images(str(tmp_path), "train").pixels.unique().tolist() == [77]


def folder(root, images):
    for index, (name, image) in enumerate(images):
        path = root / "train" / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image) if isinstance(image, bytes) else image.save(path)
    return str(root)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([("a", Image.new("RGB", (8, 8))), ("b", Image.new("RGB", (9, 8)))], "is 9x8 pixels, the first 8x8"),
        ([("a", Image.new("RGB", (8, 8))), ("b", b"garbage")], "image 1 of .* cannot be read: .* Replace the file"),
        ([("a", Image.new("RGB", (8, 8))), ("a", Image.new("RGB", (8, 8)))], "two or more folders, one per class"),
    ],
)
def test_bad_images_are_named(tmp_path, images, message):
    with pytest.raises(DataError, match=message):
        load_images(folder(tmp_path, images), "train")


def test_a_single_class_is_refused(tmp_path):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["only"])})
    rows = {"img": [Image.new("RGB", (8, 8))], "label": [0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"single class \['only'\]; expected two or more"):
        load_images(str(tmp_path), "train")


def test_labels_that_are_lists_are_refused(tmp_path):
    rows = {"img": [Image.new("RGB", (8, 8))] * 2, "label": [[0], [1]]}
    features = datasets.Features({"img": datasets.Image(), "label": datasets.List(datasets.Value("int64"))})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"the column label of .* holds List.*; expected one class for each image"):
        load_images(str(tmp_path), "train")


def test_a_missing_image_is_named(tmp_path):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"img": [Image.new("RGB", (8, 8)), None], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"image 1 of .* cannot be read"):
        load_images(str(tmp_path), "train")


def test_images_without_a_label_are_refused(tmp_path):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"img": [Image.new("RGB", (8, 8))] * 3, "label": [0, -1, None]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match="2 of 3 images of .*, split 'train', have no label"):
        load_images(str(tmp_path), "train")


def test_a_missing_split_and_a_wrong_path_are_named(tiny_data, tmp_path):
    with pytest.raises(DataError, match="has no split 'validation'; it has train, test. .* in validation/CLASS/"):
        load_images(str(tiny_data), "validation")
    with pytest.raises(DataError, match="cannot load data .*nowhere.* Expected cifar10, .* a Hugging Face id"):
        load_images(str(tmp_path / "nowhere"), "train")


def test_held_out_images_are_disjoint_repeatable_and_seeded(tiny_data):
    data = load_images(str(tiny_data), "train")
    rest, held_out = hold_out(data, 50, seed=1)
    assert (len(rest), len(held_out)) == (len(data) - 50, 50)
    everything = torch.cat([rest.pixels, held_out.pixels]).flatten(1)
    assert len(everything.unique(dim=0)) == len(data)
    assert torch.equal(held_out.pixels, hold_out(data, 50, seed=1)[1].pixels)
    assert not torch.equal(held_out.pixels, hold_out(data, 50, seed=2)[1].pixels)
    with pytest.raises(DataError, match="cannot hold out 600 of 600 training images"):
        hold_out(data, 600, seed=1)
    assert len(hold_out(data, None, seed=1)[1]) == 60, "a tenth of little data"


def test_spread_images_cover_data_that_is_sorted_by_class(tiny_data):
    data = load_images(str(tiny_data), "train")
    assert data.spread(30).labels.bincount().tolist() == [10, 10, 10]
    assert len(data.spread(10_000)) == len(data)


def test_scaled_images_keep_their_content(tiny_data):
    data = load_images(str(tiny_data), "test")
    small = data.scaled(0.5)
    assert small.shape == (SIDE // 2, SIDE // 2)
    assert (small.pixels.float().mean(dim=(2, 3)) - data.pixels.float().mean(dim=(2, 3))).abs().max() < 1
    assert data.scaled(1.0) is data


def test_pixels_become_floats_in_zero_to_one():
    assert to_floats(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])


def test_images_of_several_sizes_load_with_a_shape(tmp_path):
    """As the server does it: the largest centred part of the wanted aspect ratio."""
    wide = Image.new("RGB", (30, 10), "red")
    wide.paste("blue", (10, 0, 20, 10))
    source = folder(tmp_path, [("a", wide), ("b", Image.new("RGB", (8, 9), "blue"))])
    with pytest.raises(DataError, match="expected images of one size, or the size to make of them by --image-shape"):
        load_images(source, "train")
    with pytest.raises(DataError, match=r"image_shape is \(0, 8\); expected 8 or more pixels a side"):
        load_images(source, "train", (0, 8))
    data = load_images(source, "train", (8, 8))
    assert data.shape == (8, 8)
    for red, _, blue in data.pixels.flatten(2).float().mean(dim=2).tolist():
        assert red < 20 < 230 < blue


@pytest.mark.parametrize(
    ("name", "given", "split"),
    [
        ("cifar10", ("uoft-cs/cifar10", None), "test"),
        ("cifar100", ("uoft-cs/cifar100", None), "test"),
        ("svhn", ("ufldl-stanford/svhn", "cropped_digits"), "test"),
        ("tiny-imagenet", ("zh-plus/tiny-imagenet", None), "valid"),
    ],
)
def test_names_of_the_paper_s_data_sets_are_known(monkeypatch, name, given, split):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [Image.new("RGB", (8, 8))] * 2, "label": [0, 1]}
    asked = []

    def load_dataset(*source):
        asked.append(source)
        return {split: datasets.Dataset.from_dict(rows, features=features)}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_images(name, "test")) == 2
    assert asked == [given]


def test_recipes_are_adapted_to_svhn_as_in_section_4_1():
    paper = DATA_SETS["svhn"].adapt(RECIPES["paper"])
    assert (paper.augmentation, paper.step_size * 8) == ("none", paper.epsilon)
    assert paper.learning_rate == pytest.approx(0.01)
    for name in ("cifar10", "cifar100", "tiny-imagenet"):
        assert DATA_SETS[name].adapt(RECIPES["paper"]) == RECIPES["paper"]


@pytest.fixture
def two_classes():
    return ImageData(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))


def test_extra_images_load_from_an_npz(tmp_path, two_classes):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "extra.npz", image=images, label=np.array([0, 1, 1, 0, 1]))
    extra = load_extra(str(tmp_path / "extra.npz"), two_classes)
    assert np.array_equal(extra.pixels.permute(0, 2, 3, 1).numpy(), images)
    assert (extra.labels.tolist(), extra.classes) == ([0, 1, 1, 0, 1], ("a", "b"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((1, 8, 8, 3), np.uint8), "label": np.zeros(1, int)}, "Expected arrays image and label"),
        ({"image": np.zeros((1, 9, 8, 3), np.uint8), "label": np.zeros(1, int)}, r"expected uint8 \(n, 8, 8, 3\)"),
        ({"image": np.zeros((1, 8, 8, 3)), "label": np.zeros(1, int)}, r"of float64 and labels \(1,\)"),
        ({"image": np.zeros((1, 8, 8, 3), np.uint8), "label": np.array([2])}, "has labels 2 to 2; expected 0 to 1"),
        ({"image": np.zeros((1, 8, 8, 3), np.uint8), "label": np.zeros((1, 2), int)}, r"and labels \(1, 2\); expected"),
        ({"image": np.zeros((0, 8, 8, 3), np.uint8), "label": np.zeros(0, int)}, "holds no images"),
        ({"image": np.zeros((1, 8, 8, 3), np.uint8), "label": np.array([0.5])}, "labels of float64; expected integers"),
        ({"image": np.array([{}], dtype=object), "label": np.zeros(1, int)}, "cannot be read"),
    ],
)
def test_extra_images_that_do_not_fit_are_refused(tmp_path, two_classes, arrays, message):
    np.savez(tmp_path / "extra.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_extra(str(tmp_path / "extra.npz"), two_classes)


@pytest.mark.parametrize("kept", [0, 100, 500])
def test_extra_images_in_a_file_cut_short_are_refused(tmp_path, two_classes, kept):
    path = tmp_path / "extra.npz"
    np.savez(path, image=np.zeros((4, 8, 8, 3), np.uint8), label=np.zeros(4, int))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"extra data .* cannot be read: .* Expected arrays image and label"):
        load_extra(str(path), two_classes)
