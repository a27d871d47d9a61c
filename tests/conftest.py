"""Small real things that the tests share: a data set on disk, a checkpoint, a model version, a server."""

import base64
import io
import os
from dataclasses import fields, replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from fsr_serve.http.app import create_app
from fsr_serve.server import Server
from fsr_serve.settings import Settings
from fsr_serve.workers import Worker, make_folder

pytest_plugins = ["batching", "versions", "checked"]

# the same examples on every run: one that fails by chance would be blamed on the change that met it
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")

CLASSES = ("blue", "green", "red")
SIDE = 16


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A folder of images: three noisy colours, 200 of each to train on and 8 to test on, 16x16 pixels."""
    root = tmp_path_factory.mktemp("data") / "colours"
    random = np.random.default_rng(0)
    for split, count in (("train", 200), ("test", 8)):
        for channel, name in zip((2, 1, 0), CLASSES, strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(colour(random, channel)).save(folder / f"{index}.png")
    return root


def colour(random: np.random.Generator, channel: int) -> np.ndarray:
    pixels = random.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[..., channel] += 150
    return pixels


@pytest.fixture(scope="session")
def checkpoint(tiny_data, tmp_path_factory) -> Path:
    """A run folder left by the training command on `tiny_data`."""
    from training.command import run

    out = tmp_path_factory.mktemp("runs") / "colours"
    run(training_arguments(tiny_data, out, epochs=6))
    return out


def training_arguments(data: Path, out: Path, recipe: str = "fast", **others):
    """Of a small run: fields of the recipe, of the architecture and of the arguments alike by keyword."""
    from training.arguments import Arguments
    from training.checkpoint import Architecture
    from training.recipes import RECIPES, Recipe

    def of(group):
        return {field.name: others.pop(field.name) for field in fields(group) if field.name in others}

    with_choices = replace(RECIPES[recipe], **{"held_out": 32} | of(Recipe))
    named = {"name": others.pop("model")} if "model" in others else {}
    architecture = Architecture(**{"width": 4} | named | of(Architecture))
    return Arguments(
        data=str(data), out=out, recipe_name=recipe, recipe=with_choices, architecture=architecture, **others
    )


@pytest.fixture(scope="session")
def models(checkpoint, tmp_path_factory) -> Path:
    """A folder of models that holds version 1 of `colours`, left by the export command."""
    from export.command import Arguments, export

    root = tmp_path_factory.mktemp("models")
    export(Arguments(checkpoint, root / "colours" / "1"))
    return root


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_the_shell():
    for name in [name for name in os.environ if name.startswith("FSR_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def settings(models) -> Settings:
    return Settings(
        models=models, max_body_bytes=200_000, max_image_bytes=100_000, max_image_pixels=250_000, max_images=8
    )


@pytest.fixture
def server(settings) -> Server:
    return Server.start(settings, Worker(make_folder()))


@pytest.fixture
def client(server):
    """An HTTP client of the app, in process."""
    with TestClient(create_app(lambda: server)) as client:
        yield client


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight random images of 32x32 pixels in [0, 1] and labels of ten classes."""
    random = torch.Generator().manual_seed(0)
    return torch.rand(8, 3, 32, 32, generator=random), torch.randint(10, (8,), generator=random)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(colour: str = "red", size: tuple[int, int] = (SIDE, SIDE), format: str = "PNG") -> bytes:
    """A one-coloured image file."""
    return encoded(Image.new("RGB", size, colour), format)


def as_json(*images: bytes) -> dict[str, list[str]]:
    """The JSON body of a request with these image files."""
    return {"images": [base64.b64encode(image).decode() for image in images]}


def as_form(*images: bytes) -> list[tuple]:
    """The files of a form with these image files."""
    return [("file", (f"{index}.png", image, "image/png")) for index, image in enumerate(images)]
