"""scikit-learn's own checks of its conventions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from wse.engine.meta.models.fitting import DeepClassifier, DeepRegressor

from .conftest import tiny_net

OPTIONS: dict[str, Any] = {"epochs": 60, "learning_rate": 0.03, "patience": 60, "random_state": 0}

# The one check that cannot pass: single precision is coarser than what it asks for.
FAILURES = {"check_methods_subset_invariance": "the last bits of sums in float32 depend on the size of the batch"}


def checks() -> Iterator[Any]:
    for estimator in (DeepClassifier(tiny_net, **OPTIONS), DeepRegressor(tiny_net, **OPTIONS)):
        expected = FAILURES if isinstance(estimator, DeepRegressor) else {}
        yield from estimator_checks_generator(estimator, expected_failed_checks=expected, mark="xfail")


def name(parameter: Any) -> str:
    """The same in every process, unlike what scikit-learn calls them, which has addresses in it."""
    return parameter.func.__name__ if hasattr(parameter, "func") else type(parameter).__name__


@pytest.mark.parametrize(("estimator", "check"), list(checks()), ids=name)
def test_sklearn(estimator: Any, check: Any) -> None:
    check(estimator)
