"""The README's commands, run as they stand there, on a small data set in place of `cifar10`."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from servers import curl, serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands(start):
    """The lines of the shell block of the README that begins with `start`, continuation lines joined."""
    (block,) = (block for block in re.findall(r"```bash\n(.*?)```", README, re.S) if block.startswith(start))
    return [line for line in block.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def test_the_readme_opens_with_the_two_commands():
    assert re.findall(r"```bash\n(.*?)```", README, re.S)[0].split("\n")[:2] == [
        "make serve    # starts the server on 127.0.0.1:3000 with the model that ships",
        "make test     # fast tests, lint and types",
    ]


def test_training_evaluating_exporting_and_serving_work_one_after_the_other(tiny_data, tmp_path):
    train, evaluate, export, verify, serve = commands("python -m training")
    shutil.copy(ROOT / "bentofile.yaml", tmp_path)

    def run(command, *smaller):
        words = [str(tiny_data) if word == "cifar10" else word for word in command.split()]
        python, *arguments = words
        assert python == "python"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *arguments, *smaller],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(train, "--epochs", "2", "--held-out", "32", "--width", "4")
    assert re.search(r"pgd20 +\d+\.\d\d%", run(evaluate, "--images", "24"))
    assert re.search(r"models/mine/1: max \|torch - onnxruntime\| .* over 256 images", run(export))
    assert re.search(r"cw +\d+\.\d\d%.* margin loss, .*, n = 24", run(verify, "--images", "24"))
    assert serve == "FSR_MODEL=mine bentoml serve"
    with serving(tmp_path / "models", tmp_path / "home", tmp_path / "log", FSR_MODEL="mine") as address:
        (image,) = list((tiny_data / "test" / "red").glob("0.png"))
        answer = json.loads(curl("--data-binary", f"@{image}", "-H", "Content-Type: image/png", f"{address}/classify"))
    assert answer["model"]["name"] == "mine"


def test_the_shipped_model_answers_as_the_readme_shows(tmp_path):
    (sent,) = commands("curl")
    shown = json.loads(re.search(r"```json\n(.*?)```", README, re.S)[1])
    with serving(ROOT / "models", tmp_path / "home", tmp_path / "log") as address:
        words = shlex.split(sent.replace("127.0.0.1:3000", address.removeprefix("http://")))
        found = json.loads(
            subprocess.run(["curl", "-sS", *words[1:]], cwd=ROOT, capture_output=True, check=True).stdout
        )
    assert found["model"] == shown["model"]
    for expected, prediction in zip(shown["predictions"], found["predictions"], strict=True):
        assert prediction["label"] == expected["label"]
        assert abs(prediction["probability"] - expected["probability"]) < 1e-3
