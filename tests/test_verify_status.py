"""python -m export.verify fails when the file is less accurate than its checkpoint, and says so."""

import shutil
import sys

import pytest

from export.changing import write_manifest
from export.verification import Arguments, main, verify
from fsr_serve.artifact import read_version


@pytest.mark.parametrize(("above", "fails"), [(0.01, False), (0.03, True)])
def test_the_status_says_whether_the_file_is_as_good_as_its_checkpoint(
    models, tiny_data, tmp_path, monkeypatch, capsys, above, fails
):
    version = shutil.copytree(models / "colours" / "1", tmp_path / "colours" / "1")
    found = verify(Arguments(version, str(tiny_data), attacks=("fgsm",), epsilon=0.5))[1].found
    assert found.accuracy < 0.97, "so that more can be claimed"
    claimed = found.model_copy(update={"accuracy": found.accuracy + above})
    manifest = read_version(version).manifest
    write_manifest(version, manifest.model_copy(update={"checkpoint_accuracies": (claimed,)}))
    command = ["verify", str(version), "--data", str(tiny_data), "--attacks", "fgsm", "--epsilon", "0.5"]
    monkeypatch.setattr(sys, "argv", command)
    if fails:
        with pytest.raises(SystemExit, match="is less accurate than its checkpoint by more than 2%"):
            main()
    else:
        main()
    assert ("TOO LOW" in capsys.readouterr().out) == fails
