from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV

from wse.engine.meta.models import MODELS, Making
from wse.engine.meta.models.ridge import GroupedRidge, left_out_errors

Float64 = NDArray[np.float64]
ALPHAS = np.logspace(-2, 5, 15)


def near_copies(
    members: int = 100, copies: int = 9, columns: int = 60
) -> tuple[Float64, Float64, NDArray[np.int64]]:
    """Items whose copies hardly differ, answers that say little of them, and members."""
    rng = np.random.default_rng(0)
    networks, noise = rng.normal(size=(members, 60)), rng.normal(size=members)
    groups = np.repeat(np.arange(members), copies)
    items = networks[groups] + 0.05 * rng.normal(size=(len(groups), 60))
    return items, (networks[:, :3].sum(axis=1) + 4 * noise)[groups], groups


@pytest.mark.parametrize("columns", [5, 40])  # more than there are items, too
def test_errors_are_those_of_fits_without_the_group(columns: int) -> None:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(30, columns)) + 2, rng.normal(size=30) + 7
    groups = rng.permutation(np.repeat([4, 7, 1, 9], [1, 12, 7, 10]))
    alphas = np.array([0.01, 1.0, 300.0])
    told = left_out_errors(X, y, groups, alphas)
    for row, alpha in enumerate(alphas):
        for group in np.unique(groups):
            out = groups == group
            fitted = Ridge(alpha=alpha).fit(X[~out], y[~out])
            np.testing.assert_allclose(told[row, out], y[out] - fitted.predict(X[out]), rtol=1e-8)


def test_copies_of_a_network_do_not_choose_the_penalty() -> None:
    X, y, groups = near_copies()
    seen = groups < 60
    by_item = RidgeCV(alphas=ALPHAS).fit(X[seen], y[seen])
    by_member = GroupedRidge(ALPHAS).fit(X[seen], y[seen], groups[seen])
    assert by_member.alpha_ > 30 * by_item.alpha_
    assert by_member.score(X[~seen], y[~seen]) > by_item.score(X[~seen], y[~seen]) + 0.3


@pytest.mark.parametrize("name", ["statistics-linear", "values-linear"])
def test_linear_models_leave_out_members(name: str) -> None:
    X, y, groups = near_copies()
    model = MODELS[name].make(Making(kind="regression"))
    by_item = model.fit(X, y)[-1].alpha_
    assert model.fit(X, y, groups=groups)[-1].alpha_ > 30 * by_item


@pytest.mark.parametrize("name", ["statistics-linear", "values-linear"])
def test_classifiers_take_members_too(name: str) -> None:
    X, y, groups = near_copies()
    model = MODELS[name].make(Making(kind="classification"))
    told = model.fit(X, y > 0, groups=groups).predict(X)
    np.testing.assert_array_equal(told, model.fit(X, y > 0).predict(X))


@pytest.mark.parametrize("groups", [None, np.arange(100)[::-1], np.zeros(100)])
def test_items_of_one_network_each_are_left_out_as_scikit_learn_does(groups: NDArray[np.int64] | None) -> None:
    """To the bit; and where there is one network only, nothing else can be left out."""
    X, y, _ = near_copies(copies=1)
    plain, grouped = RidgeCV(alphas=ALPHAS).fit(X, y), GroupedRidge(ALPHAS).fit(X, y, groups)
    assert grouped.alpha_ == plain.alpha_
    np.testing.assert_array_equal(grouped.predict(X), plain.predict(X))
