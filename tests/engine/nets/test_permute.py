"""Networks with permuted neurons compute what they computed, and their weights are other ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wse.engine.nets import Layout, connections, permute_neurons
from wse.engine.nets.module import build
from wse.engine.space import PRESETS, Space

from .conftest import architectures, random_vector


def outputs(layout, flat, images):
    """Logits in float64."""
    network = build(layout.architecture, "tanh").double()
    values = torch.from_numpy(flat)
    network.load_state_dict(
        {spec.name: values[spec.offset : spec.stop].view(spec.shape) for spec in layout.tensors.values()}
    )
    with torch.inference_mode():
        return network(images)


def images_for(layout, count=2):
    size = layout.architecture.input.size
    return torch.rand(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def architectures_of(preset, count=12):
    """Different architectures of a preset: all, if there are no more."""
    space = Space.load(preset=preset)
    found = {}
    for member in space.members(0, range(20 * count)):
        found[member.architecture.name] = member.architecture
    return list(found.values())[:count]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_function_stays(preset):
    for architecture in architectures_of(preset):
        layout = Layout(architecture)
        flat = random_vector(layout)
        permuted = permute_neurons(layout, flat, np.random.default_rng(1))
        images = images_for(layout)
        expected = outputs(layout, flat, images)
        torch.testing.assert_close(outputs(layout, permuted, images), expected, rtol=1e-9, atol=1e-9)
        assert expected.std() > 1e-3
        for connection in connections(layout):
            if connection.outputs >= 8:  # four neurons keep their order now and then
                assert (connection.pairs(permuted) != connection.pairs(flat)).mean() > 0.5, connection.layer
        np.testing.assert_array_equal(np.sort(permuted), np.sort(flat))


@given(architecture=architectures(), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_the_function_of_any_network_stays(architecture, seed):
    layout = Layout(architecture)
    flat = random_vector(layout, seed)
    permuted = permute_neurons(layout, flat, np.random.default_rng(seed))
    images = images_for(layout)
    torch.testing.assert_close(
        outputs(layout, permuted, images), outputs(layout, flat, images), rtol=1e-9, atol=1e-9
    )


def test_every_network_has_an_order_of_its_own(small_cnn):
    layout = Layout(small_cnn)
    flat = np.arange(layout.size, dtype=np.float32)
    several = permute_neurons(layout, np.stack([flat] * 3), np.random.default_rng(0))
    assert several.shape == (3, layout.size)
    assert several.dtype == np.float32
    assert len(np.unique(several, axis=0)) == 3
    np.testing.assert_array_equal(several[0], permute_neurons(layout, flat, np.random.default_rng(0)))


def test_what_is_given_is_left_alone(small_cnn):
    layout = Layout(small_cnn)
    flat = random_vector(layout)
    kept = flat.copy()
    permute_neurons(layout, flat, np.random.default_rng(0))
    np.testing.assert_array_equal(flat, kept)


def test_logits_keep_their_order(small_cnn):
    layout = Layout(small_cnn)
    last = connections(layout)[-1]
    flat = random_vector(layout)
    permuted = permute_neurons(layout, flat, np.random.default_rng(0))
    np.testing.assert_array_equal(last.own(last.vectors[0], permuted), last.own(last.vectors[0], flat))


def test_connections_cover_the_vector(nws_fixed):
    layout = Layout(nws_fixed)
    sizes = [
        connection.pairs(np.zeros(layout.size)).size + sum(vector.size for vector in connection.vectors)
        for connection in connections(layout)
    ]
    assert sum(sizes) == layout.size
    assert [connection.taps for connection in connections(layout)] == [(5, 5)] * 3 + [(4, 4), (1, 1), (1, 1)]


@given(architecture=architectures())
@settings(max_examples=30)
def test_variances_stay_among_variances(architecture):
    """Values move within their tensor only."""
    layout = Layout(architecture)
    tensor = np.concatenate([np.full(spec.size, number) for number, spec in enumerate(layout.tensors.values())])
    np.testing.assert_array_equal(permute_neurons(layout, tensor, np.random.default_rng(0)), tensor)
