"""Ridge regression whose penalty is chosen by leaving whole networks out.

Snapshots and slices of one network are nearly copies. Where one of them is left out, the others tell what it was,
so that the weakest penalties look best, and networks that no item of was seen come out worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_consistent_length, check_is_fitted, has_fit_parameter

Float64 = NDArray[np.float64]


class GroupedRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """scikit-learn's ``RidgeCV``, which leaves out all items of a group together.

    Args:
        alphas: penalties to choose from.
    """

    def __init__(self, alphas: Iterable[float] = (0.1, 1.0, 10.0)) -> None:
        self.alphas = alphas

    def fit(self, X: Any, y: Any, groups: Any = None) -> GroupedRidge:
        """Choose the penalty with the least mean squared error on items of groups left out, and fit with it.

        Args:
            X: items [n, columns].
            y: numbers [n].
            groups: of each item [n], its network for instance; None, or a single one: every item is its own.
        """
        from sklearn.linear_model import Ridge, RidgeCV

        check_consistent_length(X, y, groups)
        alphas = np.asarray(self.alphas, np.float64)
        count = len(y) if groups is None else len(np.unique(groups))
        if count in (1, len(y)):
            self.ridge_ = RidgeCV(alphas=alphas).fit(X, y)
            self.alpha_ = float(self.ridge_.alpha_)
        else:
            errors = left_out_errors(np.asarray(X, np.float64), np.asarray(y, np.float64), groups, alphas)
            self.alpha_ = float(alphas[(errors**2).mean(axis=1).argmin()])
            self.ridge_ = Ridge(alpha=self.alpha_).fit(X, y)
        self.n_features_in_ = self.ridge_.n_features_in_
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Numbers [n] for items [n, columns]."""
        check_is_fitted(self)
        predicted: NDArray[Any] = self.ridge_.predict(X)
        return predicted


class GroupedPipeline(Pipeline):  # type: ignore[misc]
    """A pipeline whose last step learns of groups, if it heeds them."""

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> GroupedPipeline:
        """Fit all steps; ``groups``: of each item [n], its network for instance, or None."""
        name, last = self.steps[-1]
        heeds = groups is not None and has_fit_parameter(last, "groups")
        super().fit(X, y, **({f"{name}__groups": groups} if heeds else {}))
        return self


def left_out_errors(X: Float64, y: Float64, groups: NDArray[Any], alphas: Float64) -> Float64:
    """By how much each item is missed by a ridge regression fitted to the items of all other groups.

    Nothing is fitted anew: with the hat matrix H of all items, which has the intercept in it, those of a group g
    that are left out are missed by (I - H_gg)^-1 times what they are missed by when they are not. So it is for a
    single item, where H_gg is a number (Golub, Heath and Wahba, 1979), and by Woodbury's identity for several.

    Args:
        X: items [n, columns].
        y: numbers [n].
        groups: of each item [n]; two at least.
        alphas: penalties [a].

    Returns:
        [a, n].
    """
    centred = y - y.mean()
    left, singular, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    kept = singular**2 / (singular**2 + alphas[:, None])  # [a, columns]
    errors: Float64 = centred - (kept * (left.T @ centred)) @ left.T
    _, group = np.unique(groups, return_inverse=True)
    order = np.argsort(group, kind="stable")
    for items in np.split(order, np.cumsum(np.bincount(group))[:-1]):
        rows = left[items]
        hat = (rows * kept[:, None]) @ rows.T + 1 / len(y)  # [a, items, items]
        errors[:, items] = np.linalg.solve(np.eye(len(items)) - hat, errors[:, items, None])[..., 0]
    return errors
