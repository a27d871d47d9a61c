"""A rollback goes to the version before, which is kept."""

import fcntl
import shutil

import pytest
from versions import ask, load, rollback, served

from fsr_serve.errors import RequestError, StartupError
from fsr_serve.http.openapi import document
from fsr_serve.registry import Followed, Registry
from fsr_serve.server import Server
from fsr_serve.workers import Worker, make_folder


@pytest.fixture
def server(several):
    return Server.start(several, Worker(make_folder()))


def test_a_rollback_goes_back_and_a_second_one_comes_back(server):
    load(server, 1)
    assert rollback(server).json()["version"] == served(server) == 3
    assert rollback(server).json()["version"] == served(server) == 1


def test_a_rollback_works_though_the_version_is_gone_from_disk(server, several):
    load(server, 1)
    shutil.rmtree(several.models / "colours" / "3")
    assert rollback(server).status_code == 200
    assert served(server) == 3


def test_a_rollback_needs_a_version_before(server):
    answer = rollback(server)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_previous")


def test_a_rollback_works_after_a_restart(server, several):
    load(server, 1)
    restarted = Server.start(several, Worker(make_folder()))
    assert rollback(restarted).json()["version"] == served(restarted) == 3


def test_a_rollback_to_what_is_neither_held_nor_on_disk_is_not_found(server, several):
    load(server, 1)
    restarted = Server.start(several, Worker(make_folder()))
    shutil.rmtree(several.models / "colours" / "3")
    answer = rollback(restarted)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_version")
    assert served(restarted) == 1
    documented = document()["paths"]["/admin/models/{name}/rollback"]["post"]["responses"]["404"]
    assert "'unknown_version'" in repr(documented)


def test_a_version_written_by_hand_can_be_rolled_back(server):
    load(server, 1)
    server.registry.file.path.write_text('{"version": 2}')
    server.registry.follow()
    (found,) = ask(server, "GET", "/admin/models").json()["models"]
    assert (found["version"], found["previous"]) == (2, 1)
    assert rollback(server).json()["version"] == served(server) == 1


def test_a_load_that_fails_leaves_the_version_to_roll_back_to(two, several, monkeypatch):
    def fail(path):
        raise StartupError("there is no memory left")

    load(two[0], 1)
    monkeypatch.setattr(two[1].registry, "_open", fail)
    assert load(two[0], 2).status_code == 409
    shutil.rmtree(several.models / "colours" / "3")
    assert rollback(two[0]).status_code == 200, "both workers hold it still"
    assert [served(server) for server in two] == [3, 3]


def test_what_was_replaced_is_held_no_longer_than_it_may_be_needed(two):
    for number in (1, 2):
        load(two[0], number)
    two[0].registry.follow()
    assert two[0].registry._before is None


def test_nothing_comes_between_a_rollback_and_the_load_that_it_needs(server, several, monkeypatch):
    load(server, 1)
    control = Server.start(several, Worker(make_folder())).control
    number, prepare, flock, locked = Followed.previous_number.fget, Registry.prepare, fcntl.flock, []

    def refused_between(step):
        def run(*arguments):
            with pytest.raises(RequestError, match="another call is changing the version"):
                control.load("colours", 2)
            return step(*arguments)

        return run

    def lock(descriptor, operation):
        flock(descriptor, operation)
        locked.append(descriptor)

    monkeypatch.setattr(Followed, "previous_number", property(refused_between(number)))
    monkeypatch.setattr(Registry, "prepare", refused_between(prepare))
    monkeypatch.setattr(fcntl, "flock", lock)
    assert control.rollback("colours")["version"] == 3
    assert len(locked) == 1, "what was found under the lock of before may hold no more"
