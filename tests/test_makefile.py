"""What `make serve` starts: the model that ships unless something says which, on the local host unless asked."""

import os
import subprocess

import pytest
from servers import ROOT


def command(*arguments, **variables):
    """The last that `make serve` would run; make tells its own children things by variables, so no others are given."""
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(
        ["make", "--dry-run", "serve", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def test_the_model_that_ships_is_served_on_the_local_host():
    expected = "BENTOML_DO_NOT_TRACK=1 FSR_MODEL=cifar10-fsr .venv/bin/bentoml serve --host 127.0.0.1 --port 3000"
    assert command() == expected


@pytest.mark.parametrize("name", ["FSR_MODEL", "FSR_MODELS", "FSR_SETTINGS"])
def test_what_says_which_model_is_left_alone(name):
    assert "FSR_MODEL=" not in command(**{name: "mine"})


def test_host_and_port_are_arguments_of_make_and_not_what_a_shell_may_export():
    assert command("HOST=0.0.0.0", "PORT=8080").endswith("--host 0.0.0.0 --port 8080")
    assert command(HOST="machine").endswith("--host 127.0.0.1 --port 3000")
