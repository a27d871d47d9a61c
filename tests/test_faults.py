"""What goes wrong under load, and what of it the clients see. Each test counts what was lost."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter

import httpx
import psutil
import pytest
from conftest import CLASSES, as_json, picture
from load import load_of
from odd_models import always, hanging
from servers import running
from versions import add_keys, damage, truncate

from export.adoption import Arguments, adopt

RED = picture("red")
CLIENTS = 8
ADMIN = {"Authorization": "Bearer open sesame"}
PNG = {"Content-Type": "image/png"}

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """A folder of models: version 1, 2, 3 of `steady` call everything by the name of another class."""
    root = tmp_path_factory.mktemp("answering")
    for number in (1, 2, 3):
        always(root / f"{number}.onnx", number - 1)
        adopt(Arguments(root / f"{number}.onnx", root / "models" / "steady" / str(number), CLASSES))
    return root / "models"


@contextlib.contextmanager
def server(models, tmp_path, **settings):
    """Address and process of a server with an admin key and models of its own."""
    copied = shutil.copytree(models, tmp_path / "models")
    keys = add_keys(tmp_path / "keys.toml")
    log = tmp_path / "log"
    with (
        running(copied, tmp_path / "home", log, FSR_KEYS=str(keys), FSR_THREADS="1", **settings) as started,
        httpx.Client(timeout=100, headers=ADMIN) as client,
    ):
        wait_for(lambda: len(workers(client, started[0])) == int(settings.get("FSR_WORKERS", 1)))
        yield *started, client
    assert "Traceback" not in log.read_text()


def workers(client, address):
    """What each worker that has said so serves."""
    (model,) = client.get(f"{address}/admin/models").json()["models"]
    return [worker for worker in model["workers"] if worker["version"] is not None]


def processes(server):
    """The worker processes that run."""
    children = psutil.Process(server.pid).children()
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "worker.service" in " ".join(child.cmdline())]


def metric(client, address, name):
    """Sum of the values of a metric."""
    text = client.get(f"{address}/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def total(seen, name):
    return sum((getattr(each, name) for each in seen), Counter())


def test_sigterm_under_load_loses_no_request(answering, tmp_path):
    with server(answering, tmp_path, FSR_WORKERS="2", FSR_DRAIN_SECONDS="4") as (address, process, _):
        with load_of(address, RED, CLIENTS, ADMIN) as (seen, stop):
            time.sleep(2)
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: httpx.get(f"{address}/readyz").status_code == 503)
            during = total(seen, "statuses")[200]
            time.sleep(2)  # clients do not hear of it at once
            assert total(seen, "statuses")[200] > during, "requests go on while it drains"
            stop.set()
        assert process.wait(timeout=60) == 0
    assert sum(each.lost for each in seen) == 0
    assert set(total(seen, "statuses")) == {200}


def test_a_killed_worker_takes_only_what_was_in_flight_there_and_comes_back(answering, tmp_path):
    with server(answering, tmp_path, FSR_WORKERS="2") as (address, process, client):
        with load_of(address, RED, CLIENTS, ADMIN) as (seen, _):
            time.sleep(2)
            victim = processes(process)[0]
            connections = len([each for each in victim.net_connections() if each.status == "ESTABLISHED"])
            victim.kill()
            wait_for(lambda: len(processes(process)) == 2 and len(workers(client, address)) == 2)
            time.sleep(2)
        lost = sum(each.lost for each in seen)
        statuses = total(seen, "statuses")
        assert lost <= connections
        assert max(each.lost for each in seen) <= 1, "one client loses one request: its next one is answered"
        assert set(statuses) == {200}
        assert statuses[200] <= metric(client, address, "fsr_images_total") <= statuses[200] + lost
        assert metric(client, address, "fsr_queue_images") == 0
        assert metric(client, address, "fsr_model_info") == 2
    print(f"{lost} lost of {statuses[200] + lost}; {connections} connections at the worker that was killed")


def test_a_worker_whose_session_hangs_ends_and_another_takes_its_place(tmp_path):
    hanging(tmp_path / "hanging.onnx")
    adopt(Arguments(tmp_path / "hanging.onnx", tmp_path / "made" / "hanging" / "1", CLASSES))
    limits = {"FSR_UNREADY_SECONDS": "1", "FSR_REQUEST_TIMEOUT_MS": "1000"}
    with server(tmp_path / "made", tmp_path, **limits) as (address, process, client):
        (hung,) = processes(process)
        answer = client.post(f"{address}/classify", content=picture("white"), headers=PNG)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        hung.wait(timeout=60)
        wait_for(lambda: len(workers(client, address)) == 1)
        assert client.get(f"{address}/readyz").status_code == 200
        assert client.post(f"{address}/classify", content=RED, headers=PNG).status_code == 200
        assert metric(client, address, "fsr_unready_workers") == 0
    assert "not ready for" in (tmp_path / "log").read_text()


def test_two_hundred_swaps_under_load_fail_nothing_and_name_no_wrong_version(answering, tmp_path):
    swaps = 200

    def names_its_own_class(answer):
        return answer["predictions"][0]["label"] == CLASSES[answer["model"]["version"] - 1]

    with server(answering, tmp_path, FSR_WORKERS="4") as (address, process, client):
        metrics_lines = len(client.get(f"{address}/metrics").text.splitlines())
        started = {child.pid for child in processes(process)}
        with load_of(address, RED, CLIENTS, ADMIN, names_its_own_class) as (seen, _):
            time.sleep(1)
            for swap in range(swaps):
                version = swap % 3 + 1
                answer = client.post(f"{address}/admin/models/steady/load", json={"version": version})
                assert answer.status_code == 200, answer.text
                assert answer.json()["workers"] == 4
                for _ in range(4):
                    answer = client.post(f"{address}/classify", content=RED, headers=PNG)
                    assert answer.json()["model"]["version"] == version, "after the call every worker serves it"
        assert {child.pid for child in processes(process)} == started
        assert len(client.get(f"{address}/metrics").text.splitlines()) < metrics_lines + 150
        assert metric(client, address, "fsr_model_info") == 4
    assert sum(each.lost for each in seen) == 0
    assert set(total(seen, "statuses")) == {200}
    assert not [each.wrong for each in seen if each.wrong]
    assert set(total(seen, "versions")) == {1, 2, 3}
    print(f"{swaps} swaps, {total(seen, 'statuses')[200]} requests, 4 workers")


@pytest.mark.parametrize("spoil", [damage, truncate])
def test_a_spoilt_version_is_refused_under_load_and_the_old_one_serves_on(answering, tmp_path, spoil):
    with server(answering, tmp_path, FSR_WORKERS="2") as (address, _, client):
        with load_of(address, RED, CLIENTS, ADMIN) as (seen, _):
            spoil(tmp_path / "models" / "steady" / "2")
            answer = client.post(f"{address}/admin/models/steady/load", json={"version": 2})
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "bad_version")
            time.sleep(1)
        assert {worker["version"] for worker in workers(client, address)} == {3}
    assert set(total(seen, "versions")) == {3}
    assert sum(each.lost for each in seen) == 0


def test_after_a_storm_of_disconnects_the_queue_is_empty_and_nothing_was_computed_for_those_gone(tmp_path):
    always(tmp_path / "slow.onnx", 0, matrices=40)
    adopt(Arguments(tmp_path / "slow.onnx", tmp_path / "made" / "slow" / "1", CLASSES))
    storm = 400
    limits = {"FSR_MAX_BATCH_IMAGES": "1", "FSR_MAX_QUEUE_IMAGES": "1000", "FSR_REQUEST_TIMEOUT_MS": "60000"}
    with server(tmp_path / "made", tmp_path, **limits) as (address, _, client):
        port = int(address.rpartition(":")[2])
        before = metric(client, address, "fsr_images_total")
        computed = metric(client, address, "fsr_batch_images_count")
        head = "POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        head += f"Authorization: Bearer open sesame\r\nContent-Length: {len(RED)}\r\n\r\n"
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(storm)]
        for each in sockets:
            each.sendall(head.encode() + RED)
        wait_for(lambda: metric(client, address, "fsr_queue_images") > storm / 2)
        for each in sockets:
            each.close()
        wait_for(lambda: metric(client, address, "fsr_queue_images") == 0)
        answer = client.post(f"{address}/classify", content=RED, headers=PNG)
        assert answer.status_code == 200
        answered = metric(client, address, "fsr_images_total") - before
        computed = metric(client, address, "fsr_batch_images_count") - computed
        cancelled = metric(client, address, "fsr_cancelled_total")
    assert cancelled + answered >= storm / 2
    assert computed <= answered + 2, "at most the batch that ran and the one put together beside it"
    print(f"of {storm} requests {answered - 1:.0f} were answered before their clients left, {cancelled:.0f} cancelled")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk):
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0


def test_a_full_disk_under_the_metrics_kills_no_worker(answering, tmp_path, small_disk):
    with server(answering, tmp_path, TMPDIR=str(small_disk)) as (address, process, client):
        (worker,) = processes(process)
        fill(small_disk)
        with load_of(address, RED, CLIENTS, ADMIN) as (seen, _):
            time.sleep(3)
            answer = client.post(f"{address}/classify", json=as_json(RED, b"garbage"))
            assert answer.status_code == 200
            swap = client.post(f"{address}/admin/models/steady/load", json={"version": 1})
            assert swap.status_code == 200, "the state folder is elsewhere"
        assert [child.pid for child in processes(process)] == [worker.pid]
        assert metric(client, address, "fsr_images_total") == total(seen, "statuses")[200] + 1
    assert sum(each.lost for each in seen) == 0


def test_a_full_disk_under_the_state_folder_refuses_a_load_and_serves_on(answering, tmp_path, small_disk):
    with server(answering, tmp_path, FSR_STATE=str(small_disk / "state")) as (address, _, client):
        fill(small_disk)
        answer = client.post(f"{address}/admin/models/steady/load", json={"version": 1})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_unwritable")
        assert {worker["version"] for worker in workers(client, address)} == {3}
