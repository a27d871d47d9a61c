"""A server with checks, and a client that asks it for evidence."""

import base64
import shutil

import pytest
from conftest import picture
from starlette.testclient import TestClient
from versions import ADMIN, PNG, add_keys

from export.checking import Arguments, calibrate
from fsr_serve.checks.calibration import CHECKS
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
def start_checking(calibrated, tmp_path):
    """Starts a server of the calibrated model, with keys and these settings."""

    def start_checking(**options):
        options = {"checks": tuple(CHECKS), "keys": add_keys(tmp_path / "keys.toml"), "max_images": 8} | options
        options = {"false_alarm_rate": RATE} | options
        return Server.start(Settings(models=calibrated, threads=1, **options), Worker(make_folder()))

    return start_checking


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
