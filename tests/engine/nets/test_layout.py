"""The counts of the protocol, and the vector's map for any list of layers."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given

from wse.engine.errors import UsageError
from wse.engine.nets import (
    FAMILIES,
    Activate,
    Architecture,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Input,
    Layout,
    Linear,
    MaxPool,
)
from wse.engine.nets.module import build

from .conftest import SMALL_CNN, architectures

COLUMNS = ("beta", "gamma", "moving_mean", "moving_variance")


# -- the protocol's numbers


def test_nws_fixed_counts(nws_fixed):
    layout = Layout(nws_fixed)
    assert layout.size == 92_868
    assert layout.part("conv") == (0, 16_880)
    assert layout.part("fc") == (16_880, 92_868)
    assert 92_868 - 16_880 == 75_988
    by_layer = []
    for layer in layout.layers:
        start, stop = layout.part(layer)
        weight = layout.tensors[f"{layer}.weight"].size
        by_layer.append((weight, stop - start - weight))
    assert layout.layers == ("conv1", "conv2", "conv3", "fc1", "fc2", "fc3")
    assert by_layer == [(600, 40), (3_200, 80), (12_800, 160), (65_536, 640), (8_192, 320), (1_280, 20)]


def test_all_243_architectures_of_nws_main():
    grid = itertools.product((3, 5, 7), (3, 4, 5), (4, 8, 12), (2, 3, 4), (64, 128, 192))
    names = ("filter_size", "depth_conv", "width_conv", "depth_fc", "width_fc")
    built = [FAMILIES["nws"].build(**dict(zip(names, values, strict=True)), batch_norm=True) for values in grid]
    sizes = [Layout(architecture).size for architecture in built]
    assert len(built) == len({architecture.name for architecture in built}) == 243
    assert (min(sizes), max(sizes)) == (21_260, 388_172)
    assert round(statistics.mean(sizes)) == 125_270
    assert statistics.median(sizes) == 95_844
    assert {architecture.outputs for architecture in built} == {20}


def test_small_cnn_counts(small_cnn):
    layout = Layout(small_cnn)
    assert layout.size == 4_970
    shapes = {spec.name: spec.shape for spec in layout.tensors.values()}
    assert shapes == {
        "conv1.weight": (16, 1, 3, 3),
        "conv1.bias": (16,),
        "conv2.weight": (16, 16, 3, 3),
        "conv2.bias": (16,),
        "conv3.weight": (16, 16, 3, 3),
        "conv3.bias": (16,),
        "fc1.weight": (10, 16),
        "fc1.bias": (10,),
    }
    assert small_cnn.outputs == 10


@pytest.mark.parametrize(("depth", "convs"), [(3, (1, 1, 1)), (4, (1, 1, 2)), (5, (1, 2, 2))])
def test_nws_blocks(depth, convs):
    architecture = FAMILIES["nws"].build(
        filter_size=7, depth_conv=depth, width_conv=12, depth_fc=3, width_fc=192, batch_norm=True
    )
    expected = []
    for block, count in enumerate(convs):
        expected += [Conv(channels=12 * 2**block, kernel=7), BatchNorm(), Activate()] * count + [MaxPool(size=2)]
    expected.append(Flatten())
    for width in (192, 96, 48):
        expected += [Linear(features=width), Activate(), BatchNorm(), Dropout()]
    assert list(architecture.layers) == [*expected, Linear(features=20)]
    assert architecture.input == Input(size=32, color="rgb", low=0.0, high=1.0)


def test_nws_without_batch_norm(nws_fixed):
    plain = FAMILIES["nws"].build(
        filter_size=5, depth_conv=3, width_conv=8, depth_fc=2, width_fc=128, batch_norm=False
    )
    assert list(plain.layers) == [layer for layer in nws_fixed.layers if not isinstance(layer, BatchNorm)]
    assert plain.name != nws_fixed.name


def test_small_cnn_layers(small_cnn):
    conv = Conv(channels=16, kernel=3, stride=2, padding="valid")
    assert list(small_cnn.layers) == [conv, Activate(), Dropout()] * 3 + [GlobalAveragePool(), Linear(features=10)]
    assert small_cnn.input == Input(size=32, color="grey", low=-1.0, high=1.0)
    normed = FAMILIES["small-cnn"].build(**SMALL_CNN | {"batch_norm": True})
    assert list(normed.layers[:4]) == [conv, BatchNorm(), Activate(), Dropout()]
    assert normed.name != small_cnn.name


# -- any list of layers


@given(architectures())
def test_vector_is_covered_without_gap_or_overlap(architecture):
    layout = Layout(architecture)
    owners = np.zeros(layout.size, dtype=int)
    place = 0
    for spec in layout.tensors.values():
        assert spec.offset == place
        assert spec.size == int(np.prod(spec.shape)) > 0
        assert spec.stop == place + spec.size
        owners[spec.offset : spec.stop] += 1
        place = spec.stop
    assert (owners == 1).all()
    assert layout.part("all") == (0, place)


@given(architectures())
def test_names_and_shapes_are_the_modules(architecture):
    state = build(architecture, "relu").state_dict()
    tensors = Layout(architecture).tensors
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: spec.shape for name, spec in tensors.items()
    }
    assert all(tensors[name].name == name for name in tensors)


@given(architectures())
def test_order_and_flags(architecture):
    layout = Layout(architecture)
    for layer in layout.layers:
        kinds = [spec.kind for spec in layout.tensors.values() if spec.layer == layer]
        assert kinds in (["weight", "bias"], ["weight", "bias", *COLUMNS])
    for spec in layout.tensors.values():
        assert spec.is_statistic == (spec.kind in ("moving_mean", "moving_variance"))
        assert spec.is_statistic == (".moving_" in spec.name)
    convs = sum(isinstance(layer, Conv) for layer in architecture.layers)
    linears = sum(isinstance(layer, Linear) for layer in architecture.layers)
    expected = [f"conv{i + 1}" for i in range(convs)] + [f"fc{i + 1}" for i in range(linears)]
    assert list(layout.layers) == expected


def test_statistics_of_nws_fixed(nws_fixed):
    layout = Layout(nws_fixed)
    statistics = [spec for spec in layout.tensors.values() if spec.is_statistic]
    assert sum(spec.size for spec in statistics) == 2 * (8 + 16 + 32 + 128 + 64)
    assert {spec.layer for spec in statistics} == {"conv1", "conv2", "conv3", "fc1", "fc2"}


# -- frozen biases


def frozen(*layers):
    architecture = Architecture(name="test", input=Input(size=8), layers=(*layers, Linear(features=2)))
    return [spec.name for spec in Layout(architecture).tensors.values() if spec.frozen]


def test_frozen_biases_of_nws_are_those_of_convolutions(nws_fixed):
    names = [spec.name for spec in Layout(nws_fixed).tensors.values() if spec.frozen]
    assert names == ["conv1.bias", "conv2.bias", "conv3.bias"]


def test_no_bias_of_small_cnn_is_frozen(small_cnn):
    assert not any(spec.frozen for spec in Layout(small_cnn).tensors.values())


CONV = Conv(channels=3, kernel=3)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        pytest.param((CONV, BatchNorm(), Flatten()), ["conv1.bias"], id="directly"),
        pytest.param((CONV, MaxPool(), BatchNorm(), Flatten()), ["conv1.bias"], id="pooled"),
        pytest.param((CONV, Flatten(), BatchNorm()), ["conv1.bias"], id="flattened"),
        pytest.param((CONV, GlobalAveragePool(), BatchNorm()), ["conv1.bias"], id="averaged"),
        pytest.param((CONV, Activate(), BatchNorm(), Flatten()), [], id="activation-between"),
        pytest.param((CONV, Dropout(), BatchNorm(), Flatten()), [], id="dropout-between"),
        pytest.param((CONV, CONV, BatchNorm(), Flatten()), ["conv2.bias"], id="another-layer-between"),
        pytest.param((CONV, Flatten()), [], id="none"),
        pytest.param((Flatten(), Linear(features=3), BatchNorm()), ["fc1.bias"], id="linear"),
    ],
)
def test_frozen_where_normalisation_takes_the_bias_away(layers, expected):
    assert frozen(*layers) == expected


def test_normalisation_of_a_flattened_image_has_a_column_a_pixel():
    architecture = Architecture(
        name="test", input=Input(size=8), layers=(CONV, Flatten(), BatchNorm(), Linear(features=2))
    )
    assert Layout(architecture).tensors["conv1.bn.gamma"].shape == (8 * 8 * 3,)


# -- parts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all", (0, 92_868)),
        ("conv", (0, 16_880)),
        ("fc", (16_880, 92_868)),
        ("conv1", (0, 640)),
        ("conv3", (3_920, 16_880)),
        ("conv3.weight", (3_920, 16_720)),
        ("conv3.bias", (16_720, 16_752)),
        ("conv3.bn", (16_752, 16_880)),
        ("conv3.bn.gamma", (16_784, 16_816)),
        ("conv3.bn.moving_variance", (16_848, 16_880)),
        ("fc3", (91_568, 92_868)),
        ("fc3.bias", (92_848, 92_868)),
    ],
)
def test_parts(nws_fixed, name, expected):
    assert Layout(nws_fixed).part(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv2", [(640, 3_888, "conv2")]),  # 3,200 weights, 16 biases, 16 of beta and of gamma; then statistics
        ("conv3.bn", [(16_752, 16_816, "conv3")]),
        ("conv3.bn.moving_mean", []),
        ("conv", [(0, 624, "conv1"), (640, 3_888, "conv2"), (3_920, 16_816, "conv3")]),
    ],
)
def test_runs_leave_moving_averages_out(nws_fixed, name, expected):
    assert list(Layout(nws_fixed).runs(name)) == expected


@given(architectures())
def test_runs_hold_every_value_of_one_layer_once(architecture):
    layout = Layout(architecture)
    for included in (False, True):
        place = 0
        for start, stop, layer in layout.runs("all", statistics=included):
            assert place <= start < stop
            inside = [spec for spec in layout.tensors.values() if start <= spec.offset < stop]
            assert {spec.layer for spec in inside} == {layer}
            skipped = [spec for spec in layout.tensors.values() if place <= spec.offset < start]
            assert all(spec.is_statistic and not included for spec in skipped)
            place = stop


@pytest.mark.parametrize(
    "name", ["", "conv4", "con", "conv3.", "conv3.b", "fc3.bn", "bn", "weight", "conv.weight", "3", ".", "ALL"]
)
def test_unknown_parts(nws_fixed, name):
    with pytest.raises(UsageError, match="no part") as error:
        Layout(nws_fixed).part(name)
    for word in (repr(name), "conv, fc", "conv3", "conv1.weight"):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_conv1_is_not_conv10():
    layers = [Conv(channels=2, kernel=1)] * 11 + [Flatten(), Linear(features=2)]
    layout = Layout(Architecture(name="deep", input=Input(), layers=tuple(layers)))
    assert layout.part("conv1") == (0, 8)
    assert layout.part("conv10") == (8 + 8 * 6, 8 + 9 * 6)


@given(architectures())
def test_parts_are_unions_of_their_tensors(architecture):
    layout = Layout(architecture)
    for layer in layout.layers:
        specs = [spec for spec in layout.tensors.values() if spec.layer == layer]
        assert layout.part(layer) == (specs[0].offset, specs[-1].stop)
    for spec in layout.tensors.values():
        assert layout.part(spec.name) == (spec.offset, spec.stop)


def test_fans_count_the_receptive_field(nws_fixed):
    tensors = Layout(nws_fixed).tensors
    assert tensors["conv2.weight"].shape == (16, 8, 5, 5)
    assert tensors["conv2.weight"].fans == (8 * 25, 16 * 25)
    assert tensors["fc1.weight"].shape == (128, 512)
    assert tensors["fc1.weight"].fans == (512, 128)
