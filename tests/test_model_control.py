"""Which version serves is changed in every worker or in none, while requests go on."""

import logging
import os
import re
import shutil
import threading

import httpx
import pytest
from conftest import CLASSES, picture
from test_serve import running
from versions import ADMIN, PNG, add_version, ask, change_manifest, load, rollback, served

from fsr_serve.errors import StartupError, StateError
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
        registry.file.write(None)
        return open_(path)

    monkeypatch.setattr(registry, "_open", give_up_meanwhile)
    registry.file.write(Wanted(version=2))
    registry.follow()
    registry.follow()
    assert (served(server), registry.previous) == (3, None)


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


def damage(version):
    content = bytearray((version / "model.onnx").read_bytes())
    content[100] ^= 1
    (version / "model.onnx").write_bytes(content)


def truncate(version):
    os.truncate(version / "model.onnx", 100)


def unlist(version):
    (version / "extra.txt").write_text("not in the manifest")


def empty(version):
    shutil.rmtree(version)
    version.mkdir()


@pytest.mark.parametrize("spoil", [damage, truncate, unlist, empty])
def test_a_bad_version_changes_nothing_and_says_why(two, several, spoil):
    spoil(several.models / "colours" / "2")
    answer = load(two[0], 2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "bad_version")
    assert "colours/2" in answer.json()["error"]["message"]
    assert "Version 3 serves on" in answer.json()["error"]["message"]
    assert [served(server) for server in two] == [3, 3]
    assert not (several.models / ".state").exists()


def test_when_one_worker_cannot_load_it_all_go_back(two, several, monkeypatch):
    def fail(path):
        raise StartupError("there is no memory left")

    monkeypatch.setattr(two[1].registry, "_open", fail)
    answer = load(two[0], 2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "bad_version")
    assert "no memory left" in answer.json()["error"]["message"]
    assert [served(server) for server in two] == [3, 3]
    assert served(Server.start(several, Worker(make_folder()))) == 3


def test_when_one_worker_is_silent_all_go_back(two, several, monkeypatch):
    silent = Worker(two[0].registry._worker.folder)
    with monkeypatch.context() as impatient:
        impatient.setattr("fsr_serve.model_control.FOLLOW_SECONDS", 0.5)
        answer = load(two[0], 2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "workers_did_not_follow")
    assert served(two[0]) == 3
    silent.leave()
    assert load(two[0], 2).status_code == 200, "a worker that is gone is not waited for"


def test_a_state_folder_that_cannot_be_written_changes_nothing(several, tmp_path):
    (tmp_path / "no folder").write_text("")
    server = Server.start(several.model_copy(update={"state": tmp_path / "no folder" / "state"}), Worker(make_folder()))
    answer = load(server, 1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_unwritable")
    assert "FSR_STATE" in answer.json()["error"]["message"]
    assert served(server) == 3
    assert server.registry._candidate is None, "what was loaded in vain takes no memory"


def test_a_broken_state_file_stops_a_start_and_not_a_server(server, several, caplog):
    load(server, 1)
    (several.models / ".state" / "colours.json").write_text("{")
    for _ in range(3):
        server.registry.follow()
    assert served(server) == 1
    assert sum("cannot be read" in record.message for record in caplog.records) == 1, "the log is not flooded"
    with pytest.raises(StateError, match=r"colours.json cannot be read"):
        Server.start(several, Worker(make_folder()))


def test_a_version_that_was_replaced_is_not_served_in_the_place_of_the_one_that_was_loaded(server, several):
    load(server, 2)
    change_manifest(several.models / "colours" / "2", classes=CLASSES[::-1])
    with pytest.raises(StartupError, match=r"it was replaced.*or remove .*/\.state/colours\.json"):
        Server.start(several, Worker(make_folder()))
    assert load(server, 2).status_code == 200, "asked for again, it is what is there now"
    assert served(server) == 2


def test_a_version_that_was_measured_since_it_was_loaded_serves_again_after_a_restart(server, several, caplog):
    load(server, 2)
    change_manifest(several.models / "colours" / "2", training={"copy": "measured"})
    again = Server.start(several, Worker(make_folder()))
    assert served(again) == 2
    assert "the manifest of " in caplog.text
    before = again.classifier.version.sha256
    change_manifest(several.models / "colours" / "2", training={"copy": "measured twice"})
    assert load(again, 2).json()["sha256"] != before, "a load takes the manifest that is there now"


def test_a_look_that_fails_is_not_the_last_one(server, several, monkeypatch, caplog):
    monkeypatch.setattr("fsr_serve.registry.WATCH_SECONDS", 0.001)
    monkeypatch.setattr("fsr_serve.registry.RETRY_SECONDS", 0.001)
    follow, failures = server.registry.follow, iter([OSError(24, "Too many open files")])
    followed = threading.Event()

    def fail_once():
        for failure in failures:
            raise failure
        follow()
        if server.classifier.version.version == 2:
            followed.set()

    monkeypatch.setattr(server.registry, "follow", fail_once)
    server.registry.file.write(Wanted(version=2))
    stop = server.registry.follow_always()
    assert followed.wait(60)
    stop.set()
    assert "what is wanted cannot be looked at" in caplog.text


def test_whatever_ends_a_call_undoes_it(server, monkeypatch):
    def fail():
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(server.control._worker, "reports", fail)
        assert load(server, 1).status_code == 500
    server.registry.follow()
    assert served(server) == 3
    assert server.registry.file.read() is None


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
