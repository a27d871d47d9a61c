"""What was measured before is not measured again, and keeps the runtime and the day of then."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from made_up_runs import made_up, measured

from training.data import ImageData
from training.evaluation.measure import Job, Network
from training.evaluation.protocol import Budget
from training.evaluation.record import record, record_worst
from training.evaluation.results import Measurement, kept_result, load_results, open_flags, save_result
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
