"""?evidence=true: what the checks say beside the answer, to whom, and what operators see of it."""

import asyncio
import base64
import hashlib
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import CLASSES, as_form, colour, encoded, picture
from PIL import Image
from starlette.testclient import TestClient
from versions import ADMIN, PNG, add_keys

from export.checking import Arguments, calibrate
from fsr_serve.checks.calibration import CHECKS, Calibration
from fsr_serve.errors import ArtifactError, RejectedError
from fsr_serve.http.app import create_app
from fsr_serve.requester import Requester
from fsr_serve.server import Server
from fsr_serve.settings import Settings
from fsr_serve.workers import Worker, make_folder

SOMEBODY = Requester("1", None)
RATE = 0.05
"""Of false alarms; 150 images calibrate, so 0.01 is too low for four checks."""
ASKED = {"params": {"evidence": "true"}, "headers": PNG | ADMIN}


@pytest.fixture(scope="module")
def calibrated(models, tiny_data, tmp_path_factory):
    """A folder of models with version 1 of `colours`, calibrated."""
    root = tmp_path_factory.mktemp("calibrated")
    version = shutil.copytree(models / "colours" / "1", root / "colours" / "1")
    options = {"split": "train", "images": 300, "attacked": 10, "searched": 4, "queries": 20, "threads": 1}
    calibrate(Arguments(version, str(tiny_data), **options))
    return root


@pytest.fixture
def start(calibrated, tmp_path):
    """Starts a server of the calibrated model, with keys and these settings."""

    def start(**options):
        options = {"checks": tuple(CHECKS), "keys": add_keys(tmp_path / "keys.toml"), "max_images": 8} | options
        options = {"false_alarm_rate": RATE} | options
        return Server.start(Settings(models=calibrated, threads=1, **options), Worker(make_folder()))

    return start


def ask(server, image=None, **options):
    with TestClient(create_app(lambda: server)) as client:
        return client.post("/classify", content=image or picture("red"), **(ASKED | options))


def infer(server, image):
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(image).decode()]}
    with TestClient(create_app(lambda: server), headers=ADMIN) as client:
        return client.post("/v2/models/colours/infer", json={"inputs": [tensor]}).status_code


def evidence_of(response):
    assert response.status_code == 200, response.text
    return [prediction["evidence"] for prediction in response.json()["predictions"]]


def sample(server, name, **labels):
    return server.scraped.get_sample_value(name, labels) or 0


def test_evidence_says_how_unusual_the_image_is_by_each_check(start):
    response = ask(start())
    (evidence,) = evidence_of(response)
    assert evidence.keys() == {"is_suspicious", "false_alarm_rate", "checks", "mask_mass", "heads"}
    assert evidence["false_alarm_rate"] == RATE
    assert evidence["checks"].keys() == set(CHECKS)
    for check in evidence["checks"].values():
        assert 0 < check["p_value"] <= 1
        assert check["is_suspicious"] == (check["p_value"] <= RATE / len(CHECKS))
    assert evidence["is_suspicious"] == any(check["is_suspicious"] for check in evidence["checks"].values())
    assert 0 <= evidence["mask_mass"] <= 1
    assert evidence["heads"].keys() == {"robust", "nonrobust", "recalibrated"}
    for head in evidence["heads"].values():
        assert CLASSES[head["class_index"]] == head["label"]
    assert "checks" in response.json()["seconds"]


@pytest.mark.parametrize("check", ["confidence", "separation", "probe"])
def test_p_values_of_images_like_those_of_the_calibration_are_evenly_spread(start, check):
    random = np.random.default_rng(3)
    images = [encoded(Image.fromarray(colour(random, index % 3))) for index in range(48)]
    server = start(checks=(check,))
    with TestClient(create_app(lambda: server), headers=ADMIN) as client:
        p_values = [
            evidence["checks"][check]["p_value"]
            for first in range(0, len(images), 8)
            for evidence in evidence_of(
                client.post("/classify?evidence=true", files=as_form(*images[first : first + 8]))
            )
        ]
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.2), "five standard deviations of 48"


def test_without_asking_there_is_no_evidence(start):
    server = start()
    for response in (ask(server, params={}), ask(server, params={"evidence": "false"})):
        assert "evidence" not in response.json()["predictions"][0]
        assert "checks" not in response.json()["seconds"]


def test_a_stream_of_variants_becomes_suspicious_whoever_sends_them(start):
    server, random = start(checks=("history",)), np.random.default_rng(0)
    grey = np.full((16, 16, 3), 120)
    verdicts = []
    for index in range(12):
        variant = encoded(Image.fromarray((grey + random.integers(-8, 9, grey.shape)).astype(np.uint8)))
        if index % 3 == 2:
            ask(server, variant, params={})  # nobody asks about these, and they count all the same
        elif index % 3 == 1:
            assert infer(server, variant) == 200
        else:
            verdicts += evidence_of(ask(server, variant))
    assert not verdicts[0]["is_suspicious"]
    assert verdicts[-1]["is_suspicious"]
    assert verdicts[-1].keys() == {"is_suspicious", "false_alarm_rate", "checks"}
    assert sample(server, "fsr_check_p_value_count", check="history") == 12
    assert 0 < sample(server, "fsr_suspicious_images_total", check="history") < 12


def test_evidence_needs_a_key_for_it(start, tmp_path):
    server = start()
    assert ask(server, headers=PNG).status_code == 401
    assert ask(start(keys=None), headers=PNG).json()["error"]["code"] == "no_keys"
    digest = hashlib.sha256(b"plain").hexdigest()
    (tmp_path / "plain.toml").write_text(f'[keys.plain]\nsha256 = "{digest}"\nscopes = ["infer"]\n')
    plain = start(keys=tmp_path / "plain.toml")
    response = ask(plain, headers=PNG | {"Authorization": "Bearer plain"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "missing_scope")
    assert sample(plain, "fsr_check_p_value_count", check="history") == 0


def test_evidence_counts_once_against_the_rate_of_a_key(start, tmp_path):
    digest = hashlib.sha256(b"open sesame").hexdigest()
    lines = f'[keys.two]\nsha256 = "{digest}"\nscopes = ["infer", "evidence"]\nrequests_per_second = 2\n'
    (tmp_path / "two.toml").write_text(lines)
    server = start(keys=tmp_path / "two.toml", checks=("history",))
    assert [ask(server).status_code for _ in range(2)] == [200, 200]


def test_a_server_without_checks_says_so(start):
    response = ask(start(checks=()))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "no_checks")
    assert "FSR_CHECKS" in response.json()["error"]["message"]


@pytest.mark.parametrize("value", ["yes", "1", "", "TRUE"])
def test_evidence_is_true_or_false(start, value):
    response = ask(start(checks=()), params={"evidence": value})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"evidence is {value!r}; expected true or false"


@pytest.mark.parametrize(("share", "checked"), [(1, 4), (0, 1)])
def test_a_share_of_what_nobody_asked_about_is_watched(start, share, checked):
    server = start(check_share=share)
    with TestClient(create_app(lambda: server), headers=ADMIN | PNG) as client:
        for _ in range(3):
            client.post("/classify", content=picture("blue"))
            while server.classifier._checker._unasked:
                time.sleep(0.01)
        client.post("/classify", content=picture("red"), params={"evidence": "true"})
    for check in ("confidence", "separation", "probe"):
        assert sample(server, "fsr_check_p_value_count", check=check) == checked


def test_what_is_watched_gives_way_to_what_is_asked_and_waits_for_nothing(start, monkeypatch):
    server = start(check_share=1, max_check_images=8)
    checker = server.classifier._checker
    observe, begun, go_on = checker._observer.observe, threading.Event(), threading.Event()

    def held_up(images):
        begun.set()
        assert go_on.wait(60)
        return observe(images)

    monkeypatch.setattr(checker._observer, "observe", held_up)
    images = np.zeros((24, 3, 16, 16), np.uint8)

    async def ask():
        deadline = asyncio.get_running_loop().time() + 60
        checker.watch(images, deadline, SOMEBODY)  # 8 at a time
        await asyncio.to_thread(begun.wait, 60)
        checker.watch(images[:1], deadline, SOMEBODY)  # while another is watched
        with checker.room(8):
            go_on.set()
            evidence = await checker.check(images[:8], [{}] * 8, deadline, SOMEBODY)
        await asyncio.gather(*checker._unasked)
        return evidence

    assert len(asyncio.run(ask())) == 8
    assert sample(server, "fsr_unchecked_images_total") == 1 + 16


def test_more_than_may_wait_are_refused_and_late_ones_too(start):
    checker = start(max_check_images=8).classifier._checker
    images = np.zeros((9, 3, 16, 16), np.uint8)

    async def check(count, seconds):
        deadline = asyncio.get_running_loop().time() + seconds
        with checker.room(count):
            return await checker.check(images[:count], [{}] * count, deadline, SOMEBODY)

    with pytest.raises(RejectedError, match="at most 8 may, with these 9") as refused:
        asyncio.run(check(9, 60))
    assert (refused.value.status, refused.value.code) == (429, "checks_busy")
    with pytest.raises(RejectedError) as late:
        asyncio.run(check(8, 0))
    assert (late.value.status, late.value.code) == (504, "deadline_exceeded")
    assert len(asyncio.run(check(8, 60))) == 8


def test_what_the_checks_have_no_time_for_is_refused_before_any_work(start):
    server = start(max_check_images=8)
    with server.classifier._checker.room(8):
        response = ask(server)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "checks_busy")
    assert not sample(server, "fsr_images_total")
    assert ask(server).status_code == 200, "the room is given back"


def test_others_are_answered_while_the_history_looks(start, monkeypatch):
    checker = start(checks=("history",)).classifier._checker
    count, go_on = checker._history.count, threading.Event()
    monkeypatch.setattr(checker._history, "count", lambda images: go_on.wait(60) and count(images))

    async def remember():
        looking = asyncio.create_task(checker.remember(np.zeros((1, 3, 16, 16), np.uint8), SOMEBODY))
        await asyncio.sleep(0)
        assert not looking.done()
        go_on.set()
        return await looking

    assert len(asyncio.run(remember())) == 1


def test_what_waits_for_the_history_is_bounded_as_what_waits_for_the_model(start, monkeypatch):
    server = start(checks=("history",), max_queue_images=8)
    history, begun, go_on = server.classifier._checker._history, threading.Event(), threading.Event()
    monkeypatch.setattr(history, "count", lambda images: begun.set() or (go_on.wait(60) and np.ones(len(images))))
    with ThreadPoolExecutor(1) as thread, TestClient(create_app(lambda: server), headers=ADMIN) as client:
        waiting = thread.submit(client.post, "/classify", files=as_form(*[picture("red")] * 8))
        assert begun.wait(60)
        assert sample(server, "fsr_queue_images") == 8
        assert client.post("/classify", content=picture("red"), headers=PNG).json()["error"]["code"] == "queue_full"
        go_on.set()
        assert waiting.result().status_code == 200
        go_on.clear()
        late = client.post("/classify", content=picture("red"), headers=PNG | {"X-Request-Timeout-Ms": "50"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        go_on.set()
    assert sample(server, "fsr_queue_images") == 0
    assert sample(server, "fsr_images_total") == 8, "what is late is not computed"


def test_the_log_says_whose_images_look_suspicious(start, caplog):
    server = start(checks=("history",), false_alarm_rate=0.9)
    for value in range(100, 104):
        ask(server, encoded(Image.new("RGB", (16, 16), (value, value, value))))
    (line,) = [record.message for record in caplog.records if "suspicious" in record.message]
    assert re.fullmatch(
        r"findings of suspicious images since the last such line: 1 \(1 of key 'boss'\); by check: history 1; "
        r"the latest in request [0-9a-f]{32}",
        line,
    )


@pytest.mark.parametrize(("rate", "is_suspicious"), [(0.079, False), (0.08, True)])
def test_together_the_checks_raise_no_more_false_alarms_than_one_may(start, monkeypatch, rate, is_suspicious):
    monkeypatch.setattr(Calibration, "p_values", lambda self, check, signals: np.full(1, 0.0199))
    (evidence,) = evidence_of(ask(start(false_alarm_rate=rate)))
    assert [check["is_suspicious"] for check in evidence["checks"].values()] == [is_suspicious] * len(CHECKS)
    assert evidence["is_suspicious"] == is_suspicious


def test_a_rate_at_which_nothing_could_be_found_does_not_start(start):
    with pytest.raises(ArtifactError, match=r"FSR_FALSE_ALARM_RATE is 0\.001 for 4 checks.*Expected at least 0\.0265"):
        start(false_alarm_rate=0.001)
