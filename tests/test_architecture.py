"""Who may import whom, and what importing does."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from training.evaluation.__main__ import COMMANDS
from training.evaluation.__main__ import main as evaluation

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for package in ("fsr_serve", "training", "export") for path in (ROOT / package).rglob("*.py"))


def imported(path):
    """Top-level packages that a file names in import statements."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


FORBIDDEN = {
    "fsr_serve": {"torch", "training", "export"},
    "training": {"fsr_serve", "export", "bentoml"},
    "export": {"bentoml"},
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_in_one_direction(path):
    assert not FORBIDDEN[path.relative_to(ROOT).parts[0]] & set(imported(path))


def test_only_the_service_imports_bentoml():
    assert [path.name for path in MODULES if "bentoml" in imported(path)] == ["service.py"]


def test_importing_every_module_prints_nothing_and_touches_no_model(tmp_path):
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES if path.stem != "__main__"]
    code = f"import importlib, sys; sys.path.insert(0, {str(ROOT)!r}); [importlib.import_module(n) for n in {names!r}]"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
    assert list(tmp_path.iterdir()) == []


WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *where):
        return None if name in {packages} else super().find_spec(name, *where)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
sys.argv = ["x", "--help"]
runpy.run_module({module!r}, run_name="__main__")
"""


def run_without(module, packages):
    """python -m `module` --help where these packages are not installed."""
    code = WITHOUT.format(module=module, packages=sorted(packages))
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


MEASURING = ("export.verify", "export.uploads", "export.checks", "export.sign")


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("training", "torch", "train"),
        ("training.evaluation", "torch", "train"),
        ("export", "torch", "export"),
        ("export.adopt", "onnx", "export"),
        *((module, "tyro", "verify") for module in MEASURING),
    ],
)
def test_a_missing_extra_is_named(module, package, extra):
    done = run_without(module, [package])
    assert done.returncode == 1
    assert done.stderr == f"python -m {module} needs {package}; install it with: pip install '.[{extra}]'\n"


@pytest.mark.parametrize("module", MEASURING)
def test_the_extra_for_measuring_is_enough_to_measure(module):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = {re.match(r"[\w-]+", name)[0] for name in [*extras["train"], *extras["export"]]}
    done = run_without(module, packages - {"fsr-serve", "pillow"})  # the server needs Pillow too
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("training", ["--data", "--recipe", "--resume"]),
        ("training.evaluation", ["--data", "--weights", "--attacks", *COMMANDS]),
        ("export", ["--data", "--weights", "--precision", "--module"]),
        ("export.verify", ["--data", "--attacks", "--runtime", "--queries"]),
        ("export.uploads", ["--data", "--attacks", "--upload-shape", "--quality"]),
        ("export.checks", ["--data", "--attacked", "--searched"]),
        ("export.adopt", ["--classes", "--mean", "--probabilities"]),
        ("export.sign", ["--key"]),
    ],
)
def test_help_is_complete(module, options):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for option in ("--help", *options):
        assert option in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_evaluation_explains_itself(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["evaluation", name, "--help"])
    with pytest.raises(SystemExit) as done:
        evaluation()
    assert done.value.code == 0
    assert f"usage: python -m training.evaluation {name} " in capsys.readouterr().out


def test_no_file_outgrows_300_lines():
    assert [path.name for path in MODULES if len(path.read_text().splitlines()) > 300] == []


def test_a_bento_needs_what_the_package_needs():
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert bento["python"]["packages"] == project["dependencies"]


def test_serving_needs_nothing_that_the_package_does_not_list():
    """Third-party packages that fsr_serve imports, against the dependencies of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["openvino"], *extras["signing"]]
    listed = {re.match(r"[\w-]+", name)[0].replace("-", "_") for name in requirements}
    listed |= {"PIL", "pydantic_core", "typing_extensions", "anyio"}  # Pillow's module; parts of pydantic and starlette
    paths = [path for path in MODULES if path.relative_to(ROOT).parts[0] == "fsr_serve"]
    used = {name for path in paths for name in imported(path)} - set(sys.stdlib_module_names) - {"fsr_serve"}
    assert used <= listed
