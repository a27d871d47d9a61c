"""Ways to run a graph on a GPU: here that they refuse to run elsewhere, and compute what torch does."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.gpu.serving import make_files
from benchmarks.gpu.sessions import ProviderError, Way, in_onnxruntime, in_torch
from fsr_serve.session import has_cuda_driver

without_gpu = pytest.mark.skipif(has_cuda_driver(), reason="there is a GPU")
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_files(4, tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def images():
    return np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32)


def logits(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 5e-2)])
def test_the_graphs_compute_what_the_network_does(made, images, precision, tolerance):
    model, files = made
    call = in_onnxruntime(files[precision], Way("CPUExecutionProvider"), images, 10)
    expected = logits(model, images)
    np.testing.assert_allclose(call(), expected, atol=tolerance * np.abs(expected).max())


@without_gpu
@pytest.mark.parametrize("is_bound", [False, True])
def test_a_session_that_would_run_on_another_provider_is_refused(made, images, is_bound):
    _, files = made
    with pytest.raises(ProviderError, match=r"asked for CUDAExecutionProvider; CPUExecutionProvider would run"):
        in_onnxruntime(files["fp32"], Way(is_bound=is_bound), images, 10)


@without_gpu
def test_the_command_says_what_it_needs():
    command = [sys.executable, "-m", "benchmarks.gpu.serving"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "error: torch finds no CUDA device; expected a GPU, torch with CUDA, and onnxruntime-gpu\n"


@with_gpu
def test_torch_as_a_cuda_graph_computes_what_the_network_does(made, images):
    model, _ = made
    np.testing.assert_allclose(in_torch(model, images, torch.float32)(), logits(model, images), atol=1e-2)
