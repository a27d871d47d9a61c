"""Attacks by queries against a model whose history watches: each ends when it is noticed. No torch."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from export.disguise import Disguise
from export.labelled_images import LabelledImages
from fsr_serve.checks.calibration import Calibration
from fsr_serve.checks.history import QueryHistory
from fsr_serve.checks.probe import Labels
from fsr_serve.ranking import lead
from fsr_serve.session import Floats, OnnxModel
from training.evaluation.protocol import ImageStreams
from training.source import spread
from training.square import search_by_squares

SearchName = Literal["square", "disguised_square"]
SEARCHES: dict[SearchName, str] = {
    "square": "Square, {queries} queries",
    "disguised_square": "Square, {queries} queries, each of another view (mirrored, shifted, recoloured) that the "
    "history would not find alike, as far as there is one",
}
"""What they do: Square as published, and as one who knows the history goes about it."""
HEAD_START = np.float32(1e3)
"""Of a logit, more than any difference between two."""
LeadOf = Callable[[Floats, Labels], Floats]


class Search(NamedTuple):
    """An attack by queries on one image: it ends when it is noticed, when the answer is wrong, or unsuccessful."""

    p_values: Sequence[float]
    """What the history says of each query; the last alone may be so low that the search was noticed."""
    is_wrong: bool

    def noticed_at(self, rate: float) -> int | None:
        """The number of the first query that counts as suspicious at this rate of false alarms, from 1."""
        return next((number for number, p_value in enumerate(self.p_values, 1) if p_value <= rate), None)


@dataclass(frozen=True)
class Searcher:
    """What all searches have in common."""

    session: OnnxModel
    calibration: Calibration
    epsilon: float
    queries: int
    seed: int
    rate: float
    """Of false alarms, at which a search is noticed and ends."""

    def search(self, name: SearchName, data: LabelledImages, count: int) -> list[Search]:
        """The attack on `count` of the images, those of them that are right, each beside a stream of all others."""
        chosen = spread(len(data.labels), count)
        stream = QueryHistory(self.calibration.reach, self.calibration.remembered)
        stream.count(np.delete(data.images, chosen, axis=0))
        searches = []
        for index in tqdm(chosen, desc=name, unit="img", leave=False):
            image, label = data.images[index : index + 1], data.labels[index : index + 1]
            if self.session.logits(image).argmax(axis=1) == label:
                (random,) = ImageStreams(self.seed, first=int(index)).next(1)
                searches.append(self._on_one(name, copy.deepcopy(stream), image, label, random))
        return searches

    def _on_one(
        self, name: SearchName, history: QueryHistory, image: Floats, label: Labels, random: np.random.Generator
    ) -> Search:
        p_values: list[float] = []

        def lead_of(query: Floats, label: Labels) -> Floats:
            similar = history.count(query)
            p_values.append(float(self.calibration.p_values("history", {"similar": similar})[0]))
            if p_values[-1] <= self.rate:
                raise _NoticedError
            return lead(self.session.logits(query), label)

        ask = lead_of if name == "square" else _disguised(lead_of, Disguise(self.calibration.reach, random))
        try:
            found = search_by_squares(ask, image, label, epsilon=self.epsilon, queries=self.queries, random=[random])
        except _NoticedError:
            return Search(p_values, is_wrong=False)
        return Search(p_values, bool(self.session.logits(found).argmax(axis=1) != label))


class _NoticedError(Exception):
    """Ends a search."""


def _disguised(lead_of: LeadOf, disguise: Disguise) -> LeadOf:
    """Of views instead of the images. Square goes on where one is wrong: that says little of the image."""
    return lambda image, label: lead_of(disguise.view(image), label) + HEAD_START
