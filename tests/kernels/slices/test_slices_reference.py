"""The reference against slices taken by hand."""

from __future__ import annotations

import numpy as np

from wse.kernels.slices import Runs
from wse.kernels.slices.reference import gather, moments

VECTOR = np.arange(20, dtype=np.float32)
RUNS = Runs(begin=np.array([0, 3, 7]), source=np.array([2, 10]))  # 2 3 4, 10 11 12 13


def test_a_slice_goes_on_behind_what_lies_between_runs() -> None:
    found = gather([VECTOR] * 3, np.array([0, 1, 3]), np.array([3, 5, 4]), 5, RUNS)
    assert found.tolist() == [[2, 3, 4, 0, 0], [3, 4, 10, 11, 12], [10, 11, 12, 13, 0]]


def test_ways_to_normalise() -> None:
    arguments = ([VECTOR], np.array([2]), np.array([3]), 3, RUNS)  # 4 10 11
    (found,) = gather(*arguments, normalize="slice")
    values = np.array([4, 10, 11])
    np.testing.assert_allclose(found, (values - values.mean()) / values.std(), rtol=1e-6)
    shift, scale = np.array([-7, -7, 1, 2], np.float32), np.array([-7, -7, 3, 10], np.float32)
    (found,) = gather(*arguments, normalize="run", shift=shift, scale=scale, first=np.array([2]))
    assert found.tolist() == [9, 80, 90]
    shift, scale = np.arange(7, dtype=np.float32), np.full(7, 2, np.float32)
    (found,) = gather(*arguments, normalize="place", shift=shift, scale=scale)
    assert found.tolist() == [4, 14, 14]


def test_moments_of_groups_of_runs() -> None:
    runs = Runs(begin=np.array([0, 3, 7, 9]), source=np.array([2, 10, 18]))
    found = moments(VECTOR, runs, np.array([4, 9, 4]))
    ends = np.array([2, 3, 4, 18, 19])
    middle = np.array([10, 11, 12, 13])
    expected = [[values.mean(), values.var()] for values in (ends, middle, ends)]
    np.testing.assert_allclose(found, expected)
