"""Which version serves is changed in every worker or in none, while requests go on."""

import logging
import re
import shutil
import threading

import httpx
import pytest
from conftest import picture
from servers import running
from versions import ADMIN, PNG, add_version, ask, load, rollback, served

from fsr_serve.server import Server
from fsr_serve.wanted import Wanted
from fsr_serve.workers import Worker, make_folder


@pytest.fixture
def server(several):
    return Server.start(several, Worker(make_folder()))


def test_the_greatest_version_serves_until_another_one_is_loaded(server):
    assert served(server) == 3
    answer = load(server, 1)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "name": "colours",
        "version": 1,
        "sha256": server.classifier.version.sha256,
        "previous": 3,
        "workers": 1,
    }
    assert served(server) == 1


def test_without_a_number_the_greatest_version_on_disk_is_loaded(server, several, models):
    add_version(models, several.models / "colours", 12)
    assert load(server).json()["version"] == 12


def test_every_worker_follows_before_the_call_returns(two):
    first, second = two
    assert load(first, 2).json()["workers"] == 2
    assert (served(first), served(second)) == (2, 2)


def test_a_worker_that_comes_later_starts_with_what_the_others_serve(several, models):
    folder = make_folder()
    first = Server.start(several, Worker(folder))
    add_version(models, several.models / "colours", 4)
    assert served(Server.start(several, Worker(folder))) == served(first) == 3


def test_what_was_loaded_serves_again_after_a_restart(server, several):
    load(server, 1)
    assert served(Server.start(several, Worker(make_folder()))) == 1


def test_the_state_file_may_be_written_by_hand(server, several):
    folder = several.models / ".state"
    folder.mkdir()
    (folder / "colours.json").write_text('{"version": 2}')
    server.registry.follow()
    assert served(server) == 2


def test_a_version_that_is_given_up_while_it_is_loaded_is_never_served(server, monkeypatch):
    registry = server.registry
    open_ = registry._open

    def give_up_meanwhile(path):
        registry.file.path.unlink()
        return open_(path)

    monkeypatch.setattr(registry, "_open", give_up_meanwhile)
    registry.file.write(Wanted(version=2))
    registry.follow()
    registry.follow()
    assert (served(server), registry.followed.previous) == (3, None)


def test_the_log_says_when_another_version_serves_and_which_key_asked(server, caplog):
    caplog.set_level(logging.INFO, "fsr_serve")
    request_id = load(server, 1).headers["X-Request-ID"]
    load(server)
    rollback(server)
    load(server, 1)
    server.registry.file.path.write_text('{"version": 2}')
    server.registry.follow()
    said = [record.message for record in caplog.records if record.name == "fsr_serve"]
    assert said[0] == f"the key 'boss' asks to load version 1, in request {request_id}"
    assert [re.sub(", in request .*", "", line) for line in said[1:]] == [
        "version 1 of colours serves instead of 3",
        "the key 'boss' asks to load the greatest version",
        "version 3 of colours serves instead of 1",
        "the key 'boss' asks to roll back",
        "version 1 of colours serves instead of 3",
        "the key 'boss' asks to load version 1",
        "version 2 of colours serves instead of 1",
    ]


def test_the_log_of_a_server_has_these_lines(several, tmp_path):
    log = tmp_path / "log"
    with running(several.models, tmp_path / "home", log, FSR_KEYS=str(several.keys)) as (address, _):
        httpx.post(f"{address}/admin/models/colours/load", json={"version": 2}, headers=ADMIN, timeout=100)
    assert "the key 'boss' asks to load version 2, in request " in log.read_text()
    assert "version 2 of colours serves instead of 3" in log.read_text()


@pytest.mark.parametrize("number", [None, 1])
def test_a_load_when_the_versions_are_gone_from_disk_is_not_found(server, several, number):
    for version in (several.models / "colours").iterdir():
        shutil.rmtree(version)
    answer = load(server, number)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_version")
    assert f"{several.models}/colours holds no version of 'colours'" in answer.json()["error"]["message"]
    assert served(server) == 3


def test_two_calls_at_once_do_not_mix(two, monkeypatch):
    opening, go_on = threading.Event(), threading.Event()
    open_ = two[0].registry._open

    def slowly(path):
        opening.set()
        go_on.wait()
        return open_(path)

    monkeypatch.setattr(two[0].registry, "_open", slowly)
    answers = []
    first = threading.Thread(target=lambda: answers.append(load(two[0], 1)))
    first.start()
    opening.wait()
    second = load(two[1], 2)
    go_on.set()
    first.join()
    assert (second.status_code, second.json()["error"]["code"]) == (409, "busy")
    assert answers[0].json()["version"] == 1


def test_a_request_may_name_the_model_and_the_version_it_means(server):
    assert served(server, model="colours", version="3") == 3
    for query, code in (({"version": "1"}, "unknown_version"), ({"model": "cats"}, "unknown_model")):
        answer = ask(server, "POST", "/classify", params=query, content=picture("red"), headers=PNG)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)


def test_the_admin_sees_what_serves_and_what_could(two):
    load(two[0], 1)
    (found,) = ask(two[1], "GET", "/admin/models").json()["models"]
    assert found == {
        "name": "colours",
        "version": 1,
        "sha256": two[0].classifier.version.sha256,
        "previous": 3,
        "available": [1, 2, 3],
        "workers": [{"worker": 0, "version": 1, "error": None}, {"worker": 1, "version": 1, "error": None}],
    }


BAD_CALLS = {
    "unknown version": ("load", {"json": {"version": 9}}, 404, "expected one of 1, 2, 3"),
    "version as text": ("load", {"json": {"version": "2"}}, 400, 'expected {"version": NUMBER}'),
    "negative version": ("load", {"json": {"version": -1}}, 400, 'expected {"version": NUMBER}'),
    "misspelt": ("load", {"json": {"vresion": 2}}, 400, 'expected {"version": NUMBER}'),
    "no JSON": ("load", {"content": b"\xff"}, 400, 'expected {"version": NUMBER}'),
    "too long": ("load", {"content": b" " * 5000}, 413, "4096"),
    "rollback with a body": ("rollback", {"json": {"version": 1}}, 400, "expected an empty body"),
}


@pytest.mark.parametrize(("call", "options", "status", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_is_a_4xx_that_says_what_is_expected(server, call, options, status, message):
    answer = ask(server, "POST", f"/admin/models/colours/{call}", **options)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert served(server) == 3


def test_another_model_is_not_found(server):
    for call in ("load", "rollback"):
        answer = ask(server, "POST", f"/admin/models/cats/{call}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_model")


def test_metrics_name_only_the_versions_that_serve(two):
    for number in (1, 2, 3, 1):
        load(two[0], number)
    text = ask(two[0], "GET", "/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("fsr_model_info{")]
    assert 'version="1"' in line
    assert line.endswith(" 2.0"), "two workers"
