from __future__ import annotations

import pytest

from wse.engine.meta.models import MODELS, DeepClassifier, DeepRegressor, Making

DEEP = [name for name, spec in MODELS.items() if spec.deep]


def test_names_and_what_they_read() -> None:
    reads = {name: spec.reads for name, spec in MODELS.items()}
    assert reads.items() >= {"dmc": "slices", "light-cnn": "slices", "transformer": "networks"}.items()
    assert {"dmc", "light-cnn", "transformer"} <= set(DEEP)


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("estimator", [DeepClassifier, DeepRegressor])
def test_models_are_made_as_asked(name: str, estimator: type) -> None:
    kind = "classification" if estimator is DeepClassifier else "regression"
    told: list[float] = []
    making = Making(
        kind=kind, seed=3, seconds=7.5, device="cuda", progress=lambda share, words: told.append(share)
    )
    model = MODELS[name].make(making)
    assert type(model) is estimator
    assert (model.random_state, model.seconds, model.device) == (3, 7.5, "cuda")
    model.progress(0.5, "")
    assert told == [0.5]
    assert not hasattr(model, "net_")
