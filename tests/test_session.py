"""The session: what it refuses, and where it says it runs."""

import dataclasses
import sys
import time

import numpy as np
import openvino
import pytest
from conftest import SIDE

from fsr_serve.artifact import read_version
from fsr_serve.classifier import Classifier
from fsr_serve.errors import ArtifactError, DeviceError
from fsr_serve.openvino_session import OpenVinoModel
from fsr_serve.session import OnnxModel, has_cuda_driver, open_session

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

ON_THE_CPU = {"runtime": "onnxruntime", "device": "cpu", "precision": "f32", "threads": 1}


@pytest.fixture
def graph(models):
    return models / "colours" / "1" / "model.onnx"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_each_runtime_says_what_it_runs(graph, runtime):
    session = open_session(graph, **{**ON_THE_CPU, "runtime": runtime})
    assert (session.runtime, session.device, session.precision) == (runtime, "cpu", "f32")


@pytest.mark.parametrize("n", [1, 7, 2])
def test_openvino_agrees_with_onnxruntime(graph, n):
    images = np.random.default_rng(n).random((n, 3, SIDE, SIDE), dtype=np.float32)
    expected, found = (
        open_session(graph, **{**ON_THE_CPU, "runtime": runtime}).logits(images)
        for runtime in ("onnxruntime", "openvino")
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_its_threads_rest_once_the_answer_is_there(graph, runtime):
    session = open_session(graph, **{**ON_THE_CPU, "runtime": runtime, "threads": 2})
    images = np.random.default_rng(0).random((64, 3, SIDE, SIDE), dtype=np.float32)
    session.logits(images)
    before = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - before < 0.01  # a thread that spins takes three times as much


@pytest.mark.skipif(not HAS_BF16, reason="the processor has no bf16")
def test_openvino_in_bf16_is_near_f32(graph):
    images = np.random.default_rng(0).random((7, 3, SIDE, SIDE), dtype=np.float32)
    session = OpenVinoModel(graph, precision="bf16", threads=1)
    assert session.precision == "bf16"
    np.testing.assert_allclose(
        session.logits(images), open_session(graph, **ON_THE_CPU).logits(images), rtol=0.05, atol=0.1
    )


@pytest.mark.skipif(HAS_BF16, reason="the processor has bf16")
def test_bf16_that_the_processor_cannot_do_is_refused_naming_it(graph):
    with pytest.raises(DeviceError, match=r"precision is 'bf16' but the processor \(.+\) does not multiply bf16"):
        open_session(graph, **{**ON_THE_CPU, "runtime": "openvino", "precision": "bf16"})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"precision": "bf16"}, "precision is 'bf16' but onnxruntime .* Choose the runtime openvino"),
        ({"runtime": "openvino", "device": "cuda"}, "device is 'cuda' but runtime is 'openvino'"),
    ],
)
def test_what_a_runtime_cannot_do_is_refused_by_name(graph, asked, message):
    with pytest.raises(DeviceError, match=message):
        open_session(graph, **{**ON_THE_CPU, **asked})


def test_a_runtime_that_is_not_installed_is_refused_by_name(graph, monkeypatch):
    monkeypatch.delitem(sys.modules, "fsr_serve.openvino_session")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceError, match=r"openvino is not installed. .* '\.\[openvino\]'"):
        open_session(graph, **{**ON_THE_CPU, "runtime": "openvino"})


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
    with pytest.raises(DeviceError, match="device is 'cuda' but .* Install the cuda extra, or choose the device cpu"):
        OnnxModel(models / "colours" / "1" / "model.onnx", device="cuda", threads=1)


@pytest.mark.parametrize(("runtime", "name"), [("onnxruntime", "onnxruntime"), ("openvino", "OpenVINO")])
def test_a_file_that_is_no_graph_is_named(tmp_path, runtime, name):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match=f"model.onnx cannot be loaded by {name}"):
        open_session(tmp_path / "model.onnx", **{**ON_THE_CPU, "runtime": runtime})


@pytest.mark.parametrize("logits", [np.zeros((1, 2), np.float32), np.full((1, 3), np.nan, np.float32)])
def test_warming_refuses_a_model_that_answers_nonsense(models, settings, server, logits):
    class Nonsense:
        runtime, device, precision = "onnxruntime", "cpu", "f32"

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
