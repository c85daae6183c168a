"""One model on one target: fit it to some items, predict others."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

from .judging import Predictions
from .models import Making, ModelSpec, Reads
from .reading import Reading
from .targets import Kind, Target

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
    # What holds items out holds out whole members.
    members = np.repeat(reading.items.members[chosen], repeats)
    known = {"groups": members} if has_fit_parameter(estimator, "groups") else {}
    if spec.deep:
        return estimator.fit(X, answers, **known)
    with warnings.catch_warnings(), threadpool_limits(1):
        # How long solvers may go on is a choice (`shallow.py`), and tables are too small for several threads.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, answers, **known)


def predict(estimator: Any, reads: Reads, reading: Reading, target: Target, chosen: Indices) -> Predictions:
    """What a model says of items; where it looks at several slices of each, the mean over them.

    Args:
        estimator: that ``fit`` returned.
        reads: what it gets.
        reading: of all items; another one than it was fitted to, to see what changes.
        target: of all items.
        chosen: which items, indices in ascending order.
    """
    asked, members = target.only(chosen), reading.items.members[chosen]
    means, singles, done, several = [], [], 0, False
    for block in reading.tested(reads, chosen, target.name):
        told = _told(estimator, block.X, target).reshape(-1, block.looks, _width(target))
        truth = asked.values[done : done + len(told)]
        means.append(told.mean(axis=1))
        singles.append(_of_single_looks(told, truth, target.kind))
        done, several = done + len(told), block.looks > 1
    mean = np.concatenate(means)
    is_regression = target.kind == "regression"
    return Predictions(
        target=asked,
        members=members,
        values=mean[:, 0] if is_regression else mean.argmax(axis=1),
        probabilities=mean if not is_regression and hasattr(estimator, "predict_proba") else None,
        single=np.concatenate(singles) if several else None,
    )


def _of_single_looks(told: NDArray[np.float64], truth: NDArray[Any], kind: Kind) -> NDArray[np.float64]:
    """How right single looks [n, looks, classes or 1] are, as in ``Predictions``; no study keeps them all."""
    right: NDArray[Any] = (
        np.abs(told[..., 0] - truth[:, None]) if kind == "regression" else told.argmax(axis=2) == truth[:, None]
    )
    return np.asarray(right.mean(axis=1), np.float64)


def _width(target: Target) -> int:
    return len(target.classes) if target.kind == "classification" else 1


def _told(estimator: Any, X: Any, target: Target) -> NDArray[np.float64]:
    """Probabilities of the classes, votes of a model that has none, or numbers: [rows, classes or 1]."""
    if target.kind == "regression":
        return np.asarray(estimator.predict(X), np.float64).reshape(-1, 1)
    if not hasattr(estimator, "predict_proba"):
        votes: NDArray[np.float64] = np.eye(len(target.classes))[estimator.predict(X).astype(np.int64)]
        return votes
    known = estimator.predict_proba(X)
    # A class that no training item has is never predicted.
    probabilities = np.zeros((len(known), len(target.classes)))
    probabilities[:, np.asarray(estimator.classes_, np.int64)] = known
    return probabilities
