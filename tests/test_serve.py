"""A real `bentoml serve` and real clients."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import bentoml
import httpx
import pytest
from bentoml.serving import create_watcher, running_inside_container
from conftest import CLASSES, picture
from servers import ROOT, curl, environment, running, serving

from fsr_serve.session import has_cuda_driver
from fsr_serve.workers import FOLDER_VARIABLE

RED = picture("red")


@pytest.fixture(scope="module")
def address(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    limits = {"FSR_MAX_BODY_BYTES": "1000000", "FSR_MAX_IMAGES": "8"}
    with serving(models, folder / "home", folder / "log", **limits) as address:
        yield address


def test_curl_sends_a_picture_and_gets_a_label(address, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(picture("red", (640, 480), "JPEG"))
    answer = json.loads(
        curl("--data-binary", f"@{tmp_path}/photo.jpg", "-H", "Content-Type: image/jpeg", f"{address}/classify")
    )
    assert answer["predictions"][0]["label"] in CLASSES


def test_curl_sends_three_files_as_a_form(address, tmp_path):
    (tmp_path / "a.png").write_bytes(RED)
    files = [text for _ in range(3) for text in ("-F", f"image=@{tmp_path}/a.png")]
    assert len(json.loads(curl(*files, f"{address}/classify"))["predictions"]) == 3


def test_livez_readyz_and_metrics_answer(address):
    for path in ("livez", "readyz", "metrics"):
        assert httpx.get(f"{address}/{path}").status_code == 200
    assert 'model="colours"' in httpx.get(f"{address}/metrics").text


def test_bentomls_own_client_classifies(address):
    with bentoml.SyncHTTPClient(address) as client:
        found = client.classify(RED)
    response = httpx.post(f"{address}/classify", content=RED, headers={"Content-Type": "image/png"})
    assert found["predictions"] == response.json()["predictions"]


def test_bentomls_own_client_is_told_why_an_image_is_refused(address):
    with (
        bentoml.SyncHTTPClient(address) as client,
        pytest.raises(bentoml.exceptions.BentoMLException, match="no image"),
    ):
        client.classify(b"garbage")


@pytest.mark.parametrize("announced", [True, False], ids=["with a length", "chunked"])
def test_a_client_refused_while_sending_reads_its_413(address, announced):
    """A client that sends everything before it reads must not find its connection reset."""
    size = 20_000_000
    head = "POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {size}\r\n\r\n" if announced else "Transfer-Encoding: chunked\r\n\r\n"
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        block = b"\0" * 50_000
        for _ in range(size // len(block)):
            connection.sendall(block if announced else b"%x\r\n%b\r\n" % (len(block), block))
        if not announced:
            connection.sendall(b"0\r\n\r\n")
        answer = connection.recv(65536)
        connection.settimeout(10)
        assert connection.recv(65536) == b"", "the connection is closed, not kept for more"
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


def test_a_head_without_end_is_refused_and_counted(address):
    assert b" 431 Request Header Fields Too Large\r\n" in answer_to_a_large_head(address)
    assert 'fsr_errors_total{code="head_too_large"} 1.0' in httpx.get(f"{address}/metrics").text


def answer_to_a_large_head(address):
    """What bounds it is tested in test_connection.py; here, that a server's connections are of that kind."""
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 20_000)
        return connection.recv(65536)


def test_the_api_can_be_called_in_process(models, monkeypatch):
    monkeypatch.setenv("FSR_MODELS", str(models))
    from fsr_serve.service import FsrServe

    service = FsrServe()
    with ThreadPoolExecutor(4) as threads:
        for answer in threads.map(service.classify, [RED] * 20):
            assert answer["predictions"][0]["label"] in CLASSES


def test_a_worker_that_dies_is_started_again_in_bentomls_containers_too(monkeypatch):
    from fsr_serve.service import FsrServe

    monkeypatch.setenv("BENTOML_CONTAINERIZED", "true")
    monkeypatch.setenv(FOLDER_VARIABLE, "of this test")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=0))
    running_inside_container.cache_clear()
    FsrServe.inner.check()
    assert create_watcher("service", []).respawn


def test_a_404_comes_from_the_router_and_leaves_no_series(address):
    before = len(httpx.get(f"{address}/metrics").text.splitlines())
    assert httpx.get(f"{address}/nothing/here").status_code == 404
    assert len(httpx.get(f"{address}/metrics").text.splitlines()) == before


def test_after_sigterm_readiness_falls_first_requests_go_on_and_the_exit_is_clean(models, tmp_path):
    with running(models, tmp_path / "home", tmp_path / "log", FSR_DRAIN_SECONDS="3") as (address, process):
        with httpx.Client(timeout=60) as client:
            process.send_signal(signal.SIGTERM)
            while (ready := client.get(f"{address}/readyz")).status_code == 200:
                pass
            assert (ready.status_code, ready.json()["error"]["code"]) == (503, "draining")
            assert client.post(f"{address}/classify", content=RED, headers={"Content-Type": "image/png"}).is_success
        assert process.wait(timeout=60) == 0


def test_several_workers_answer_as_one_server(models, tmp_path):
    with serving(models, tmp_path / "home", tmp_path / "log", FSR_WORKERS="2", FSR_THREADS="1") as address:
        wait_for_workers(address, 2)
        for _ in range(20):  # each on a connection of its own, which either worker may get
            assert httpx.post(f"{address}/classify", content=RED, headers={"Content-Type": "image/png"}).is_success
            assert b" 431 " in answer_to_a_large_head(address)
        metrics = httpx.get(f"{address}/metrics").text
    assert 'fsr_requests_total{code="200",route="/classify"} 20.0' in metrics
    assert "fsr_images_total 20.0" in metrics


def wait_for_workers(address, count):
    """Until so many hold the model; the first that does makes the server ready."""
    deadline = time.monotonic() + 60
    while not re.search(rf'fsr_model_info{{.*model="colours".*}} {count}.0', httpx.get(f"{address}/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def refused(models, tmp_path, **settings):
    """Exit status and output of a server that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "--port", "0"],
        cwd=ROOT,
        env=environment(models, tmp_path / "home", **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["model.onnx", "weights.data", "manifest.json", "manifest.sha256"])
def test_one_changed_byte_stops_the_server_naming_the_file(models, tmp_path, name):
    copied = shutil.copytree(models, tmp_path / "models")
    path = copied / "colours" / "1" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    status, output = refused(copied, tmp_path)
    assert status != 0
    assert re.search(rf"fsr-serve cannot start: .*{name}", output)
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FSR_MODEL": "cats"}, "FSR_MODEL is 'cats'"),
        ({"FSR_MAX_IMAGES": "0"}, "FSR_MAX_IMAGES is '0'"),
        ({"FSR_WORKERS": "none"}, "FSR_WORKERS is 'none'"),
        pytest.param(
            {"FSR_DEVICE": "cuda"},
            "device is 'cuda' but onnxruntime could not start CUDA",
            marks=pytest.mark.skipif(has_cuda_driver(), reason="CUDA is here"),
        ),
        ({"FSR_DEVISE": "cpu"}, "FSR_DEVISE: no such setting"),
    ],
)
def test_a_wrong_setting_stops_the_server_with_the_reason(models, tmp_path, settings, message):
    status, output = refused(models, tmp_path, **settings)
    assert status != 0
    assert message in output
    assert "Traceback" not in output


def test_a_missing_model_file_stops_the_server_naming_it(models, tmp_path):
    copied = shutil.copytree(models, tmp_path / "models")
    (copied / "colours" / "1" / "weights.data").unlink()
    status, output = refused(copied, tmp_path)
    assert status != 0
    assert "weights.data cannot be read (No such file or directory)" in output
