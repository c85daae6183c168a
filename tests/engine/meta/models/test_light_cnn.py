from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wse.engine.meta.models import MODELS, Making
from wse.engine.meta.models.light_cnn import LightCNN, encode
from wse.engine.nets import Layout
from wse.engine.zoo import Zoo


def light(seconds: float | None = None, *, kind: str = "classification", **options):
    making = Making(kind=kind, seed=0, seconds=seconds)
    return MODELS["light-cnn"].make(making).set_params(**options)


def draw(members: int, plant: Callable[[NDArray, int], NDArray], slices: int = 4) -> tuple[NDArray, NDArray]:
    """Slices [N, 400] of normal values at a scale of each member's own, and their members [N]."""
    rng = np.random.default_rng(0)
    scales = 10 ** rng.uniform(-3, 0, members)
    owner = np.repeat(np.arange(members), slices)
    rows = [plant(scales[member] * rng.normal(size=400), member) for member in owner]
    return np.array(rows, np.float32), owner


def wave(values: NDArray, member: int) -> NDArray:
    """Every second member has a period of 7 in a third of its values, at no place in particular."""
    if member % 2:
        start = np.random.default_rng(abs(hash(float(values[0]))) % 2**32).integers(270)
        inside = values[start : start + 130]
        inside += 2 * np.abs(inside).mean() * np.sin(2 * np.pi * np.arange(130) / 7)
    return values


def test_a_planted_frequency_is_found_at_any_scale() -> None:
    X, members = draw(200, wave)
    train = members < 150
    model = light(epochs=60).fit(X[train], members[train] % 2, members[train])
    assert model.score(X[~train], members[~train] % 2) > 0.9


def test_a_planted_scale_is_found() -> None:
    X, members = draw(200, lambda values, member: values)
    scale = np.log(np.array([np.abs(X[members == member]).mean() for member in range(200)]))[members]
    train = members < 150
    model = light(kind="regression", epochs=40).fit(X[train], scale[train], members[train])
    assert model.score(X[~train], scale[~train]) > 0.95


def test_shuffled_labels_stay_at_chance() -> None:
    X, members = draw(200, wave)
    labels = np.random.default_rng(1).integers(2, size=200)[members]
    train = members < 150
    model = light(epochs=40).fit(X[train], labels[train], members[train])
    assert model.score(X[~train], labels[~train]) == pytest.approx(0.5, abs=0.2)


def test_planted_layer_is_found_in_slices_of_a_zoo(planted: Callable[..., Zoo]) -> None:
    """Slices lie at random places of the first or of the last layer of networks of two architectures."""

    def plant(member: int, layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
        values = rng.standard_normal(layout.size)
        spec = layout.tensors["fc1.weight"]
        values[spec.offset : spec.stop] *= 1 + member // 2 % 2
        return values

    zoo = planted(plant, 160)
    scores = {}
    for part in ("conv1.weight", "fc1.weight"):
        train, test = zoo.slices(part, 16, snapshots="all").split((0.75, 0.25))
        model = light(epochs=30, batch_size=32).fit(train, train.members // 2 % 2, train.members)
        model.set_params(looks=4)
        scores[part] = model.score(test, test.members // 2 % 2)
    assert scores["fc1.weight"] > 0.9
    assert scores["conv1.weight"] == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("length", [1, 7, 32, 33, 1000])
def test_any_length_is_read(length: int) -> None:
    torch.manual_seed(0)
    net = LightCNN(3)
    values = torch.randn(4, length)
    net(values).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.eval()(values).isfinite().all()


def test_extreme_slices_are_finite() -> None:
    values = torch.stack([torch.full((100,), size) for size in (0.0, 0.1, 1e30, 1e38, 1e-30)])
    assert encode(values).isfinite().all()
    net = LightCNN(2)
    loss = net(values).square().sum()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_own_scale_and_all_scales() -> None:
    values = torch.randn(2, 50)
    squashed, sizes, scale = encode(values).unbind(dim=1)
    squashed10, sizes10, scale10 = encode(10 * values).unbind(dim=1)
    torch.testing.assert_close(squashed, squashed10, rtol=1e-3, atol=1e-4)
    assert squashed.abs().max() < 1
    torch.testing.assert_close(sizes10 - sizes, torch.full_like(sizes, np.log(10) / 3), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scale10 - scale, torch.full_like(sizes, np.log(10) / 3), rtol=1e-3, atol=1e-3)
