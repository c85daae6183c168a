"""Models of whole networks on zoos: what is planted is found, and nothing where nothing is."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from wse.engine.errors import UsageError
from wse.engine.meta.models import MODELS, Making
from wse.engine.meta.models.networks import NetworkSource, by_architecture
from wse.engine.meta.models.scaling import END, Scaling
from wse.engine.nets import Layout
from wse.engine.zoo import Zoo

from .conftest import LAYOUTS

NAMES = ("equivariant", "graph", "probing")


def noise(member: int, layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random weights of a network that can be run."""
    values = rng.standard_normal(layout.size)
    for spec in layout.tensors.values():
        if spec.kind == "moving_variance":
            values[spec.offset : spec.stop] = rng.uniform(0.5, 2, spec.size)
    return values


def planted_size(member: int, layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of half the members, the last layer is three times as large."""
    values = noise(member, layout, rng)
    spec = layout.tensors["fc1.weight"]
    values[spec.offset : spec.stop] *= 1 + 2 * label(member)
    return values


def label(member: int) -> int:
    """0 or 1: another for every second member of each architecture."""
    return member // 2 % 2


def made(name: str, seed: int = 0, kind: Any = "classification", **changes: Any) -> Any:
    estimator = MODELS[name].make(Making(kind=kind, seed=seed))
    return estimator.set_params(**({"epochs": 30} | changes))


def architectures_for(name: str) -> tuple[str, ...]:
    return ("narrow",) if name == "equivariant" else ("narrow", "wide")


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_property_is_found(planted: Callable[..., Zoo], name: str) -> None:
    items = planted(planted_size, 160, architectures_for(name)).items()
    answers = np.array([label(member) for member in items.members])
    train = items.members < 110
    estimator = made(name).fit(items.only(train), answers[train], groups=items.members[train])
    told = estimator.predict_proba(items.only(~train))
    assert told.shape == (50, 2)
    assert (estimator.predict(items.only(~train)) == answers[~train]).mean() > 0.85


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_where_nothing_is(planted: Callable[..., Zoo], name: str) -> None:
    items = planted(noise, 160, architectures_for(name)).items()
    answers = np.random.default_rng(3).permutation(np.arange(160) % 2)
    train = items.members < 80
    estimator = made(name).fit(items.only(train), answers[train], groups=items.members[train])
    right = (estimator.predict(items.only(~train)) == answers[~train]).mean()
    assert abs(right - 0.5) < 0.2  # 80 items: 3.5 standard deviations


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_number_is_found(planted: Callable[..., Zoo], name: str) -> None:
    def plant(member: int, layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
        values = noise(member, layout, rng)
        spec = layout.tensors["fc1.weight"]
        values[spec.offset : spec.stop] *= np.exp(sizes[member])
        return values

    sizes = np.random.default_rng(1).normal(size=200)
    items = planted(plant, 200, architectures_for(name)).items()
    train = items.members < 150
    estimator = made(name, kind="regression").fit(items.only(train), sizes[train], groups=items.members[train])
    error = (estimator.predict(items.only(~train)) - sizes[~train]) / sizes[~train].std()
    assert 1 - (error**2).mean() > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_a_rerun_is_the_same_and_another_seed_is_not(planted: Callable[..., Zoo], name: str) -> None:
    items = planted(planted_size, 24, architectures_for(name)).items()
    answers = np.array([label(member) for member in items.members])
    first, again, other = (
        made(name, seed, epochs=3).fit(items, answers, groups=items.members).predict_proba(items)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("name", NAMES)
def test_estimators_are_cloned_and_pickled(planted: Callable[..., Zoo], name: str) -> None:
    items = planted(noise, 24, architectures_for(name)).items()
    answers = np.arange(24) % 3
    estimator = clone(made(name, epochs=2)).fit(items, answers)
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.predict_proba(items), estimator.predict_proba(items))


def test_the_equivariant_model_refuses_several_architectures(planted: Callable[..., Zoo]) -> None:
    items = planted(noise, 8).items()
    with pytest.raises(UsageError, match="reads networks of one architecture, and these have 2"):
        made("equivariant").fit(items, np.arange(8) % 2)


def test_probes_learn(planted: Callable[..., Zoo]) -> None:
    """Gradients reach the images through the networks."""
    items = planted(planted_size, 24).items()
    net = MODELS["probing"].make(Making(kind="classification")).net(NetworkSource(items), 2)
    before = net.probes().detach()
    assert before.shape[1:] == (3, 6, 6)
    assert 0 <= before.min() < before.max() <= 1
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    net(NetworkSource(items).inputs(np.arange(24))).square().sum().backward()
    optimizer.step()
    assert (net.probes() - before).abs().amax(dim=(1, 2, 3)).min() > 1e-4


def test_networks_come_in_the_order_of_the_batch(planted: Callable[..., Zoo]) -> None:
    items = planted(noise, 8).items(snapshots="all")
    source = NetworkSource(items)
    assert [layout.architecture.name for layout in source.layouts] == ["narrow", "wide"]
    indices = np.array([9, 2, 5, 0, 15])
    firsts = by_architecture(source.inputs(indices), lambda layout, weights: weights[:, :3])
    expected = np.stack([items.weights(index, 0, 3) for index in indices])
    np.testing.assert_array_equal(firsts.numpy(), expected)


def test_some_items_are_those_items(planted: Callable[..., Zoo]) -> None:
    items = planted(noise, 8).items()
    part = NetworkSource(items).only(items.members % 2 == 1)
    assert len(part) == 4
    assert part.layouts == [items.zoo.layout("wide")]
    ((weights,),) = (list(part.inputs(np.array([1]))[1].values()),)
    np.testing.assert_array_equal(weights[0].numpy(), items.weights(3))


def test_values_are_shown_at_their_size_and_among_their_neighbours(planted: Callable[..., Zoo]) -> None:
    items = planted(planted_size, 40, ("narrow",)).items()
    source = NetworkSource(items)
    scaling = Scaling(source, lambda spec: spec.name)
    layout = items.layout(0)
    spec = layout.tensors["fc1.weight"]
    (weights,) = source.inputs(np.arange(40))[1].values()
    shown = scaling(spec, torch.arange(spec.offset, spec.stop).view(spec.shape), weights)
    assert shown.shape == (40, *spec.shape, Scaling.channels)
    absolute, own = shown[..., 0].square().mean(dim=(1, 2)), shown[..., -3]
    large = torch.tensor([label(member) == 1 for member in items.members.tolist()])
    assert absolute[large].min() > absolute[~large].max()
    torch.testing.assert_close(own.mean(dim=(1, 2)), torch.zeros(40), rtol=0, atol=1e-5)
    torch.testing.assert_close(own.square().mean(dim=(1, 2)), torch.ones(40), rtol=1e-3, atol=0)
    values = weights[:, spec.offset : spec.stop].view(40, *spec.shape)
    torch.testing.assert_close(own.argsort(dim=-1), values.argsort(dim=-1))


def test_constant_tensors_and_unknown_ones_are_shown_as_well(planted: Callable[..., Zoo]) -> None:
    def plant(member: int, layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
        return np.full(layout.size, 3e20 if member == 3 else 0.25)

    items = planted(plant, 8, ("narrow",)).items()
    scaling = Scaling(NetworkSource(items), lambda spec: spec.name)
    (weights,) = NetworkSource(items).inputs(np.arange(8))[1].values()
    for layout in (LAYOUTS["narrow"], LAYOUTS["wide"]):
        for spec in layout.tensors.values():
            places = torch.arange(spec.offset, spec.stop).clamp(max=weights.shape[1] - 1)
            shown = scaling(spec, places, weights)
            assert shown.isfinite().all()
            assert shown[..., -3:].abs().max() <= END
