"""Where a signature is required, a version is served as its owner signed it, or not at all."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from servers import serving
from versions import ADMIN, add_keys

from export.changing import being_changed, write_manifest
from export.signing import main, sign
from fsr_serve.artifact import read_version
from fsr_serve.errors import SignatureError, StartupError
from fsr_serve.server import Server
from fsr_serve.settings import Settings
from fsr_serve.signature import verify_files, verify_signature
from fsr_serve.workers import Worker, make_folder


def key_pair(folder, name):
    private = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / f"{name}.pub").write_bytes(
        private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return folder / f"{name}.pem", folder / f"{name}.pub"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """private, public, and the public key of somebody else"""
    folder = tmp_path_factory.mktemp("keys")
    return *key_pair(folder, "ours"), key_pair(folder, "other")[1]


@pytest.fixture
def signed(models, tmp_path, keys):
    version = shutil.copytree(models / "colours" / "1", tmp_path / "models" / "colours" / "1")
    sign(version, keys[0])
    return version


def start(version, public_key):
    settings = Settings(models=version.parent.parent, require_signature=public_key, threads=1)
    return Server.start(settings, Worker(make_folder()))


def test_a_server_that_requires_a_signature_starts_with_a_signed_version(signed, keys):
    assert start(signed, keys[1]).classifier.version.version == 1


def test_a_signed_version_is_served_without_the_requirement_too(signed):
    assert start(signed, None).classifier.version.version == 1


def test_an_unsigned_version_is_refused_with_the_command_that_signs_it(signed, keys):
    (signed / "model.sig").unlink()
    with pytest.raises(SignatureError, match=r"is not signed; FSR_REQUIRE_SIGNATURE asks .* python -m export.sign"):
        start(signed, keys[1])


def test_a_version_signed_by_another_key_is_refused(signed, keys):
    with pytest.raises(SignatureError, match="is not what the owner of .*other.pub signed"):
        start(signed, keys[2])


@pytest.mark.parametrize("name", ["model.onnx", "weights.data", "manifest.json", "manifest.sha256", "model.sig"])
def test_one_changed_byte_anywhere_is_refused(signed, keys, name):
    content = bytearray((signed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (signed / name).write_bytes(content)
    with pytest.raises(StartupError):
        start(signed, keys[1])
    with pytest.raises(SignatureError, match="is not what the owner of"):
        verify_files(signed, keys[1])


def test_a_manifest_rewritten_with_its_digest_is_still_refused(signed, keys):
    manifest = read_version(signed).manifest
    write_manifest(signed, manifest.model_copy(update={"classes": manifest.classes[::-1]}))
    assert start(signed, None).classifier.classes == manifest.classes[::-1], "hashes alone do not see it"
    with pytest.raises(SignatureError, match="is not what the owner of"):
        start(signed, keys[1])


def test_a_key_that_is_none_is_named(signed, tmp_path, keys):
    with pytest.raises(SignatureError, match="expected a file with a public key in PEM"):
        start(signed, tmp_path / "missing.pub")
    with pytest.raises(SignatureError, match="expected a file with a private key in PEM"):
        sign(signed, tmp_path / "missing.pem")
    with pytest.raises(SignatureError, match="cannot sign"):
        sign(signed, keys[1])
    verify_signature(read_version(signed), keys[1])


@pytest.mark.parametrize("place", ["colours/7", "others/1"])
def test_a_signed_version_in_another_folder_is_refused(signed, keys, place):
    """Else whoever may write there could serve an old version, or another model, under the greatest number."""
    moved = shutil.copytree(signed, signed.parent.parent / "elsewhere" / place)
    with pytest.raises(SignatureError, match=rf"{place} was signed as colours/1; expected {place}\. Move it back"):
        start(moved, keys[1])
    assert start(moved, None).classifier.version.place == place
    sign(moved, keys[0])
    assert start(moved, keys[1]).classifier.version.place == place


def test_what_cannot_be_signed_is_left_as_it_was(models, tmp_path, keys):
    version = shutil.copytree(models / "colours" / "1", tmp_path / "models" / "colours" / "1")
    before = read_version(version)
    with pytest.raises(SignatureError, match="cannot sign"):
        sign(version, keys[1])
    assert read_version(version) == before


def test_signing_waits_for_another_command_that_changes_the_version(models, tmp_path, keys):
    version = shutil.copytree(models / "colours" / "1", tmp_path / "models" / "colours" / "1")
    arguments = [str(version), "--key", str(keys[0])]
    with ThreadPoolExecutor() as pool:
        with being_changed(version) as present:
            signing = pool.submit(main, arguments)
            with pytest.raises(TimeoutError):
                signing.result(timeout=1)
            write_manifest(version, present.manifest.model_copy(update={"training": {"method": "new"}}))
        signing.result()
    verify_signature(read_version(version), keys[1])


def test_the_command_signs_and_the_running_server_says_what_is_wrong(models, tmp_path, keys):
    version = shutil.copytree(models / "colours" / "1", tmp_path / "models" / "colours" / "1")
    environment = os.environ | {"FSR_MODELS": str(tmp_path / "models"), "FSR_REQUIRE_SIGNATURE": str(keys[1])}

    def trial():
        command = [sys.executable, "-m", "fsr_serve.server"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    refused = trial()
    assert refused.returncode == 1
    assert "fsr-serve cannot start:" in refused.stderr
    assert "is not signed" in refused.stderr
    assert "Traceback" not in refused.stderr
    command = [sys.executable, "-m", "export.sign", str(version), "--key", str(keys[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{version}: signed\n")
    assert trial().returncode == 0


def test_a_running_server_loads_what_is_signed_and_says_what_is_wrong_with_the_rest(signed, tmp_path, keys):
    folder = signed.parent
    for number in (2, 3, 4):
        sign(shutil.copytree(signed, folder / str(number)), keys[0])
    (folder / "3" / "model.sig").unlink()
    content = bytearray((folder / "4" / "manifest.json").read_bytes())
    (folder / "4" / "manifest.json").write_bytes(content.replace(b'"height": 16', b'"height": 61'))
    settings = {"FSR_REQUIRE_SIGNATURE": str(keys[1]), "FSR_KEYS": str(add_keys(tmp_path / "keys.toml"))}
    (folder.parent / ".state").mkdir()
    (folder.parent / ".state" / "colours.json").write_text('{"version": 1}')
    with serving(folder.parent, tmp_path / "home", tmp_path / "log", **settings) as address:

        def load(number):
            url = f"{address}/admin/models/colours/load"
            answer = httpx.post(url, headers=ADMIN, json={"version": number}, timeout=100)
            return answer.status_code, answer.text

        status, text = load(2)
        assert (status, '"version":2' in text) == (200, True), text
        status, text = load(3)
        assert status == 409
        assert "colours/3 is not signed; FSR_REQUIRE_SIGNATURE asks" in text
        assert "Version 2 serves on" in text
        status, text = load(4)
        assert status == 409
        assert "manifest.json has SHA-256" in text
        assert httpx.get(f"{address}/readyz").json()["model"]["version"] == 2
