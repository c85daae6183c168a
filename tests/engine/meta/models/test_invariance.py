"""Models that must not see the order of neurons, on networks with permuted neurons, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wse.engine.errors import UsageError
from wse.engine.meta.models.equivariant import EquivariantNet
from wse.engine.meta.models.graph import GraphNet
from wse.engine.meta.models.probing import ProbingNet
from wse.engine.meta.models.scaling import pick
from wse.engine.nets import FAMILIES, Layout, connections, permute_neurons
from wse.engine.nets.permute import permutation

from ...nets.conftest import NWS_FIXED, SMALL_CNN, architectures, random_vector

NETS = [EquivariantNet, GraphNet, ProbingNet]
SMALL_NWS = NWS_FIXED | {"width_conv": 4, "width_fc": 64, "depth_conv": 4, "filter_size": 3}


@dataclass
class Given:
    """Networks as a net's source."""

    groups: dict[Layout, torch.Tensor]

    @property
    def layouts(self) -> list[Layout]:
        return list(self.groups)

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    def inputs(self, indices: Any) -> Any:
        return torch.arange(len(self)), self.groups


def networks(layout: Layout, count: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.stack([random_vector(layout, seed) for seed in range(count)]))


def permuted(layout: Layout, weights: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(permute_neurons(layout, weights.numpy(), np.random.default_rng(5)))


def judged(net_class: Any, groups: dict[Layout, torch.Tensor]) -> Any:
    """A net in evaluation mode, with random weights; scales come from these networks."""
    torch.manual_seed(0)
    return net_class(Given({layout: weights.float() for layout, weights in groups.items()}), 3).double().eval()


def assert_invariant(net_class: Any, *layouts: Layout) -> None:
    groups = {layout: networks(layout) for layout in layouts}
    net = judged(net_class, groups)
    place = torch.arange(sum(map(len, groups.values())))
    with torch.inference_mode():
        expected = net((place, groups))
        other = net((place, {layout: permuted(layout, weights) for layout, weights in groups.items()}))
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-9)
    assert expected.std(dim=0).min() > 1e-6  # it does tell networks apart


@pytest.mark.parametrize("net_class", NETS)
@pytest.mark.parametrize(("family", "properties"), [("nws", SMALL_NWS), ("small-cnn", SMALL_CNN)])
def test_permuted_neurons_change_nothing(net_class: Any, family: str, properties: dict[str, Any]) -> None:
    assert_invariant(net_class, Layout(FAMILIES[family].build(**properties)))


@pytest.mark.parametrize("net_class", [EquivariantNet, GraphNet])
@given(architecture=architectures())
@settings(max_examples=30)
def test_nor_do_they_in_any_architecture(net_class: Any, architecture: Any) -> None:
    layout = Layout(architecture)
    weights = networks(layout)
    net = judged(net_class, {layout: weights})
    with torch.inference_mode():
        expected = net((torch.arange(3), {layout: weights}))
        other = net((torch.arange(3), {layout: permuted(layout, weights)}))
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("net_class", NETS)
def test_other_weights_do(net_class: Any) -> None:
    """A shuffle of the values of one tensor, which no order of neurons gives."""
    layout = Layout(FAMILIES["small-cnn"].build(**SMALL_CNN))
    weights = networks(layout)
    net = judged(net_class, {layout: weights})
    spec = layout.tensors["conv2.weight"]
    shuffled = weights.clone()
    order = torch.randperm(spec.size, generator=torch.Generator().manual_seed(1))
    shuffled[:, spec.offset : spec.stop] = weights[:, spec.offset : spec.stop][:, order]
    with torch.inference_mode():
        difference = net((torch.arange(3), {layout: shuffled})) - net((torch.arange(3), {layout: weights}))
    assert difference.abs().max() > 1e-6


@given(architecture=architectures(), seed=st.integers(0, 9))
@settings(max_examples=20)
def test_layers_are_equivariant(architecture: Any, seed: int) -> None:
    """Features of permuted networks are the permuted features, before and after every layer."""
    layout = Layout(architecture)
    weights = networks(layout)
    net = judged(EquivariantNet, {layout: weights})
    places = permutation(layout, np.random.default_rng(seed))
    wired = connections(layout)
    # Which neuron of each layer goes where, read off the vector: biases carry one value a neuron.
    orders = [torch.arange(wired[0].inputs)]
    for connection in wired:
        bias = next(vector for vector in connection.vectors if vector.kind == "bias")
        orders.append(torch.from_numpy(places[bias.offset : bias.stop] - bias.offset))
    with torch.inference_mode():
        before, after = net.states(weights), net.states(weights[:, places])
    for one, other in zip(before, after, strict=True):
        for features, moved, order in zip(one.neurons, other.neurons, orders, strict=True):
            torch.testing.assert_close(moved, features[:, order], rtol=0, atol=1e-9)
        for index, (features, moved) in enumerate(zip(one.pairs, other.pairs, strict=True)):
            expected = features[:, orders[index + 1]][:, :, orders[index]]
            torch.testing.assert_close(moved, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("net_class", [GraphNet, ProbingNet])
def test_networks_are_read_one_by_one_whatever_their_company(net_class: Any) -> None:
    several = [Layout(FAMILIES["nws"].build(**(SMALL_NWS | change))) for change in ({}, {"depth_fc": 3})]
    groups = {layout: networks(layout, 2) for layout in several}
    net = judged(net_class, groups)
    with torch.inference_mode():
        together = net((torch.tensor([2, 0, 3, 1]), groups))
        alone = [
            net((torch.tensor([0]), {layout: groups[layout][row : row + 1]}))
            for layout, row in ((several[1], 0), (several[0], 0), (several[1], 1), (several[0], 1))
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-9)


def test_filters_of_a_size_that_was_not_trained_on_are_read() -> None:
    three, five = (Layout(FAMILIES["nws"].build(**(SMALL_NWS | {"filter_size": size}))) for size in (3, 5))
    net = judged(GraphNet, {three: networks(three)})
    with torch.inference_mode():
        assert net((torch.arange(3), {five: networks(five)})).isfinite().all()


def test_the_equivariant_net_reads_one_architecture() -> None:
    one, other = (Layout(FAMILIES["nws"].build(**(SMALL_NWS | {"depth_fc": depth}))) for depth in (2, 3))
    with pytest.raises(UsageError, match="these have 2"):
        judged(EquivariantNet, {one: networks(one), other: networks(other)})
    net = judged(EquivariantNet, {one: networks(one)})
    with pytest.raises(UsageError, match="cannot read nws-k3-c4x4-f3x64"):
        net((torch.arange(3), {other: networks(other)}))


@pytest.mark.parametrize(("net_class", "name"), [(GraphNet, "graph"), (ProbingNet, "probing")])
def test_networks_of_other_images_and_classes_are_refused(net_class: Any, name: str) -> None:
    nws = Layout(FAMILIES["nws"].build(**SMALL_NWS))
    small = Layout(FAMILIES["small-cnn"].build(**SMALL_CNN))
    with pytest.raises(UsageError, match=f"`{name}` reads networks with the same images and classes"):
        judged(net_class, {nws: networks(nws), small: networks(small)})
    net = judged(net_class, {nws: networks(nws)})
    with pytest.raises(UsageError, match="cannot read small-cnn"):
        net((torch.arange(3), {small: networks(small)}))


@pytest.mark.parametrize(
    ("family", "properties"), [("small-cnn", SMALL_CNN), ("nws", SMALL_NWS | {"batch_norm": False})]
)
@pytest.mark.parametrize("net_class", NETS)
def test_huge_weights_give_finite_answers_and_gradients(net_class: Any, family: str, properties: Any) -> None:
    layout = Layout(FAMILIES[family].build(**properties))
    weights = networks(layout).float()
    weights[1] *= 1e30
    net = net_class(Given({layout: weights}), 3)
    outputs = net((torch.arange(3), {layout: weights}))
    assert outputs.isfinite().all()
    outputs.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@given(architecture=architectures(), most=st.integers(1, 4))
@settings(max_examples=30)
def test_picked_neurons_are_those_of_a_network(architecture: Any, most: int) -> None:
    """Places stay in their tensor, and a connection begins at the neurons where the one before it ends."""
    layout = Layout(architecture)
    wired = connections(layout)
    picked = pick(wired, most)
    before = torch.arange(wired[0].inputs)
    for connection, part in zip(wired, picked, strict=True):
        bias = next(
            place for place, vector in zip(part.own, connection.vectors, strict=True) if vector.kind == "bias"
        )
        last = connection is wired[-1]
        after = bias[:, 0] - next(v.offset for v in connection.vectors if v.kind == "bias")
        assert len(after) == (connection.outputs if last else min(connection.outputs, most))
        assert len(after.unique()) == len(after)
        expected = connection.pairs(torch.arange(layout.size))[after][:, before]
        torch.testing.assert_close(part.pairs, expected)
        before = after
    assert sum(part.pairs.numel() for part in pick(wired)) == sum(c.weight.size for c in wired)
