"""Training, evaluation, export and serving make the same pixels of a picture."""

import numpy as np
import pytest
from conftest import encoded, training_arguments
from PIL import Image

from export.command import Arguments, export, read_checkpoint
from export.errors import ExportError
from export.labelled_images import load_as_served
from fsr_serve.artifact import Preprocessing, read_version
from fsr_serve.preprocessing import PixelBudget
from fsr_serve.preprocessing import decode as decode_as_served
from training.checkpoint import RunFolder
from training.command import run
from training.data import load_images
from training.decoding import decode
from training.evaluation.command import Arguments as EvaluationArguments
from training.evaluation.command import report
from training.evaluation.results import load_results

SHAPE = (16, 16)


def grain(width, height, mode="RGB", seed=0):
    """Waves and grain: decoded at another scale, other pixels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / 17 + y / 29 + shift) for shift in range(3)]
    pixels = np.stack(waves, axis=-1) + random.integers(-60, 60, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode)


def both(file, shape, scale):
    """A picture's pixels (3, h, w) in training and on the server."""
    trained = np.asarray(decode({"bytes": file, "path": None}, shape, scale)).transpose(2, 0, 1)
    size = Preprocessing(height=shape[0], width=shape[1], jpeg_scale=scale)
    return trained, decode_as_served(file, size, max_bytes=len(file), budget=PixelBudget(10**8, 10**8))


SIZES = [(16, 16), (31, 33), (63, 65), (64, 64), (127, 90), (128, 300), (260, 513), (801, 600)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(16, 16), (24, 16), (33, 50)])
@pytest.mark.parametrize("scale", ["full", "reduced"])
def test_training_and_serving_decode_to_identical_pixels(size, shape, scale):
    trained, served = both(encoded(grain(*size), "JPEG", quality=90), shape, scale)
    np.testing.assert_array_equal(trained, served)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_grey_cmyk_and_turned_photographs_too(mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    trained, served = both(encoded(grain(300, 200, mode), "JPEG", exif=exif), SHAPE, "reduced")
    np.testing.assert_array_equal(trained, served)


def test_the_scale_matters_to_large_jpegs_alone():
    large, small, png = encoded(grain(300, 200), "JPEG"), encoded(grain(40, 30), "JPEG"), encoded(grain(300, 200))
    equal = [
        np.array_equal(both(file, SHAPE, "full")[0], both(file, SHAPE, "reduced")[0]) for file in (large, small, png)
    ]
    assert equal == [False, True, True]


def photographs(folder, size):
    """Two classes of JPEGs, 24 to train on and 4 to test on each."""
    for split, count in (("train", 24), ("test", 4)):
        for label, name in enumerate(("grainy", "other")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                picture = grain(*size, seed=1000 * label + 100 * (split == "test") + index)
                picture.save(folder / split / name / f"{index}.jpg", quality=90)
    return folder


def trained(data, out, scale):
    options = {
        "epochs": 2,
        "batch_size": 8,
        "held_out": 8,
        "objective": "natural",
        "image_shape": SHAPE,
        "jpeg_scale": scale,
    }
    run(training_arguments(data, out, **options))
    return out


def test_what_training_chose_holds_for_evaluation_export_and_server(tmp_path):
    data = photographs(tmp_path / "photographs", (150, 100))
    checkpoint = trained(data, tmp_path / "run", "reduced")
    report(EvaluationArguments(checkpoint, attacks=("fgsm",)))
    export(Arguments(checkpoint, tmp_path / "photographs-model" / "1", attack_graph=False))
    manifest = read_version(tmp_path / "photographs-model" / "1").manifest
    assert RunFolder(checkpoint).config().jpeg_scale == manifest.preprocessing.jpeg_scale == "reduced"
    served = load_as_served(str(data), "test", manifest, None)
    assert {result.data_sha256 for result in load_results(checkpoint)} == {served.sha256}
    assert load_images(str(data), "test", SHAPE).sha256 != served.sha256
    with pytest.raises(ExportError, match="jpeg_scale is 'full' but .*run was trained with 'reduced'"):
        export(Arguments(checkpoint, tmp_path / "other" / "1", jpeg_scale="full"))


def test_export_takes_another_scale_where_the_training_images_stay_the_same(tmp_path):
    data = photographs(tmp_path / "pictures", (20, 20))
    checkpoint = trained(data, tmp_path / "run", "full")
    source = read_checkpoint(Arguments(checkpoint, tmp_path / "pictures-model" / "1", jpeg_scale="reduced"))
    assert source.jpeg_scale == "reduced"
