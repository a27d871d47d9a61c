"""Keys: who may do what, changed without a restart."""

import hashlib
import os
from pathlib import Path

import pytest
from conftest import picture
from starlette.testclient import TestClient

from fsr_serve.errors import RequestError, SettingsError
from fsr_serve.http.app import create_app
from fsr_serve.keys import Keys
from fsr_serve.server import Server
from fsr_serve.workers import Worker, make_folder


def hash_of(secret):
    return hashlib.sha256(secret.encode()).hexdigest()


def entry(name, *scopes, **more):
    """A key whose secret is its name."""
    lines = [f"[keys.{name}]", f'sha256 = "{hash_of(name)}"', f"scopes = {list(scopes)}"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in more.items())]) + "\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text(entry("shop", "infer") + entry("prometheus", "metrics") + entry("operator", "admin", "evidence"))
    return path


def outcome(keys, secret, scope):
    """What a key is told: 200 or the status of its refusal."""
    try:
        keys.authorize(secret and f"Bearer {secret}", scope)
    except RequestError as error:
        return error.status
    return 200


def test_without_a_file_only_inference_and_metrics_are_open():
    keys = Keys(None)
    found = {scope: outcome(keys, None, scope) for scope in ("infer", "metrics", "evidence", "admin")}
    assert found == {"infer": 200, "metrics": 200, "evidence": 403, "admin": 403}


@pytest.mark.parametrize(
    ("secret", "allowed"),
    [("shop", {"infer"}), ("prometheus", {"metrics"}), ("operator", {"admin", "evidence"})],
)
def test_a_key_is_for_its_scopes_only(path, secret, allowed):
    keys = Keys(path)
    for scope in ("infer", "metrics", "evidence", "admin"):
        assert outcome(keys, secret, scope) == (200 if scope in allowed else 403)


def test_the_name_of_the_key_is_known_afterwards(path):
    assert Keys(path).authorize("Bearer operator", "admin") == "operator"
    assert Keys(None).authorize(None, "infer") is None


@pytest.mark.parametrize("secret", [None, "", "Shop", "shop2", "\xff", hash_of("shop")])
def test_no_other_text_is_a_key(path, secret):
    assert outcome(Keys(path), secret, "infer") == 401


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_key_is_the_bytes_that_its_hash_was_made_of(path, encoding):
    sent = "clé à".encode(encoding)
    path.write_text(entry("shop", "infer").replace(hash_of("shop"), hashlib.sha256(sent).hexdigest()))
    assert outcome(Keys(path), sent.decode("latin-1"), "infer") == 200
    assert outcome(Keys(path), sent[:-1].decode("latin-1"), "infer") == 401


def test_a_key_counts_only_as_a_bearer(path):
    with pytest.raises(RequestError, match="Authorization: Bearer KEY"):
        Keys(path).authorize("Basic shop", "infer")


def test_a_changed_file_counts_at_once(path):
    keys = Keys(path)
    path.write_text(entry("newcomer", "infer"))
    assert outcome(keys, "newcomer", "infer") == 200
    assert outcome(keys, "shop", "infer") == 401


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("[keys"), os.remove], ids=["broken", "gone"])
def test_a_file_that_becomes_unusable_leaves_the_keys_as_they_were(path, caplog, spoil):
    keys = Keys(path)
    spoil(path)
    assert [outcome(keys, secret, "infer") for secret in ("shop", None, "shop")] == [200, 401, 200]
    assert caplog.text.count("the keys read before stay in force") == 1


def test_a_file_that_could_not_be_read_is_tried_again(path, monkeypatch):
    keys = Keys(path)
    path.write_text(entry("newcomer", "infer"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda path: (_ for _ in ()).throw(OSError(24, "Too many open files")))
        assert outcome(keys, "shop", "infer") == 200
    assert outcome(keys, "shop", "infer") == 401, "it is not in the file any more"
    assert outcome(keys, "newcomer", "infer") == 200


def test_beyond_its_rate_a_key_is_told_when_to_come_back(path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("fsr_serve.keys.monotonic", lambda: now)
    path.write_text(entry("slow", "infer", requests_per_second=0.5) + entry("other", "infer"))
    keys = Keys(path)
    assert [outcome(keys, "slow", "infer") for _ in range(2)] == [200, 429]
    with pytest.raises(RequestError, match=r"'slow' has 0.5 requests a second") as error:
        keys.authorize("Bearer slow", "infer")
    assert error.value.retry_after_seconds == 2
    assert outcome(keys, "other", "infer") == 200
    now += 2
    assert [outcome(keys, "slow", "infer") for _ in range(2)] == [200, 429]


BAD = {
    "no file": (None, "No such file"),
    "no TOML": ("[keys", "cannot be used"),
    "no keys": ("", "keys: Field required"),
    "unknown scope": (entry("shop", "classify"), "'infer', 'evidence', 'admin' or 'metrics'"),
    "a secret instead of its hash": ('[keys.shop]\nsha256 = "shop"\nscopes = []\n', "sha256: String should match"),
    "hash of nothing": (entry("shop").replace(hash_of("shop"), hash_of("")), "hash of an empty text.*set KEY"),
    "unknown setting": (entry("shop", "infer", rate=3), "rate: Extra inputs"),
    "a key twice": (
        entry("shop", "infer") + entry("again", "admin").replace(hash_of("again"), hash_of("shop")),
        "shop and again have the same sha256",
    ),
    "rate of zero": (entry("shop", "infer", requests_per_second=0), "greater than 0"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_at_start_and_no_secret_shown(tmp_path, text, message):
    path = tmp_path / "keys.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=message) as error:
        Keys(path)
    assert "input_value" not in str(error.value)


def test_a_request_counts_as_the_key_that_it_comes_with(settings, path):
    server = Server.start(settings.model_copy(update={"keys": path}), Worker(make_folder()))
    body = {"content": picture("red"), "headers": {"Content-Type": "image/png"}}
    with TestClient(create_app(lambda: server)) as client:
        refused = client.post("/classify", **body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unknown_key")
        client.headers["Authorization"] = "Bearer shop"
        assert client.post("/classify", **body).status_code == 200
        assert client.get("/metrics").json()["error"]["code"] == "missing_scope"
