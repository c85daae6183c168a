"""Members are pure functions of (space, seed, id), and follow the space's distributions."""

from __future__ import annotations

import math
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wse.engine.errors import UsageError
from wse.engine.space import Space
from wse.kernels.philox import words

P = 1e-4
MAIN = Space.load(preset="nws-main")
SMALL = Space.load(preset="small-cnn")


@pytest.fixture(scope="module")
def ten_thousand():
    return MAIN.members(0, range(10_000))


# -- purity


@settings(max_examples=25)
@given(st.lists(st.integers(0, 499), min_size=1, max_size=20))
def test_any_members_in_any_order(ids):
    everybody = MAIN.members(9, range(500))
    assert MAIN.members(9, ids) == [everybody[i] for i in ids]
    assert MAIN.members(9, np.array(ids)) == [everybody[i] for i in ids]


def test_ids_and_seed_are_recorded():
    members = MAIN.members(2**64 - 1, [7, 2**32 - 1, 0])
    assert [member.id for member in members] == [7, 2**32 - 1, 0]
    assert all(type(member.id) is int and member.seed == 2**64 - 1 for member in members)
    assert MAIN.members(0, []) == []


def test_seeds_and_ids_differ():
    rates = {member.setup.learning_rate for seed in (0, 1, 2**32) for member in MAIN.members(seed, range(100))}
    assert len(rates) == 300


def test_a_property_reads_its_own_word():
    """Addressed by the property's name: word 0 of the block (crc32 of the name, 0, member, stream 1)."""
    for member in MAIN.members(6, [0, 5, 2**31]):
        word = words(6, member=member.id, stream=1, count=1, first=zlib.crc32(b"learning_rate"))[0]
        u = (int(word) + 0.5) / 2**32
        assert member.setup.learning_rate == pytest.approx(0.0002 + (0.005 - 0.0002) * u, rel=1e-14)
        word = words(6, member=member.id, stream=1, count=1, first=zlib.crc32(b"dataset"))[0]
        names = ("mnist", "cifar10", "svhn", "stl10", "fashion-mnist")
        assert member.setup.dataset == names[int(word) * 5 // 2**32]


@pytest.mark.parametrize(
    "override",
    [
        {"optimizer": "adam"},
        {"optimizer": ["adam", "sgd"]},
        {"learning_rate": {"log_uniform": [1e-4, 1e-1]}},
        {"epochs": {"uniform": [1, 5]}},
        {"depth_conv": 3},
        {"dropout": {"uniform": [0, 0.9]}},
        {"momentum": 0.5},
    ],
    ids=lambda override: "-".join(map(str, next(iter(override.items())))),
)
def test_an_override_leaves_the_other_draws(override):
    changed = Space.load(preset="nws-main", overrides=override)
    ((key, _),) = override.items()
    for one, two in zip(MAIN.members(4, range(100)), changed.members(4, range(100)), strict=True):
        for name in MAIN.properties:
            if name != key:
                assert getattr(one.setup, name) == getattr(two.setup, name), name


def test_architecture_follows_the_setup(ten_thousand):
    for member in ten_thousand[:200]:
        s = member.setup
        expected = f"nws-k{s.filter_size}-c{s.depth_conv}x{s.width_conv}-f{s.depth_fc}x{s.width_fc}"
        assert member.architecture.name == expected


def test_init_std_only_where_it_applies():
    for member in SMALL.members(0, range(300)):
        scaled = member.setup.initialization in ("normal", "truncated_normal")
        assert (member.setup.init_std is not None) == scaled
        assert member.setup.depth_fc is None
        assert member.setup.width_fc is None


# -- frequencies and ranges


COUNTED = [name for name, distribution in MAIN.properties.items() if len(distribution.examples()) > 1]


@pytest.mark.parametrize("name", [name for name in COUNTED if name != "learning_rate"])
def test_choices_are_equally_frequent(ten_thousand, name):
    counts = Counter(getattr(member.setup, name) for member in ten_thousand)
    assert set(counts) == set(MAIN.choices(name))
    assert stats.chisquare(list(counts.values())).pvalue > P


def test_learning_rate_is_uniform(ten_thousand):
    rates = np.array([member.setup.learning_rate for member in ten_thousand])
    assert 0.0002 < rates.min() < 0.000202
    assert 0.004998 < rates.max() < 0.005
    assert stats.kstest(rates, stats.uniform(0.0002, 0.0048).cdf).pvalue > P


def test_properties_are_independent(ten_thousand):
    columns = {
        name: [MAIN.choices(name).index(getattr(member.setup, name)) for member in ten_thousand]
        for name in COUNTED
        if name != "learning_rate"
    }
    columns["learning_rate"] = [int((m.setup.learning_rate - 0.0002) / 0.0012001) for m in ten_thousand]
    names = list(columns)
    values = []
    for i, one in enumerate(names):
        for two in names[:i]:
            table = np.zeros((max(columns[one]) + 1, max(columns[two]) + 1))
            np.add.at(table, (columns[one], columns[two]), 1)
            values.append(stats.chi2_contingency(table).pvalue)
    assert min(values) > P / len(values)


def test_ten_thousand_members_cover_all_architectures(ten_thousand):
    counts = Counter(member.architecture.name for member in ten_thousand)
    assert len(counts) == 243
    assert stats.chisquare(list(counts.values())).pvalue > P


def test_log_uniform():
    members = SMALL.members(1, range(5000))
    for name, low, high in (("learning_rate", 5e-4, 5e-2), ("l2", 1e-8, 1e-2)):
        logs = np.log([getattr(member.setup, name) for member in members])
        span = stats.uniform(math.log(low), math.log(high / low))
        assert stats.kstest(logs, span.cdf).pvalue > P
        assert logs.min() >= math.log(low)
        assert logs.max() <= math.log(high)


def test_integer_uniform_has_both_ends():
    space = Space.load(preset="nws-main", overrides={"epochs": {"uniform": [3, 7]}})
    counts = Counter(member.setup.epochs for member in space.members(0, range(5000)))
    assert set(counts) == {3, 4, 5, 6, 7}
    assert stats.chisquare(list(counts.values())).pvalue > P


def test_without_hidden_layers_their_width_does_not_apply():
    keys = {"depth_fc": [0, 2], "filter_size": 3, "depth_conv": 3, "width_conv": 4}
    members = Space.load(preset="nws-main", overrides=keys).members(0, range(50))
    without = [member for member in members if member.setup.depth_fc == 0]
    assert {member.setup.width_fc for member in without} == {None}
    assert {member.architecture.name for member in without} == {"nws-k3-c3x4-f0"}
    assert {member.setup.width_fc for member in members if member not in without} == {64, 128, 192}


def test_widest_integer_uniform():
    space = Space.load(preset="nws-main", overrides={"images_per_epoch": {"uniform": [2, 2**32]}})
    images = [member.setup.images_per_epoch for member in space.members(0, range(2000))]
    assert stats.kstest(np.array(images) / 2**32, "uniform").pvalue > P


def test_weights():
    choice = {"choice": ["relu", "elu", "tanh"], "weights": [1, 0, 3]}
    space = Space.load(preset="nws-main", overrides={"activation": choice})
    counts = Counter(member.setup.activation for member in space.members(0, range(4000)))
    assert set(counts) == {"relu", "tanh"}
    assert stats.chisquare([counts["relu"], counts["tanh"]], [1000, 3000]).pvalue > P


def test_weights_that_are_equal_are_as_good_as_none():
    choice = {"choice": ["relu", "elu", "sigmoid", "tanh"], "weights": [0.1] * 4}
    space = Space.load(preset="nws-main", overrides={"activation": choice})
    one = [member.setup.activation for member in space.members(0, range(500))]
    assert one == [member.setup.activation for member in MAIN.members(0, range(500))]


# -- errors


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(UsageError, match=rf"`seed` \(={seed}\) must be from 0 to {2**64 - 1}"):
        MAIN.members(seed, range(3))


@pytest.mark.parametrize("ids", [[-1], [0, 2**32], range(-1, 3)])
def test_ids_out_of_range(ids):
    with pytest.raises(UsageError, match=f"member ids must be from 0 to {2**32 - 1}"):
        MAIN.members(0, ids)


# -- pinned


def test_pinned_members():
    """Guards every zoo: another draw for the same (space, seed, id) would make seeds mean something else."""
    names = ("dataset", "optimizer", "activation", "initialization", "batch_size", "augmentation")
    got = [
        (*(getattr(m.setup, name) for name in names), round(m.setup.learning_rate, 12), m.architecture.name)
        for m in MAIN.members(0, range(3))
    ]
    assert got == [
        ("fashion-mnist", "momentum", "sigmoid", "glorot_uniform", 64, True, 0.003234876293, "nws-k3-c3x4-f4x64"),
        ("fashion-mnist", "momentum", "sigmoid", "normal", 32, False, 0.003290212562, "nws-k3-c3x12-f3x192"),
        ("svhn", "momentum", "sigmoid", "normal", 256, False, 0.002184209957, "nws-k7-c5x4-f2x128"),
    ]
