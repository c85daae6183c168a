"""Every size gives a bijection, and over many keys every image is equally likely, alone and in pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wse.kernels.philox import Stream, permute, permute_each

P = 1e-4


def whole(size, *, seed=0, member=0, epoch=0, stream=int(Stream.EPOCH_ORDER)):
    return permute(np.arange(size), size, seed=seed, member=member, stream=stream, epoch=epoch)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 63, 64, 65, 66, 127, 128, 129, 1000, 4096, 4097, 50_000])
def test_bijection(size):
    image = whole(size, seed=9, member=3, epoch=2)
    assert image.dtype == np.int64
    np.testing.assert_array_equal(np.sort(image), np.arange(size))


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1), member=st.integers(0, 2**32 - 1))
def test_bijection_for_any_size_and_key(size, seed, member):
    np.testing.assert_array_equal(np.sort(whole(size, seed=seed, member=member)), np.arange(size))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 776), min_size=1, max_size=30))
def test_place_by_place(positions):
    """Any positions, in any order, repeated or not, in any shape: the images of the whole permutation."""
    everything = whole(777, seed=1)
    address = {"seed": 1, "member": 0, "stream": Stream.EPOCH_ORDER}
    asked = np.array(positions)
    np.testing.assert_array_equal(permute(asked, 777, **address), everything[asked])
    np.testing.assert_array_equal(permute(asked.reshape(1, -1, 1), 777, **address).ravel(), everything[asked])
    assert permute(np.array(positions[0]), 777, **address) == everything[positions[0]]


@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=6), seed=st.integers(0, 2**64 - 1))
def test_several_at_once_are_each_alone(sizes, seed):
    rng = np.random.default_rng(seed)
    which = rng.integers(len(sizes), size=200)
    positions = rng.integers(np.array(sizes)[which])
    streams = [Stream.EPOCH_CLASS.indexed(index) for index in range(len(sizes))]
    address = {"seed": seed, "member": 7, "epoch": 3}
    got = permute_each(positions, which, np.array(sizes), streams=streams, **address)
    for index, (size, stream) in enumerate(zip(sizes, streams, strict=True)):
        alone = permute(positions[which == index], size, stream=stream, **address)
        np.testing.assert_array_equal(got[which == index], alone)


def test_the_callers_positions_are_left_alone():
    positions = np.arange(10)
    permute(positions, 10, seed=0, member=0, stream=1)
    np.testing.assert_array_equal(positions, np.arange(10))


def test_largest_sizes():
    size = 2**32 - 5
    positions = np.array([0, 1, 2**31, size - 1])
    image = permute(positions, size, seed=0, member=0, stream=1)
    assert len(set(image.tolist())) == 4
    assert image.min() >= 0
    assert image.max() < size


def chi_square(counts) -> float:
    return stats.chisquare(np.ravel(counts)).pvalue


@pytest.mark.parametrize("position", [0, 9])
def test_every_image_is_equally_likely_size_10(position):
    counts = np.zeros(10)
    for member in range(150):
        for epoch in range(20):
            address = {"seed": 0, "member": member, "stream": 6, "epoch": epoch}
            counts[permute(np.array([position]), 10, **address)] += 1
    assert chi_square(counts) > P


def test_every_image_is_equally_likely_size_1000():
    counts = np.zeros(1000)
    for member in range(4000):
        image = permute(np.array([0, 1, 500, 999]), 1000, seed=7, member=member, stream=6)
        counts[image] += 1
    assert chi_square(counts) > P


def test_every_pair_of_images_is_equally_likely_size_10():
    """Of two neighbours: a shuffle whose neighbours stay together would pass the test of one position."""
    counts = np.zeros((10, 10))
    for member in range(4500):
        first, second = permute(np.array([0, 1]), 10, seed=3, member=member, stream=6)
        counts[first, second] += 1
    assert np.trace(counts) == 0
    assert chi_square(counts[~np.eye(10, dtype=bool)]) > P


@pytest.mark.parametrize("size", [1000, 4096])
def test_the_distance_of_neighbours_is_uniform(size):
    """In one permutation, the images of positions p and p + 1 are as far apart as two random places."""
    counts = np.zeros(20)
    for member in range(40):
        gaps = np.diff(whole(size, member=member)) % size
        counts += np.histogram(gaps, bins=20, range=(1, size))[0]
    widths = np.histogram(np.arange(1, size), bins=20, range=(1, size))[0]
    assert stats.chisquare(counts, widths / widths.sum() * counts.sum()).pvalue > P


@pytest.mark.parametrize("size", [10, 64, 1000])
def test_fixed_points_are_as_rare_as_they_should_be(size):
    fixed = sum((whole(size, member=member) == np.arange(size)).sum() for member in range(1000))
    assert abs(fixed - 1000) < 4 * np.sqrt(1000)  # one a permutation on average, Poisson


@pytest.mark.parametrize("changed", ["seed", "member", "epoch", "stream"])
def test_every_part_of_the_address_matters(changed):
    base = {"seed": 4, "member": 5, "epoch": 6, "stream": 7}
    one, two = whole(1000, **base), whole(1000, **base | {changed: base[changed] + 1})
    assert (one == two).sum() < 12  # one on average


def test_pinned():
    """Guards the order in which every zoo's members saw their images."""
    assert whole(10, seed=0, member=0, epoch=1).tolist() == [0, 2, 7, 3, 5, 1, 4, 8, 9, 6]
