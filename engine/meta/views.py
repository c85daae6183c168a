"""Scores of all test items together, and of groups of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..nets import Layout
from ..zoo import Items
from ..zoo.conditions import as_text
from ..zoo.tables import CONFIG
from .judging import Predictions, judge
from .results import Score

Indices = NDArray[np.int64]
# Of one model on one target in one round: the test items it was asked about, and what it said.
Answers = tuple[Indices, Predictions]

# A group with fewer test members says nothing.
LEAST_MEMBERS = 10
# A column with more values than this is no grouping.
MOST_GROUPS = 12
TENTHS = 10


def together(answers: Sequence[Answers]) -> Answers:
    """The answers of all rounds as one."""
    parts = [predictions for _, predictions in answers]
    return np.concatenate([chosen for chosen, _ in answers]), Predictions(
        target=parts[0].target.joined([part.target for part in parts]),
        members=np.concatenate([part.members for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        probabilities=_all([part.probabilities for part in parts]),
        single=_all([part.single for part in parts]),
        fits=np.repeat(np.arange(len(parts)), [len(part.members) for part in parts]),
    )


def _all(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if len(there) == len(arrays) else None


def score(
    predictions: Predictions, *, model: str, view: str = "all", group: str = "", ranks: bool = True
) -> Score:
    """Judge predictions as one row of a table."""
    return Score(
        target=predictions.target.name,
        model=model,
        view=view,
        group=group,
        metrics=judge(predictions, ranks=ranks),
        members=len(np.unique(predictions.members)),
        items=len(predictions.members),
    )


def grouped(answers: Answers, columns: dict[str, NDArray[np.str_]], *, model: str) -> Iterator[Score]:
    """A score for each group of each column that has members enough.

    Args:
        answers: of all rounds.
        columns: view -> the group of every item of the study.
        model: name of the model.
    """
    chosen, predictions = answers
    for view, groups in columns.items():
        if (view, predictions.target.name) == ("progress", "epoch"):
            continue  # within a tenth of training nearly all epochs are the same
        found = groups[chosen]
        for group in np.unique(found):
            here = predictions.only(found == group)
            if len(np.unique(here.members)) >= LEAST_MEMBERS:
                yield score(here, model=model, view=view, group=str(group), ranks=False)


def groupings(items: Items) -> dict[str, NDArray[np.str_]]:
    """What test items are grouped by: status, image set, what an architecture varies in, progress of training."""
    architecture = [CONFIG + name for name in ("filter_size", "depth_conv", "depth_fc", "width_conv", "width_fc")]
    names = ["status", CONFIG + "dataset", *architecture]
    present = [name for name in names if name in items.zoo.members.column_names]
    columns = {name.removeprefix(CONFIG): as_text(items, name) for name in present}
    kept = {name: groups for name, groups in columns.items() if 1 < len(np.unique(groups)) <= MOST_GROUPS}
    if len(np.unique(items.snapshots)) > 1:
        kept["progress"] = np.array([f"{tenth / TENTHS:.1f}" for tenth in np.round(progress(items) * TENTHS)])
    return kept


def progress(items: Items) -> NDArray[np.float64]:
    """How far the training of each item's member was at its snapshot, from 0 to 1: [N]."""
    epochs = np.array(items.column("epoch").to_pylist(), np.float64)
    total = np.array(items.column("epochs").to_pylist(), np.float64)
    return np.divide(epochs, total, out=np.zeros_like(epochs), where=total > 0)


def layers_within(layout: Layout, part: str) -> list[str]:
    """Names of the layers that lie in a part."""
    start, stop = layout.part(part)
    return [name for name in layout.layers if start <= layout.part(name)[0] and layout.part(name)[1] <= stop]
