"""Compiled slices against float64: every dtype and way to normalise, odd places, memory full of NaN."""

from __future__ import annotations

import os

import numpy as np
import pytest

from wse.kernels.slices import Runs, reference
from wse.kernels.slices.cpu import gather, moments

from .conftest import DTYPES, MODES, RUNS, SIZE, Case, make_case, stored


def of_cpu(case: Case, **options) -> np.ndarray:
    addresses = np.array([vector.ctypes.data for vector in case.vectors], np.int64)
    arguments = (addresses, case.places, case.counts, case.length, RUNS, case.vectors[0].dtype)
    return gather(*arguments, **case.normalizing, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 63, 1500, 5000])
def test_slices_are_those_of_the_reference(length: int, dtype: str, mode: str) -> None:
    case = make_case(dtype, mode, length=length)
    expected, found = case.expected(), of_cpu(case)
    if mode == "none":
        np.testing.assert_array_equal(found, expected)
    else:  # float32 rounds a difference and a product; over a slice the mean and the deviation are rounded too
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("mode", MODES)
def test_threads_and_order_do_not_matter(mode: str) -> None:
    case = make_case("float32", mode, length=5000, count=99)
    expected = of_cpu(case)
    order = np.random.default_rng(2).permutation(99)
    for threads in (1, 2, 3, 200):
        np.testing.assert_array_equal(of_cpu(case, threads=threads), expected)
        np.testing.assert_array_equal(of_cpu(case, threads=threads, order=order), expected)


@pytest.mark.filterwarnings("ignore:invalid value")  # NaNs that signal
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_number_of_16_bits_is_converted(dtype: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    stored = bits.view(np.float16) if dtype == "float16" else bits
    runs = Runs(begin=np.array([0, len(bits)]), source=np.array([0]))
    (found,) = gather(
        np.array([stored.ctypes.data]), np.array([0]), np.array([len(bits)]), len(bits), runs, stored.dtype
    )
    expected = reference.decoded(stored)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(found[known], expected[known])
    np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(expected[known]))


def test_the_mean_may_be_far_larger_than_the_deviation() -> None:
    values = (100 + 1e-3 * np.random.default_rng(0).standard_normal(5000)).astype(np.float32)
    runs = Runs(begin=np.array([0, 5000]), source=np.array([0]))
    arguments = (np.array([0]), np.array([5000]), 5000, runs)
    (found,) = gather(np.array([values.ctypes.data]), *arguments, values.dtype, normalize="slice")
    (expected,) = reference.gather([values], *arguments, normalize="slice")
    np.testing.assert_allclose(found, expected, atol=0.01)  # the mean is rounded to a hundredth of the deviation
    constant = np.full(5000, 0.1, np.float32)
    (found,) = gather(np.array([constant.ctypes.data]), *arguments, constant.dtype, normalize="slice")
    assert np.abs(found).max() < 0.01


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_moments_are_those_of_the_reference(dtype: str, mean: float) -> None:
    vector = stored((mean + np.random.default_rng(0).standard_normal(SIZE)).astype(np.float32), dtype)
    runs = Runs(begin=np.array([0, 6000, 6001, 6050, 8000]), source=np.array([7, 6010, 6012, 9000]))
    group = np.array([5, 2, 5, 9])
    np.testing.assert_allclose(moments(vector, runs, group), reference.moments(vector, runs, group), 1e-5, 1e-8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks beside threads
def test_a_fork_has_threads_of_its_own() -> None:
    case = make_case("float32", "none", length=5000, count=60)
    expected = of_cpu(case, threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(of_cpu(case, threads=2), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_does_not_fit_is_refused() -> None:
    case = make_case("float32", "none", length=5)
    addresses = np.zeros(len(case.places), np.int64)
    with pytest.raises(ValueError, match=r"`dtype` \(=float64\) must be float32, float16, or uint16"):
        gather(addresses, case.places, case.counts, 5, RUNS, np.dtype(np.float64))
    with pytest.raises(ValueError, match=r"`normalize` \(=run\) needs `shift`, `scale` and for runs `first`"):
        gather(addresses, case.places, case.counts, 5, RUNS, np.dtype(np.float32), normalize="run")
    with pytest.raises(ValueError, match="must ascend from 0"):
        Runs(begin=np.array([0, 4, 4]), source=np.array([0, 9]))
