"""What `bentoml build` makes, served where fsr_serve is not installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import pytest
from servers import environment, started

from fsr_serve import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path):
    """A copy of what a bento is made of, with what a server and export.verify leave beside the models."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("bentofile.yaml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "fsr_serve", folder / "fsr_serve", ignore=shutil.ignore_patterns("__pycache__"))
    model = folder / "models" / "cifar10-fsr"
    shutil.copytree(ROOT / "models" / "cifar10-fsr", model, ignore=shutil.ignore_patterns(".verify"))
    for left in (folder / "models" / ".state" / "other.json", model / "1" / ".verify" / "flags"):
        left.parent.mkdir()
        left.write_text("{}")
    return folder


@pytest.fixture
def python(tmp_path):
    """An interpreter with the packages of this one, but none that is installed as a link to its source."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # .pth files are read in site-packages alone, not in a folder that one of them names
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    command = [python, "-c", "import bentoml, fsr_serve"]
    plain = {**os.environ, "PYTHONPATH": ""}
    found = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, check=False)
    assert b"No module named 'fsr_serve'" in found.stderr
    return python


@pytest.mark.system
def test_a_bento_serves_where_the_package_is_not_installed(project, python, tmp_path):
    variables = environment("", tmp_path / "home")
    for name in ("FSR_MODELS", "PYTHONPATH"):
        variables.pop(name, None)
    bentoml = [python, "-m", "bentoml"]
    subprocess.run([*bentoml, "build"], cwd=project, env=variables, check=True)
    (bento,) = (path.parent for path in (tmp_path / "home").glob("bentos/fsr-serve/*/bento.yaml"))
    names = {path.name for path in (bento / "src").rglob("*")}
    assert "manifest.json" in names
    assert not names & {".state", ".verify"}
    shutil.rmtree(project)
    with started([*bentoml, "serve", "fsr-serve:latest"], tmp_path, variables, tmp_path / "log") as (address, _):
        picture = (ROOT / "examples" / "frog.jpg").read_bytes()
        answer = httpx.post(f"{address}/classify", content=picture, headers={"Content-Type": "image/jpeg"}).json()
        assert answer["predictions"][0]["label"] == "frog"
        assert httpx.get(f"{address}/v2").json()["version"] == __version__
        assert httpx.get(f"{address}/openapi.json").json()["info"]["version"] == __version__
