"""The session: what it refuses, and where it says it runs."""

import dataclasses

import numpy as np
import pytest

from fsr_serve.artifact import read_version
from fsr_serve.classifier import Classifier, softmax
from fsr_serve.errors import ArtifactError, DeviceError
from fsr_serve.session import OnnxModel, has_cuda_driver


def test_auto_takes_the_device_that_is_there(models):
    session = OnnxModel(models / "colours" / "1" / "model.onnx", device="auto", threads=1)
    assert session.device == ("cuda" if has_cuda_driver() else "cpu")


@pytest.mark.skipif(has_cuda_driver(), reason="CUDA is here")
def test_auto_says_so_when_a_driver_is_there_but_cuda_does_not_start(models, monkeypatch, caplog):
    monkeypatch.setattr("fsr_serve.session.has_cuda_driver", lambda: True)
    session = OnnxModel(models / "colours" / "1" / "model.onnx", device="auto", threads=1)
    assert session.device == "cpu"
    assert "could not start CUDA; running on the CPU" in caplog.text


@pytest.mark.skipif(has_cuda_driver(), reason="CUDA is here")
def test_cuda_that_cannot_be_had_is_an_error_not_a_fallback(models):
    with pytest.raises(DeviceError, match="FSR_DEVICE is 'cuda' but .* Install the cuda extra, or set FSR_DEVICE=cpu"):
        OnnxModel(models / "colours" / "1" / "model.onnx", device="cuda", threads=1)


def test_a_file_that_is_no_graph_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match=r"model.onnx cannot be loaded by onnxruntime"):
        OnnxModel(tmp_path / "model.onnx", device="cpu", threads=1)


@pytest.mark.parametrize("logits", [np.zeros((1, 2), np.float32), np.full((1, 3), np.nan, np.float32)])
def test_warming_refuses_a_model_that_answers_nonsense(models, settings, server, logits):
    class Nonsense:
        device = "cpu"

        def logits(self, images):
            return logits

    version = read_version(models / "colours" / "1")
    with pytest.raises(ArtifactError, match=r"logits of shape .*; expected finite ones of shape \(1, 3\)"):
        Classifier(version, Nonsense(), settings, server.metrics).warm()


def test_warming_names_a_model_whose_graph_takes_other_images(models, settings, server):
    version = read_version(models / "colours" / "1")
    other = version.manifest.preprocessing.model_copy(update={"height": 64})
    version = dataclasses.replace(version, manifest=version.manifest.model_copy(update={"preprocessing": other}))
    session = OnnxModel(version.path / "model.onnx", device="cpu", threads=1)
    with pytest.raises(ArtifactError, match="cannot run a warm-up batch"):
        Classifier(version, session, settings, server.metrics).warm()


def test_softmax_equals_its_definition_also_for_large_logits():
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 999.0, -1000.0]], np.float32)
    expected = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    np.testing.assert_allclose(softmax(logits)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(softmax(logits)[1], [0.7310586, 0.2689414, 0], atol=1e-6)
