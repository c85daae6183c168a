from __future__ import annotations

import numpy as np
import pytest

from wse.engine.meta.models import MODELS, Making

TABLES = [name for name, spec in MODELS.items() if spec.reads in ("setup", "statistics", "neurons")]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("name", TABLES)
def test_what_only_tested_networks_have_is_left_out(name: str, kind: str) -> None:
    """As of a layer that no network to be trained on has, or a setting that goes with a held-out optimizer."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(80, 3))
    answers = (table[:, 0] > 0).astype(int) if kind == "classification" else table[:, 0]
    there, missing = table.copy(), table.copy()
    missing[:, 2] = np.nan
    model = MODELS[name].make(Making(kind=kind)).fit(missing, answers)
    np.testing.assert_array_equal(model.predict(there), model.predict(missing))
    assert model.score(there, answers) > 0.8


@pytest.mark.parametrize("name", ["setup", "statistics-boost", "statistics-linear"])
def test_where_nothing_is_known_the_majority_is_left(name: str) -> None:
    model = MODELS[name].make(Making(kind="classification"))
    assert model.fit(np.full((9, 2), np.nan), [0, 1, 1, 1, 0, 1, 1, 0, 1]).predict(np.ones((2, 2))).tolist() == [
        1,
        1,
    ]


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("name", ["values-linear", "values-boost"])
def test_where_nothing_differs_the_majority_or_the_mean_is_left(name: str, kind: str) -> None:
    """As biases are before any training, and as they have become in networks to be tested."""
    answers = [0, 1, 1, 1, 0, 1, 1, 0, 1]
    model = MODELS[name].make(Making(kind=kind)).fit(np.zeros((9, 4)), answers)
    told = model.predict(np.array([[0, 0, 0, 0], [1, 2, 3, 4.0]]))
    np.testing.assert_allclose(told, 1 if kind == "classification" else np.mean(answers))
