"""Run folders without weights, and results of no measurement."""

from dataclasses import replace

from training.checkpoint import ModelConfig, RunConfig, RunFolder
from training.evaluation.results import Result, save_result
from training.evaluation.statistics import wilson
from training.recipes import RECIPES


def made_up(path, results=(), *, model=None, recipe=None, data="cifar10", seed=0):
    """A run folder with a config and results {(attack, weights): share of right}, but no weights."""
    config = RunConfig(
        model=ModelConfig(num_classes=10, **(model or {})),
        recipe_name="paper",
        recipe=replace(RECIPES["paper"], **(recipe or {})),
        start=None,
        data=data,
        data_name=data,
        data_sha256="",
        classes=tuple("0123456789"),
        image_shape=(32, 32),
        seed=seed,
    )
    RunFolder(path).create(config)
    for (attack, weights), share in dict(results).items():
        save_result(path, measured(attack, weights, share, data=f"{data}, split test"))
    return path


def measured(attack, weights="best", share=0.5, n=1000, **others):
    fields = {
        "weights_sha256": weights,
        "definition": f"{attack} as defined",
        "epsilon": 0.0 if attack == "clean" else 8 / 255,
        "data": "cifar10, split test",
        "data_sha256": "of the images",
        "seed": 0,
        "runtime": "torch",
        "precision": "fp32",
        "seconds": 5.0,
        "measured": "2026-01-01",
        **wilson(round(share * n), n)._asdict(),
    }
    return Result(weights=weights, attack=attack, n=n, **fields | others)


def run_with_weights(path, content=b"weights", **others):
    made_up(path, **others)
    (path / "best.safetensors").write_bytes(content)
    return path
