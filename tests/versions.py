"""A model with several versions, servers of it, and the calls that change which one serves."""

import hashlib
import json
import os
import shutil

import pytest
from conftest import picture
from starlette.testclient import TestClient

from fsr_serve.http.app import create_app
from fsr_serve.server import Server
from fsr_serve.workers import Worker, make_folder

ADMIN = {"Authorization": "Bearer open sesame"}
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def several(settings, models, tmp_path):
    """Settings for a folder of models with the versions 1, 2 and 3, which differ in their manifests only."""
    folder = tmp_path / "models" / "colours"
    for number in (1, 2, 3):
        add_version(models, folder, number)
    keys = add_keys(tmp_path / "keys.toml")
    return settings.model_copy(update={"models": folder.parent, "keys": keys, "threads": 1, "max_batch_images": 2})


def add_keys(path):
    """A file with the key "open sesame" for everything."""
    digest = hashlib.sha256(b"open sesame").hexdigest()
    path.write_text(f'[keys.boss]\nsha256 = "{digest}"\nscopes = ["admin", "evidence", "infer", "metrics"]\n')
    return path


def add_version(models, folder, number):
    version = shutil.copytree(models / "colours" / "1", folder / str(number))
    change_manifest(version, training={"copy": number})
    return version


def change_manifest(version, **fields):
    manifest = json.loads((version / "manifest.json").read_text()) | fields
    content = json.dumps(manifest).encode()
    (version / "manifest.json").write_bytes(content)
    (version / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def damage(version):
    content = bytearray((version / "model.onnx").read_bytes())
    content[100] ^= 1
    (version / "model.onnx").write_bytes(content)


def truncate(version):
    os.truncate(version / "model.onnx", 100)


def ask(server, method, path, **options):
    with TestClient(create_app(lambda: server), headers=ADMIN) as client:
        return client.request(method, path, **options)


def load(server, number=None):
    return ask(server, "POST", "/admin/models/colours/load", json={} if number is None else {"version": number})


def rollback(server):
    return ask(server, "POST", "/admin/models/colours/rollback")


def served(server, **query):
    answer = ask(server, "POST", "/classify", params=query, content=picture("red"), headers=PNG).json()
    return answer["model"]["version"]


@pytest.fixture
def two(several):
    """Two workers of one server, the second with a thread that watches."""
    folder = make_folder()
    first, second = (Server.start(several, Worker(folder)) for _ in range(2))
    stop = second.registry.follow_always()
    yield first, second
    stop.set()
