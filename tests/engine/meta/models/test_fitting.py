from __future__ import annotations

import math
import pickle
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wse.engine.errors import WseError
from wse.engine.meta.models.fitting import DeepClassifier, DeepRegressor
from wse.engine.meta.models.loop import Data
from wse.engine.meta.models.source import ArraySource, SliceSource
from wse.engine.zoo import Zoo

from .conftest import tiny_net

# 200 members of 3 items; the class is told by the sign of one value, the number by its size.
MEMBERS = np.repeat(np.arange(200), 3)
X = np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32)
CLASSES = np.array(["adam", "sgd"])[(X[:, 3] > 0).astype(int)]
NUMBERS = 1000 + 250 * X[:, 3].astype(np.float64)


def classifier(**options: Any) -> DeepClassifier:
    return DeepClassifier(tiny_net, **{"learning_rate": 0.01, "random_state": 0, "epochs": 20, **options})


def test_planted_class_and_number_are_found() -> None:
    train, test = MEMBERS < 150, MEMBERS >= 150
    model = classifier().fit(X[train], CLASSES[train], MEMBERS[train])
    assert model.score(X[test], CLASSES[test]) > 0.9
    regressor = DeepRegressor(tiny_net, learning_rate=0.01, random_state=0).fit(X[train], NUMBERS[train])
    assert (
        np.abs(regressor.predict(X[test]) - NUMBERS[test]).mean() < 25
    )  # in the units of y: a tenth of its spread


def test_shuffled_labels_stay_at_chance() -> None:
    """Members share a signature, so a net that has seen a member's items knows it: its label must not help."""
    rng = np.random.default_rng(1)
    signature = 3 * rng.normal(size=(200, 12))[MEMBERS]
    values = (X + signature).astype(np.float32)
    labels = rng.integers(2, size=200)[MEMBERS]
    train, test = MEMBERS < 150, MEMBERS >= 150
    model = classifier(epochs=60, patience=60).fit(values[train], labels[train], MEMBERS[train])
    trained_on = train & ~np.isin(MEMBERS, model.validation_groups_)
    held = train & ~trained_on
    assert model.score(values[test], labels[test]) == pytest.approx(0.5, abs=0.2)
    assert model.score(values[held], labels[held]) < 0.8
    # Over-confidence on what was learnt by heart is seen on the held-out members.
    probability = model.predict_proba(values[test]).max(axis=1)
    assert probability.mean() < 0.75


def test_groups_are_held_out_whole() -> None:
    seen: dict[str, set[int]] = {"train": set(), "evaluation": set()}

    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            seen["train" if self.training else "evaluation"] |= set(values[:, 0].int().tolist())
            return self.linear(values)

    values = np.stack([MEMBERS, X[:, 0]], axis=1)
    model = DeepClassifier(lambda source, outputs: Recording(), epochs=2, random_state=3)
    model.fit(values, CLASSES, MEMBERS)
    assert not seen["train"] & seen["evaluation"]
    assert seen["train"] | seen["evaluation"] == set(range(200))
    assert seen["evaluation"] == set(model.validation_groups_)
    assert len(model.validation_groups_) == 30


@pytest.mark.parametrize("seconds", [None, 1000.0])
def test_reruns_have_the_same_bits_and_spare_the_caller_s_random_numbers(seconds: float | None) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (classifier(seconds=seconds, epochs=3).fit(X, CLASSES, MEMBERS) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for name, value in first.net_.state_dict().items():
        assert torch.equal(value, second.net_.state_dict()[name])
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    other = classifier(seconds=seconds, epochs=3, random_state=1).fit(X, CLASSES, MEMBERS)
    assert (other.predict_proba(X) != first.predict_proba(X)).any()


class Slow(nn.Module):
    """Takes 10 ms a batch of any size, and trains as a linear net does."""

    def __init__(self, source: Any, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(source.length, outputs)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        result: torch.Tensor = self.linear(values)
        return result


@pytest.mark.parametrize("seconds", [0.001, 0.5, 2.0])
def test_budget_is_kept_and_used(seconds: float) -> None:
    model = DeepClassifier(Slow, seconds=seconds, epochs=500, batch_size=32, random_state=0)
    begun = time.perf_counter()
    model.fit(X, CLASSES, MEMBERS)
    taken = time.perf_counter() - begun
    # One batch and one validation of three batches take 0.05 s; machines are shared.
    assert taken < seconds + 0.5
    assert model.stopped_ == "budget"
    assert 0 < model.epochs_ < 500
    assert model.epochs_ == math.ceil(model.items_ / 510)
    assert f"{model.items_:,} items" in model.note_
    assert model.note_.endswith("stopped by budget")
    if seconds >= 0.5:
        assert taken > 0.8 * seconds


@pytest.mark.parametrize("count", [1, 16, 80, 160, 1599, 1600])
def test_thinned_items_are_of_many_snapshots(count: int) -> None:
    """80 members with 20 snapshots each."""
    data = Data(source=ArraySource(np.zeros((1600, 1), np.float32)), targets=torch.arange(1600))
    chosen = data.thinned(count).targets
    assert len(chosen.unique()) == count
    assert len((chosen % 20).unique()) >= min(count, 5)
    assert len((chosen // 20).unique()) >= min(count, 80)


def test_learning_rate_follows_the_budget() -> None:
    rates: list[float] = []

    class Watching(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.optim.AdamW", Watching)
        DeepClassifier(Slow, seconds=1.5, epochs=10_000, learning_rate=0.1, random_state=0).fit(X, CLASSES)
    top = int(np.argmax(rates))
    assert max(rates) > 0.08
    assert top < len(rates) / 2
    assert rates[-1] < 0.02


def test_patience_ends_training_and_the_best_weights_are_kept() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(2, size=600)
    model = classifier(epochs=500, patience=3, schedule="constant").fit(X, noise, MEMBERS)
    assert model.stopped_ == "patience"
    assert model.epochs_ < 500
    # Of the weights after each epoch those are kept that told the held-out members best: here nearly the first.
    probabilities = model.predict_proba(X)
    assert probabilities.max() < 0.9


def test_probabilities_are_calibrated_on_held_out_members() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(4000, 6))
    labels = (values[:, 0] + 1.5 * rng.normal(size=4000) > 0).astype(int)
    members = np.arange(4000) // 4
    model = classifier(epochs=15).fit(values[:2000], labels[:2000], members[:2000])
    probabilities = model.predict_proba(values[2000:])[:, 1]
    for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.9)):
        inside = (probabilities >= low) & (probabilities < high)
        assert inside.sum() > 100
        assert labels[2000:][inside].mean() == pytest.approx(probabilities[inside].mean(), abs=0.1)


def test_progress_tells_the_share_and_the_time_left() -> None:
    told: list[tuple[float, str]] = []
    model = DeepClassifier(
        Slow, epochs=8, random_state=0, progress=lambda share, words: told.append((share, words))
    ).fit(X, CLASSES)
    shares = [share for share, _ in told]
    assert len(shares) >= 3
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert all("left" in words and words.startswith("epoch ") for _, words in told[:-1])
    assert told[-1][1] == model.note_


def test_pickled_models_predict_the_same() -> None:
    model = classifier(epochs=3, progress=lambda share, words: None).fit(X, CLASSES, MEMBERS)
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))
    assert restored.progress is None
    assert list(restored.classes_) == ["adam", "sgd"]


def test_values_that_are_not_finite() -> None:
    class Broken(ArraySource):
        def inputs(self, indices: Any) -> torch.Tensor:
            return super().inputs(indices) / 0

        def only(self, chosen: Any) -> Broken:
            return Broken(self.values[chosen])

    class Exploding(nn.Linear):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return torch.exp(1000 + super().forward(values))

    with pytest.raises(ValueError, match="Input X contains NaN"):
        classifier().fit(np.where(X > 3, np.nan, X), CLASSES)
    with pytest.raises(ValueError, match="Input X contains NaN or infinity"):
        classifier().fit(Broken(X), CLASSES)
    with pytest.raises(WseError, match="diverged at once"):
        DeepClassifier(lambda source, outputs: Exploding(source.length, outputs)).fit(X, CLASSES)


def test_slices_are_other_ones_in_every_epoch_and_fixed_for_predictions(planted: Any) -> None:
    zoo: Zoo = planted(lambda member, layout, rng: np.arange(layout.size), 40)
    slices = zoo.slices("all", 8, snapshots="all")
    seen: list[set[float]] = []

    def build(source: Any, outputs: int) -> nn.Module:
        net = tiny_net(source, outputs)
        net.register_forward_hook(lambda module, inputs, output: seen.append(set(inputs[0][:, 0].tolist())))
        return net

    model = DeepClassifier(build, epochs=3, validation=0.0, batch_size=80, random_state=0)
    model.fit(slices, slices.members % 2, slices.members)
    assert len(seen) == 3
    assert seen[0] != seen[1] != seen[2]
    seen.clear()
    first = model.predict_proba(slices)
    slices.set_epoch(7)
    np.testing.assert_array_equal(model.predict_proba(slices), first)
    assert seen[0] == seen[1]
    seen.clear()
    model.set_params(looks=3)
    assert (model.predict_proba(slices) != first).any()
    assert len({frozenset(places) for places in seen}) == 3
    whole = zoo.slices("conv1.bias", 2, members=[0, 2, 4])
    assert not SliceSource(whole).random
    assert SliceSource(slices).random
