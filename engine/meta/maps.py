"""Where in a network a property shows, and when: what a model makes of slices at many places of every snapshot.

After the maps of Eilertsen et al., "Classifying the classifier" (2020): the probability of the true class, by
place and by snapshot, as a mean over networks that the model has not seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..zoo import Items
from ..zoo.slices import SliceDataset
from .models import ModelSpec
from .reading import slice_rows
from .results import Map
from .targets import Target
from .views import progress

POSITIONS = 100
# Of the test: more change the mean little.
MOST_MEMBERS = 40


def where_and_when(
    estimator: Any,
    spec: ModelSpec,
    slices: SliceDataset,
    target: Target,
    classes: tuple[str, ...],
    members: NDArray[np.int64],
) -> Map:
    """The mean probability of the true class at evenly spaced places of each snapshot.

    Args:
        estimator: fitted to slices like these, with ``predict_proba``.
        spec: the model; it reads slices or statistics of them.
        slices: of every snapshot, all of networks that are to be mapped among them.
        target: of these items, a classification.
        classes: names of the classes in the order of the codes that the estimator knows them by; with snapshots
            that it was not fitted to, ``target`` may have more.
        members: ids to be mapped; ``MOST_MEMBERS`` of those whose class the estimator knows are, evenly spread.
    """
    column = {classes[code]: index for index, code in enumerate(np.asarray(estimator.classes_, np.int64).tolist())}
    column_of = np.array([column.get(name, -1) for name in target.classes])[target.values]
    can = np.isin(slices.members, members) & target.present & (column_of >= 0)
    known = np.unique(slices.members[can])
    if len(known) > MOST_MEMBERS:  # from the first to the last: merged zoos stand one after the other
        known = known[np.linspace(0, len(known) - 1, MOST_MEMBERS).astype(int)]
    chosen = np.flatnonzero(can & np.isin(slices.members, known))
    count = min(POSITIONS, slices.places)
    likely = np.empty((len(chosen), count))
    for row, (item, column) in enumerate(zip(chosen.tolist(), column_of[chosen].tolist(), strict=True)):
        values = slices.evenly([item], count)[0][0].numpy()
        likely[row] = estimator.predict_proba(slice_rows(spec.reads, values))[:, column]
    return _mean_map(likely, slices, chosen, spec.name, target.name, chance=1 / len(classes))


def _mean_map(
    likely: NDArray[np.float64],
    slices: SliceDataset,
    chosen: NDArray[np.int64],
    model: str,
    target: str,
    *,
    chance: float,
) -> Map:
    items = slices.items.only(chosen)
    done = progress(items)
    snapshots = np.unique(items.snapshots)
    by_snapshot = [items.snapshots == snapshot for snapshot in snapshots]
    return Map(
        target=target,
        model=model,
        length=slices.length,
        positions=tuple(np.linspace(0, 1, likely.shape[1]).tolist()),
        layers=_layers(slices, items),
        snapshots=tuple(float(done[here].mean()) for here in by_snapshot),
        probabilities=tuple(zip(*(likely[here].mean(axis=0).tolist() for here in by_snapshot), strict=True)),
        chance=chance,
    )


def _layers(slices: SliceDataset, items: Items) -> dict[str, tuple[float, float]]:
    """Where layers lie, as fractions of the values of the part, in the most frequent architecture."""
    name = items.architectures[int(np.bincount(items.architecture).argmax())]
    runs = slices.runs_of(name)
    total = sum(stop - start for start, stop, _ in runs)
    layers: dict[str, tuple[float, float]] = {}
    done = 0
    for start, stop, layer in runs:
        first = layers[layer][0] if layer in layers else done / total
        done += stop - start
        layers[layer] = first, done / total
    return layers
