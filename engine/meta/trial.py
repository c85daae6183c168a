"""One model on one target: fit it to some items, predict others."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from .judging import Predictions
from .models import Making, ModelSpec, Reads
from .reading import Reading
from .targets import Target

Indices = NDArray[np.int64]


def fit(spec: ModelSpec, making: Making, reading: Reading, target: Target, chosen: Indices) -> Any:
    """Fit a new model.

    Args:
        spec: the model.
        making: seed, budget and device.
        reading: of all items.
        target: of all items.
        chosen: which items to fit to, indices in ascending order; the target must be set for them.

    Raises:
        UsageError: the model cannot read these items.
    """
    X, repeats = reading.training(spec.reads, chosen, target.name)
    answers = np.repeat(target.values[chosen], repeats)
    estimator = spec.make(making)
    if spec.deep:
        return estimator.fit(X, answers, groups=np.repeat(reading.items.members[chosen], repeats))
    with warnings.catch_warnings(), threadpool_limits(1):
        # How long solvers may go on is a choice (`shallow.py`), and tables are too small for several threads.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, answers)


def predict(estimator: Any, reads: Reads, reading: Reading, target: Target, chosen: Indices) -> Predictions:
    """What a model says of items; where it reads several slices of each, the mean over them.

    Args:
        estimator: that ``fit`` returned.
        reads: what it gets.
        reading: of all items; another one than it was fitted to, to see what changes.
        target: of all items.
        chosen: which items, indices in ascending order.
    """
    inputs = reading.tested(reads, chosen, target.name)
    asked, members = target.only(chosen), reading.items.members[chosen]
    if target.kind == "regression":
        numbers = _mean(estimator.predict(X) for X in inputs)
        return Predictions(target=asked, members=members, values=numbers)
    if not hasattr(estimator, "predict_proba"):
        votes = _mean(np.atleast_2d(_one_hot(estimator.predict(X), len(target.classes))) for X in inputs)
        return Predictions(target=asked, members=members, values=votes.argmax(axis=1))
    known = _mean(estimator.predict_proba(X) for X in inputs)
    # A class that no training item has is never predicted.
    probabilities = np.zeros((len(chosen), len(target.classes)))
    probabilities[:, np.asarray(estimator.classes_, np.int64)] = known
    return Predictions(
        target=asked, members=members, values=probabilities.argmax(axis=1), probabilities=probabilities
    )


def _one_hot(codes: NDArray[Any], classes: int) -> NDArray[np.float64]:
    return np.eye(classes)[codes.astype(np.int64)]


def _mean(arrays: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    """The mean of arrays, without holding all of them."""
    total: NDArray[np.float64] | None = None
    count = 0
    for array in arrays:
        total = array.astype(np.float64) if total is None else total + array
        count += 1
    if total is None:
        raise ValueError("nothing to predict from")
    return total / count
