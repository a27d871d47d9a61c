"""The tutorial's commands, run as they stand there, on small photographs of several sizes."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image
from servers import serving

from export.command import Arguments as ExportArguments
from export.verification import Arguments as VerifyArguments
from training.arguments import parse
from training.evaluation.command import Arguments as EvaluationArguments

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
INSTALL, TRAIN, EVALUATE, EXPORT, VERIFY, SERVE, SEND = COMMANDS[1:]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder like that of the tutorial's reader: photos/SPLIT/CLASS/N.jpg, no two of one size."""
    home = tmp_path_factory.mktemp("tutorial")
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 8)):
        for channel, name in enumerate(("cat", "dog")):
            folder = home / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(1, count + 1):
                height, width = random.integers(40, 90, 2)
                pixels = random.integers(0, 100, (height, width, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return home


def arguments_of(command, program):
    words = shlex.split(command)
    assert words[: len(program.split())] == program.split()
    return words[len(program.split()) :]


def test_every_option_of_the_tutorial_is_one():
    trained = parse(arguments_of(TRAIN, "python -m training"))
    measured = tyro.cli(EvaluationArguments, args=arguments_of(EVALUATE, "python -m training.evaluation"))
    exported = tyro.cli(ExportArguments, args=arguments_of(EXPORT, "python -m export"))
    verified = tyro.cli(VerifyArguments, args=arguments_of(VERIFY, "python -m export.verify"))
    assert trained.out == measured.checkpoint == exported.checkpoint
    assert trained.data == verified.data
    assert exported.target == verified.version
    assert shlex.split(SERVE) == [f"FSR_MODEL={exported.target.parent.name}", "bentoml", "serve"]
    assert INSTALL == "pip install --constraint constraints.txt '.[export]'"


@pytest.mark.slow
def test_the_tutorials_commands_work_one_after_the_other(home):
    def run(command, *fewer):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        words = [sys.executable, *arguments_of(command, "python"), *fewer]
        done = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"runs/photos: clean .* on 8 held-out images", run(TRAIN, "--epochs", "2"))
    measured = run(EVALUATE)
    assert all(re.search(rf"{attack} +\d+\.\d\d%", measured) for attack in ("clean", "fgsm", "pgd20"))
    assert "models/photos/1: max |torch - onnxruntime|" in run(EXPORT)
    assert re.search(r"pgd20 +\d+\.\d\d%", run(VERIFY))
    with serving(home / "models", home / "bentoml", home / "log", FSR_MODEL="photos") as address:
        sent = shlex.split(SEND.replace("127.0.0.1:3000", address))
        answer = json.loads(subprocess.run(sent, cwd=home, capture_output=True, check=True).stdout)
    assert answer["model"]["name"] == "photos"
    assert answer["predictions"][0]["label"] in ("cat", "dog")
