"""?evidence=true: what the checks say beside the answer, to whom, and what operators see of it."""

import hashlib
import re
import time

import numpy as np
import pytest
from checked import RATE, ask, evidence_of, infer, sample
from conftest import CLASSES, as_form, colour, encoded, picture
from PIL import Image
from starlette.testclient import TestClient
from versions import ADMIN, PNG

from fsr_serve.checks.calibration import CHECKS, Calibration
from fsr_serve.errors import ArtifactError
from fsr_serve.http.app import create_app


def test_evidence_says_how_unusual_the_image_is_by_each_check(start_checking):
    response = ask(start_checking())
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
def test_p_values_of_images_like_those_of_the_calibration_are_evenly_spread(start_checking, check):
    random = np.random.default_rng(3)
    images = [encoded(Image.fromarray(colour(random, index % 3))) for index in range(48)]
    server = start_checking(checks=(check,))
    with TestClient(create_app(lambda: server), headers=ADMIN) as client:
        p_values = [
            evidence["checks"][check]["p_value"]
            for first in range(0, len(images), 8)
            for evidence in evidence_of(
                client.post("/classify?evidence=true", files=as_form(*images[first : first + 8]))
            )
        ]
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.2), "five standard deviations of 48"


def test_without_asking_there_is_no_evidence(start_checking):
    server = start_checking()
    for response in (ask(server, params={}), ask(server, params={"evidence": "false"})):
        assert "evidence" not in response.json()["predictions"][0]
        assert "checks" not in response.json()["seconds"]


def test_a_stream_of_variants_becomes_suspicious_whoever_sends_them(start_checking):
    server, random = start_checking(checks=("history",)), np.random.default_rng(0)
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


def test_evidence_needs_a_key_for_it(start_checking, tmp_path):
    server = start_checking()
    assert ask(server, headers=PNG).status_code == 401
    assert ask(start_checking(keys=None), headers=PNG).json()["error"]["code"] == "no_keys"
    digest = hashlib.sha256(b"plain").hexdigest()
    (tmp_path / "plain.toml").write_text(f'[keys.plain]\nsha256 = "{digest}"\nscopes = ["infer"]\n')
    plain = start_checking(keys=tmp_path / "plain.toml")
    response = ask(plain, headers=PNG | {"Authorization": "Bearer plain"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "missing_scope")
    assert sample(plain, "fsr_check_p_value_count", check="history") == 0


def test_evidence_counts_once_against_the_rate_of_a_key(start_checking, tmp_path):
    digest = hashlib.sha256(b"open sesame").hexdigest()
    lines = f'[keys.two]\nsha256 = "{digest}"\nscopes = ["infer", "evidence"]\nrequests_per_second = 2\n'
    (tmp_path / "two.toml").write_text(lines)
    server = start_checking(keys=tmp_path / "two.toml", checks=("history",))
    assert [ask(server).status_code for _ in range(2)] == [200, 200]


def test_a_server_without_checks_says_so(start_checking):
    response = ask(start_checking(checks=()))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "no_checks")
    assert "FSR_CHECKS" in response.json()["error"]["message"]


@pytest.mark.parametrize("value", ["yes", "1", "", "TRUE"])
def test_evidence_is_true_or_false(start_checking, value):
    response = ask(start_checking(checks=()), params={"evidence": value})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"evidence is {value!r}; expected true or false"


@pytest.mark.parametrize(("share", "checked"), [(1, 4), (0, 1)])
def test_a_share_of_what_nobody_asked_about_is_watched(start_checking, share, checked):
    server = start_checking(check_share=share)
    with TestClient(create_app(lambda: server), headers=ADMIN | PNG) as client:
        for _ in range(3):
            client.post("/classify", content=picture("blue"))
            while server.classifier._checker._unasked:
                time.sleep(0.01)
        client.post("/classify", content=picture("red"), params={"evidence": "true"})
    for check in ("confidence", "separation", "probe"):
        assert sample(server, "fsr_check_p_value_count", check=check) == checked


def test_the_log_says_whose_images_look_suspicious(start_checking, caplog):
    server = start_checking(checks=("history",), false_alarm_rate=0.9)
    for value in range(100, 104):
        ask(server, encoded(Image.new("RGB", (16, 16), (value, value, value))))
    (line,) = [record.message for record in caplog.records if "suspicious" in record.message]
    assert re.fullmatch(
        r"findings of suspicious images since the last such line: 1 \(1 of key 'boss'\); by check: history 1; "
        r"the latest in request [0-9a-f]{32}",
        line,
    )


@pytest.mark.parametrize(("rate", "is_suspicious"), [(0.079, False), (0.08, True)])
def test_together_the_checks_raise_no_more_false_alarms_than_one_may(start_checking, monkeypatch, rate, is_suspicious):
    monkeypatch.setattr(Calibration, "p_values", lambda self, check, signals: np.full(1, 0.0199))
    (evidence,) = evidence_of(ask(start_checking(false_alarm_rate=rate)))
    assert [check["is_suspicious"] for check in evidence["checks"].values()] == [is_suspicious] * len(CHECKS)
    assert evidence["is_suspicious"] == is_suspicious


def test_a_rate_at_which_nothing_could_be_found_does_not_start(start_checking):
    with pytest.raises(ArtifactError, match=r"FSR_FALSE_ALARM_RATE is 0\.001 for 4 checks.*Expected at least 0\.0265"):
        start_checking(false_alarm_rate=0.001)
