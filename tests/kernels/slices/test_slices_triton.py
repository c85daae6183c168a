"""Slices of a GPU's memory against float64: every dtype and way to normalise, odd places, memory full of NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wse.kernels.slices.runs import Runs
from wse.kernels.slices.triton import Table, gather

from .conftest import DTYPES, MODES, RUNS, SIZE, Case, make_case


def of_gpu(case: Case, device: str) -> np.ndarray:
    stored = torch.from_numpy(np.concatenate(case.vectors))
    if stored.dtype == torch.uint16:
        stored = stored.view(torch.bfloat16)
    normalizing = {
        name: value if isinstance(value, str) else torch.from_numpy(value).to(device)
        for name, value in case.normalizing.items()
    }
    offsets, places, counts = (
        torch.from_numpy(array).to(device)
        for array in (SIZE * np.arange(len(case.vectors)), case.places, case.counts)
    )
    out = torch.full((len(case.vectors), case.length), torch.nan, device=device)
    table = Table.of(RUNS, device)
    made = gather(stored.to(device), offsets, places, counts, case.length, table, out=out, **normalizing)
    assert made is out
    return out.cpu().numpy()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 63, 1500])
def test_slices_are_those_of_the_reference(length: int, dtype: str, mode: str, device: str) -> None:
    case = make_case(dtype, mode, length=length, count=6)
    expected, found = case.expected(), of_gpu(case, device)
    if mode == "none":
        np.testing.assert_array_equal(found, expected)
    else:  # float32 rounds a difference and a product; over a slice the mean and the deviation are rounded too
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("length", [5000, 8193, 11_000], ids=["in registers", "just not", "padded"])
def test_long_slices(length: int, device: str) -> None:
    case = make_case("float32", "slice", length=length, count=4)
    np.testing.assert_allclose(of_gpu(case, device), case.expected(), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("equal", [1.0, 0.1, -3e-5])
@pytest.mark.parametrize("length", [1, 3, 41, 63, 5000, 9000])
def test_equal_values_are_their_mean(length: int, equal: float, device: str) -> None:
    """As weights of a constant initialisation are; a deviation of 0 magnifies what is left a million times."""
    values, zero = torch.full((SIZE,), equal, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    whole = Table.of(Runs(begin=np.array([0, SIZE]), source=np.array([0])), device)
    made = gather(values, zero, zero, zero + length, length, whole, normalize="slice")
    assert (made == 0).all()


def test_no_slices(device: str) -> None:
    nothing = torch.zeros(0, dtype=torch.int64, device=device)
    values = torch.zeros(4, device=device)
    assert gather(values, nothing, nothing, nothing, 3, Table.of(RUNS, device)).shape == (0, 3)


def test_what_does_not_fit_is_refused(device: str) -> None:
    one, table = torch.zeros(1, dtype=torch.int64, device=device), Table.of(RUNS, device)
    values = torch.zeros(SIZE, device=device)
    with pytest.raises(ValueError, match=r"`values` \(of torch.float64\) must be contiguous float32"):
        gather(values.double(), one, one, one, 5, table)
    with pytest.raises(ValueError, match=r"`normalize` \(=run\) needs `shift`, `scale` and for runs `first`"):
        gather(values, one, one, one, 5, table, normalize="run")
    with pytest.raises(ValueError, match=r"`out` \(torch.float32 \[2, 5\]\) must be contiguous float32 \[1, 5\]"):
        gather(values, one, one, one, 5, table, out=torch.zeros(2, 5, device=device))
