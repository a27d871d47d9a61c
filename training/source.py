"""Where labelled images come from: a Hugging Face id, or a local folder of parquet or image files. No torch."""

from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt

from training.data_sets import DATA_SETS

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")


class DataError(ValueError):
    """The data cannot be used; the message names what was found, what is expected and the fix."""


@dataclass(frozen=True)
class Source:
    """One split: a table whose column `image_column` holds pictures, labels int64 (n,), and class names."""

    table: datasets.Dataset
    image_column: str
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]


def open_split(source: str, split: str) -> Source:
    """Raises DataError when the source, split, columns or labels are missing, or there are fewer than two classes."""
    table = _load_split(source, split)
    image_column = _column(table, IMAGE_COLUMNS, source)
    label_column = _column(table, LABEL_COLUMNS, source)
    label_feature = table.features[label_column]
    if not isinstance(label_feature, datasets.ClassLabel):
        try:
            table = table.class_encode_column(label_column)
        except ValueError as error:
            raise DataError(
                f"the column {label_column} of {source!r} holds {label_feature}; expected one class for each image"
            ) from error
        label_feature = table.features[label_column]
    if label_feature.num_classes < 2:
        raise DataError(f"{source!r} has the single class {label_feature.names}; expected two or more")
    labels = np.array([-1 if label is None else label for label in table[label_column]], dtype=np.int64)
    if not len(labels):
        raise DataError(f"{source!r} holds no images")
    if labels.min() < 0:
        unlabelled = int((labels < 0).sum())
        raise DataError(
            f"{unlabelled} of {len(labels)} images of {source!r}, split {split!r}, have no label; expected one "
            "for each. Leave those images out, or name another split"
        )
    return Source(table, image_column, labels, tuple(label_feature.names))


def spread(total: int, count: int) -> npt.NDArray[np.int64]:
    """`count` of the indices below `total` at even distances, so that data sorted by class is covered evenly."""
    return np.linspace(0, total - 1, count).round().astype(np.int64)


def _load_split(source: str, split: str) -> datasets.Dataset:
    known = DATA_SETS.get(source)
    local = Path(source).expanduser()
    try:
        if known is not None:
            splits = datasets.load_dataset(known.hub_id, known.configuration)
            split = known.splits.get(split, split)
        else:
            splits = datasets.load_dataset(str(local) if local.exists() else source)
    except Exception as error:  # the library raises many kinds, some of them private
        raise DataError(
            f"cannot load data {source!r}: {error}. Expected {', '.join(DATA_SETS)}, a Hugging Face id, "
            "a folder of parquet files, or a folder with one folder of images per class"
        ) from error
    if split not in splits:
        raise DataError(
            f"{source!r} has no split {split!r}; it has {', '.join(splits)}. "
            f"A folder of images has its split {split!r} in {split}/CLASS/"
        )
    return splits[split]


def _column(data: datasets.Dataset, names: tuple[str, ...], source: str) -> str:
    for name in names:
        if name in data.features:
            return name
    raise DataError(
        f"{source!r} has columns {', '.join(data.features)}; expected one named {' or '.join(names)}. "
        "A folder of images needs two or more folders, one per class"
    )
