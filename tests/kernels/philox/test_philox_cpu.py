"""What the compiled generator draws is what the reference draws, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from wse.kernels.philox import keep_mask, keep_probability, permute
from wse.kernels.philox import philox4x32 as reference
from wse.kernels.philox.cpu import philox4x32
from wse.kernels.philox.cpu_dropout import DRAWN, keep_bits, kept_factor
from wse.kernels.philox.cpu_permute import permute_in_place

SEEDS = [0, 12345, 2**63 + 11, 2**64 - 1]


@njit
def blocks(out, seed, first, c1, c2, c3):
    for i in range(len(out)):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = philox4x32(seed, first + i, c1, c2, c3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [1, 7, 8, 100])
@pytest.mark.parametrize("address", [(0, 0, 0, 0), (5, 1, 2, 3), (2**32 - 200, 2**32 - 1, 2**31, 9 | 3 << 8)])
def test_words_are_the_references(seed, count, address):
    first, *rest = address
    out = np.full((count, 4), 0xDEADBEEF, np.uint32)
    blocks(out, np.uint64(seed), first, *rest)
    positions = np.arange(first, first + count, dtype=np.uint64)
    np.testing.assert_array_equal(out, reference(seed, (positions, *rest)))


def bits(rate, samples, units, *, seed=2**63 + 11, member=6, layer=1, epoch=3, batch=2):
    """bool [samples, units], from memory with more behind each block's bits that stays as it was."""
    blocks, room = -(-samples // 16), -(-units // DRAWN) * DRAWN
    out = np.full((blocks, room + 5), 0xABCD, np.uint16)
    keep_bits(out.ctypes.data, out.strides[0], rate, np.uint64(seed), member, layer, epoch, batch, samples, units)
    assert (out[:, room:] == 0xABCD).all()
    lanes = out[:, :units, None] >> np.arange(16) & 1
    return lanes.transpose(0, 2, 1).reshape(-1, units)[:samples].astype(bool)


ADDRESS = {"seed": 2**63 + 11, "member": 6, "layer": 1, "epoch": 3, "batch": 2}


@pytest.mark.parametrize("samples", [1, 5, 16, 33, 64])
@pytest.mark.parametrize("units", [1, 7, 31, 32, 33, 600])
def test_bits_are_the_references(samples, units):
    np.testing.assert_array_equal(
        bits(0.37, samples, units), keep_mask(0.37, **ADDRESS, samples=samples, units=units)
    )


@pytest.mark.parametrize("rate", [0.0, 0.001, 1 / 512, 3 / 512, 0.1, 0.25, 0.5, 0.9, 0.998, 1 - 1e-16])
def test_every_rate(rate):
    np.testing.assert_array_equal(bits(rate, 33, 100), keep_mask(rate, **ADDRESS, samples=33, units=100))
    assert kept_factor(rate) == np.float32(1 / keep_probability(rate))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_seed(seed):
    np.testing.assert_array_equal(
        bits(0.5, 40, 64, seed=seed), keep_mask(0.5, **ADDRESS | {"seed": seed}, samples=40, units=64)
    )


def test_positions_beyond_32_bits_begin_again():
    """Single images through wide layers: more blocks in an epoch than a word counts."""
    batch = 2**32 // 600 + 7
    wanted = keep_mask(0.5, **ADDRESS | {"batch": batch}, samples=1, units=600)
    np.testing.assert_array_equal(bits(0.5, 1, 600, batch=batch), wanted)


@pytest.mark.parametrize("changed", [{"seed": 4}, {"member": 7}, {"layer": 0}, {"epoch": 4}, {"batch": 1}])
def test_every_part_of_the_address_matters(changed):
    assert (bits(0.5, 64, 50) != bits(0.5, 64, 50, **changed)).mean() > 0.4


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 1000, 4097, 65_536, 65_537])
@pytest.mark.parametrize("seed", SEEDS)
def test_permutations_are_the_references(size, seed):
    numbers = np.arange(size, dtype=np.uint32)
    permute_in_place(numbers, size, np.uint64(seed), 5, 99, 3)
    np.testing.assert_array_equal(numbers, permute(np.arange(size), size, seed=seed, member=5, stream=99, epoch=3))
