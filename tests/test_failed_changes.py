"""A change of the version that fails changes nothing, in any worker, and a server outlives what goes wrong."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import CLASSES
from versions import ask, change_manifest, damage, load, served, truncate

from fsr_serve import registry
from fsr_serve.errors import StartupError, StateError
from fsr_serve.server import Server
from fsr_serve.wanted import Wanted
from fsr_serve.workers import Worker, make_folder


@pytest.fixture
def server(several):
    return Server.start(several, Worker(make_folder()))


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


def test_workers_go_back_to_what_they_served_even_where_that_is_not_what_was_asked_for(two, monkeypatch):
    """A version that was asked for by hand and cannot serve is no worse to go back to."""

    def fail(path):
        raise StartupError("there is no memory left")

    with monkeypatch.context() as patch:
        for server in two:
            patch.setattr(server.registry, "_open", fail)
        two[0].registry.file.path.parent.mkdir()
        two[0].registry.file.path.write_text('{"version": 2}')
        for server in two:
            server.registry.follow()
    monkeypatch.setattr(two[1].registry, "_open", fail)
    assert load(two[0], 1).status_code == 409
    for server in two:
        server.registry.follow()
    assert [served(server) for server in two] == [3, 3]
    (found,) = ask(two[0], "GET", "/admin/models").json()["models"]
    assert [worker["error"] for worker in found["workers"]] == ["there is no memory left"] * 2, "of version 2"


def test_what_was_asked_for_is_taken_back_on_a_disk_that_is_full_by_then(two, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    def fail(path):
        monkeypatch.setattr("fsr_serve.wanted.write_atomically", full)
        raise StartupError("there is no memory left")

    load(two[0], 2)
    before = two[0].registry.file.read()
    monkeypatch.setattr(two[1].registry, "_open", fail)
    answer = load(two[0], 1)
    assert "no memory left" in answer.json()["error"]["message"]
    assert two[0].registry.file.read() == before
    assert [file.name for file in two[0].registry.file.path.parent.iterdir()] == ["colours.json"]


def test_a_disk_that_is_full_when_a_version_is_asked_for_keeps_no_copy(server, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    load(server, 2)
    with monkeypatch.context() as patch:
        patch.setattr("fsr_serve.wanted.write_atomically", full)
        assert load(server, 1).json()["error"]["code"] == "state_unwritable"
    assert served(server) == 2
    assert [file.name for file in server.registry.file.path.parent.iterdir()] == ["colours.json"]


def test_a_disk_that_is_full_when_the_state_is_copied_keeps_no_copy_either(server, monkeypatch):
    assert load(server, 2).status_code == 200

    def half(source, target):
        Path(target).write_bytes(b"")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", half)
    assert load(server, 1).json()["error"]["code"] == "state_unwritable"
    assert [file.name for file in server.registry.file.path.parent.iterdir()] == ["colours.json"]


@pytest.mark.parametrize(("seconds", "tries", "serves"), [(0, 2, 9), (60, 1, 3)])
def test_a_version_that_was_missing_serves_once_it_is_there(server, several, monkeypatch, seconds, tries, serves):
    monkeypatch.setattr(registry, "LOAD_AGAIN_SECONDS", seconds)
    versions, found = several.models / "colours", []
    find = server.registry._find_held
    monkeypatch.setattr(server.registry, "_find_held", lambda wanted: found.append(wanted) or find(wanted))
    server.registry.file.path.parent.mkdir()
    server.registry.file.path.write_text('{"version": 9}')
    server.registry.follow()
    assert served(server) == 3
    shutil.copytree(versions / "2", versions / "9")
    for _ in range(3):
        server.registry.follow()
    assert (len(found), served(server)) == (tries, serves)


def test_what_cannot_be_taken_back_is_said(two, monkeypatch):
    def fail(path):
        monkeypatch.setattr(Path, "replace", read_only)
        raise StartupError("there is no memory left")

    def read_only(*paths):
        raise OSError(30, "Read-only file system")

    load(two[0], 2)
    monkeypatch.setattr(two[1].registry, "_open", fail)
    error = load(two[0], 1).json()["error"]
    assert error["code"] == "state_unwritable"
    assert "no memory left" in error["message"]
    assert (
        "colours.json cannot be changed back (Read-only file system) and still asks for version 1" in error["message"]
    )


def test_what_somebody_else_asks_for_meanwhile_stays(two, monkeypatch):
    """Another server that shares the folder, or a hand."""
    file = two[0].registry.file
    monkeypatch.setattr(two[1].registry, "follow", lambda: None)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(load, two[0], 2)
        while file.read() is None:
            time.sleep(0.01)
        file.write(Wanted(version=1))
    error = answer.result().json()["error"]
    assert (error["code"], error["message"]) == (
        "busy",
        "something else was asked for while version 2 was loaded; that stays",
    )
    assert file.read() == Wanted(version=1)


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
