"""What was measured before is not measured again, and keeps the runtime and the day of then."""

import json
import subprocess
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_runs import made_up, measured

from training.data import ImageData
from training.evaluation.measure import Job, Network
from training.evaluation.protocol import Budget
from training.evaluation.record import record, record_worst
from training.evaluation.results import Measurement, forget, kept_result, load_results, open_flags, save_result
from training.evaluation.statistics import wilson

DATA = ImageData(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long), ("a", "b"))


@pytest.fixture
def run(tmp_path):
    return made_up(tmp_path / "run")


def flagged(run, attack, text):
    """A measurement of long ago whose images are right where `text` has a 1."""
    flags = np.array([letter == "1" for letter in text])
    share = wilson(int(flags.sum()), 4)._asdict()
    result = measured(attack, n=4, measured="2020-01-01", runtime="torch 1", **share)
    open_flags(run, result).write(slice(0, 4), flags, 5.0)
    return result


def asked(result):
    """What a command asks for to get the result."""
    return Measurement(**{field.name: getattr(result, field.name) for field in fields(Measurement)})


def recorded(run, earlier):
    job = Job(Network(run, "best", "best"), "fgsm", earlier.epsilon, 0, Budget())
    return record(job, DATA, asked(earlier), batch=4, processes=1)


def test_a_finished_measurement_keeps_its_runtime_and_day(run):
    earlier = flagged(run, "fgsm", "1100")
    save_result(run, earlier)
    assert recorded(run, earlier) == earlier
    assert load_results(run) == (earlier,)


def test_flags_whose_figure_was_not_kept_become_one(run):
    earlier = flagged(run, "fgsm", "1110")
    assert recorded(run, earlier).accuracy == 0.75
    assert kept_result(run, earlier).accuracy == 0.75


def test_a_worst_case_changes_with_its_parts_alone(run):
    parts = [flagged(run, "fgsm", "1110"), flagged(run, "cw", "1011")]
    ensemble = flagged(run, "ensemble", "1010")
    save_result(run, ensemble)
    assert record_worst(run, asked(ensemble), parts) == ensemble
    weaker = record_worst(run, asked(ensemble), parts[:1])
    assert (weaker.accuracy, weaker.measured == ensemble.measured) == (0.75, False)
    assert load_results(run) == (weaker,)


def test_a_result_names_the_code_that_made_it(run):
    plain, autoattack = (recorded(run, flagged(run, attack, "1110")) for attack in ("fgsm", "autoattack"))
    assert plain.versions == {"fsr-serve": version("fsr-serve")}
    assert autoattack.versions == plain.versions | {"pyautoattack": version("pyautoattack")}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert (plain.commit or "").rstrip("+") == head.stdout.strip()


def test_results_from_before_code_was_named_are_read(run):
    save_result(run, measured("fgsm"))
    path = run / "evaluation.json"
    (old,) = json.loads(path.read_text())
    path.write_text(json.dumps([{name: value for name, value in old.items() if name not in ("versions", "commit")}]))
    (result,) = load_results(run)
    assert (result, result.versions, result.commit) == (measured("fgsm"), {}, None)


def test_what_is_forgotten_is_measured_anew_and_the_rest_stays(run):
    earlier, other = flagged(run, "fgsm", "1110"), flagged(run, "cw", "1110")
    for result in (earlier, other):
        save_result(run, result)
    forget(run, asked(earlier))
    assert load_results(run) == (other,)
    assert not open_flags(run, earlier).is_known.any()
    assert open_flags(run, other).is_known.all()
