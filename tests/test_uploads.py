"""Attacks through what the server does with an upload: encoding, decoding, cropping, resizing."""

import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from export import measuring, upload_verification
from export.errors import VerificationError
from export.labelled_images import load_as_served
from export.resizing import Resizing
from export.upload_attack import Upload, UploadGraph
from export.upload_verification import Arguments, line, verify
from export.verification import by_gradient
from fsr_serve.artifact import ATTACK_FILE, Preprocessing, read_version
from fsr_serve.checks.probe import CROSS_ENTROPY
from fsr_serve.preprocessing import PixelBudget, decode
from training.evaluation.deployed import through_uploads
from training.evaluation.protocol import GRADIENT_ATTACKS
from training.source import DataError

SERVED = Preprocessing(height=16, width=16)
STRONG = 64 / 255
SHAPES = [(96, 96), (64, 48), (50, 91), (16, 16), (10, 13), (200, 17)]


@pytest.fixture
def version(models, tmp_path):
    return shutil.copytree(models / "colours" / "1", tmp_path / "colours" / "1")


def noise(height, width, count=2):
    """Whole numbers of 255ths."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, height, width))
    return (pixels / 255).astype(np.float32)


def run(version, tiny_data, **options):
    options = {"images": 12, "upload_shape": (40, 48), "epsilon": STRONG, "threads": 1} | options
    return {found.attack: found for found in verify(Arguments(version, str(tiny_data), **options))}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_linear_map_is_the_server_s_crop_and_resize(shape):
    pictures = noise(*shape)
    seen = Upload(shape, "png", 75, SERVED).seen(pictures)
    assert seen.shape == (2, 3, 16, 16)
    # the server rounds twice
    assert np.abs(Resizing(*shape, SERVED).forward(pictures) - seen).max() <= 1.01 / 255


@pytest.mark.parametrize("shape", [(96, 96), (40, 40), (16, 16)])
def test_the_linear_map_is_torch_s_antialiased_resize(shape):
    pictures = torch.from_numpy(noise(*shape))
    expected = F.interpolate(pictures, (16, 16), mode="bilinear", antialias=True, align_corners=False)
    found = Resizing(*shape, SERVED).forward(pictures.numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_gradient_is_that_of_automatic_differentiation(shape):
    resizing, random = Resizing(*shape, SERVED), np.random.default_rng(1)
    weights = random.normal(size=(1, 3, 16, 16)).astype(np.float32)
    pictures = torch.from_numpy(noise(*shape, count=1)).requires_grad_()
    rows, columns = (torch.from_numpy(part) for part in (resizing._rows, resizing._columns))
    (torch.einsum("ih,nchw,jw->ncij", rows, pictures, columns) * torch.from_numpy(weights)).sum().backward()
    np.testing.assert_allclose(resizing.backward(weights), pictures.grad.numpy(), atol=1e-5)


def test_a_step_along_the_gradient_raises_what_the_server_sees():
    """The gradient's sign of a random linear score, in pixels of the upload, against the server's own pictures."""
    upload, pictures = Upload((60, 90), "png", 75, SERVED), noise(60, 90)
    weights = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    gradient = upload.backward(weights)
    assert (gradient[..., :10] == 0).all()  # cropped away
    moved = np.clip(pictures + 8 / 255 * np.sign(gradient), 0, 1)
    gain = ((upload.seen(moved) - upload.seen(pictures)) * weights).sum()
    expected = ((moved - pictures) * gradient).sum()
    assert gain == pytest.approx(expected, rel=0.02)


def test_png_uploads_lose_nothing_but_what_eight_bits_lose():
    picture = noise(30, 40, count=1)[0]
    decoded = np.asarray(Image.open(io.BytesIO(Upload((30, 40), "png", 75, SERVED).encoded(picture))))
    np.testing.assert_array_equal(decoded.transpose(2, 0, 1), (picture * 255).round())


def test_jpeg_uploads_are_what_the_server_makes_of_pillow_s_files():
    picture = noise(30, 40, count=1)[0]
    file = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8).transpose(1, 2, 0)).save(file, "JPEG", quality=60)
    expected = decode(file.getvalue(), SERVED, max_bytes=10**6, budget=PixelBudget(10**6, 10**6))
    found = Upload((30, 40), "jpeg", 60, SERVED).seen(picture[None])[0]
    np.testing.assert_array_equal((found * 255).round(), expected)


def test_loss_and_gradient_through_an_upload_are_those_of_the_network_behind_it(models, checkpoint):
    from training.checkpoint import RunFolder

    path, labels = models / "colours" / "1", np.array([0, 2])
    pictures, upload = noise(40, 48), Upload((40, 48), "jpeg", 75, SERVED)
    graph = UploadGraph(path / ATTACK_FILE, upload, device="cpu", threads=1)
    step = graph.step(pictures, labels, CROSS_ENTROPY)
    seen = torch.from_numpy(upload.seen(pictures)).requires_grad_()
    model = RunFolder(checkpoint).load_model("best")
    loss = F.cross_entropy(model(seen), torch.from_numpy(labels), reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), seen)
    np.testing.assert_allclose(step.loss, loss.detach().numpy(), atol=1e-4)
    expected = Resizing(40, 48, SERVED).backward(gradient.numpy())
    assert step.gradient.shape == pictures.shape
    np.testing.assert_allclose(step.gradient, expected, atol=1e-4)


def test_attacked_uploads_stay_within_epsilon_in_whole_levels(version, tiny_data):
    manifest = read_version(version).manifest
    as_uploaded = manifest.model_copy(update={"preprocessing": Preprocessing(height=40, width=48)})
    pictures = load_as_served(str(tiny_data), "test", as_uploaded, 4)
    upload = Upload((40, 48), "png", 75, manifest.preprocessing)
    graph = UploadGraph(version / ATTACK_FILE, upload, device="cpu", threads=1)
    for levels in (1, 8):
        attacked = by_gradient(graph, GRADIENT_ATTACKS["pgd20"], levels / 255, 0, pictures.images, pictures.labels, 0)
        files = [Image.open(io.BytesIO(upload.encoded(picture))) for picture in attacked]
        pixels = np.stack([np.asarray(file).transpose(2, 0, 1) for file in files]).astype(int)
        assert np.abs(pixels - (pictures.images * 255).round()).max() == levels


def test_every_way_to_the_network_is_measured_and_kept_in_the_manifest(version, tiny_data):
    before = read_version(version).manifest
    found = run(version, tiny_data)
    names = ["decoded", "png", "jpeg"]
    assert list(found) == ["clean_png_upload", "clean_jpeg_upload", *(f"pgd20_{name}_upload" for name in names)]
    clean, jpeg = found["clean_png_upload"], found["pgd20_jpeg_upload"]
    assert clean.accuracy > 0.5
    assert all(found[f"pgd20_{name}_upload"].accuracy < clean.accuracy for name in names)
    assert jpeg.definition == ("cross-entropy, 20 steps of epsilon/10, random start, through 40x48 JPEG of quality 75")
    assert jpeg.data == f"{tiny_data}, split test, uploads of 40x48 pixels"
    assert (jpeg.epsilon, jpeg.n, clean.epsilon) == (STRONG, 12, 0)
    after = read_version(version).manifest
    assert after.accuracies == (*before.accuracies, *found.values())
    assert after.files == before.files
    assert "n = 12" in line(jpeg)
    verdict = through_uploads(version, STRONG)
    assert (verdict.status, through_uploads(version, 1 / 255).status) == ("figure", "not run")
    assert f"pgd20_jpeg_upload {jpeg.accuracy:.2%}; n = 12" in verdict.found


def test_it_goes_on_where_it_was_stopped(version, tiny_data, monkeypatch):
    monkeypatch.setattr(measuring, "BATCH", 5)
    whole = run(version, tiny_data, attacks=("fgsm",), state=version.parent / "whole")
    write, done = measuring.FlagsFile.write, []

    def stop_after_ten(self, part, correct, seconds):
        write(self, part, correct, seconds)
        done.append(part)
        if len(done) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(measuring.FlagsFile, "write", stop_after_ten)
    stopped = {"attacks": ("fgsm",), "state": version.parent / "stopped"}
    with pytest.raises(KeyboardInterrupt):
        run(version, tiny_data, **stopped)
    again = run(version, tiny_data, **stopped)
    assert len(done) == 15  # three batches of each of five
    assert {name: one.accuracy for name, one in whole.items()} == {name: one.accuracy for name, one in again.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 8}, "epsilon is 8, 2040/255; expected a whole number of 255ths from 1/255 to 1"),
        ({"epsilon": 0.03}, "epsilon is 0.03, 7.65/255; expected a whole number of 255ths"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"upload_shape": (96, 0)}, r"upload_shape is \(96, 0\); expected a height and a width of 8 pixels or more"),
        ({"quality": 0}, "quality is 0; expected 1 to 100"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(version, tiny_data, options, message):
    with pytest.raises(VerificationError, match=message):
        run(version, tiny_data, **options)


def test_what_cannot_be_measured_is_refused_in_one_line(version, tiny_data, tmp_path):
    with pytest.raises(DataError, match="images is 0; expected 1 to 24"):
        run(version, tiny_data, images=0)
    with pytest.raises(SystemExit, match=r"^error: .*none"):
        upload_verification.main([str(tmp_path / "none"), "--data", str(tiny_data)])
    (version / "model.sig").write_text("{}")
    with pytest.raises(VerificationError, match="is signed, and figures in its manifest would break the signature"):
        run(version, tiny_data)


def test_it_needs_no_torch(version, tiny_data):
    code = "import sys; from export.upload_verification import main; main(); print('torch' in sys.modules)"
    options = ["--data", str(tiny_data), "--attacks", "fgsm", "--images", "3", "--threads", "1"]
    command = [sys.executable, "-c", code, str(version), *options]
    done = subprocess.run(command, env=os.environ | {"USE_TORCH": "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *report, has_torch = done.stdout.splitlines()
    assert len(report) == 5
    assert has_torch == "False"
