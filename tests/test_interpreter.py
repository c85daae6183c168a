"""The strict interpreter: it refuses what a GPU would not forgive, and rounds to bfloat16 as a GPU does."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run on the GPU here, not interpreted")
triton = pytest.importorskip("triton")
tl = triton.language


@triton.jit
def shift_kernel(x_ptr, y_ptr, by, SIZE: tl.constexpr):
    """Write x one block after the other, ``by`` places further."""
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(y_ptr + at + by, tl.load(x_ptr + at))


@triton.jit
def twice_kernel(x_ptr, SIZE: tl.constexpr, READ: tl.constexpr):
    """Write x, and then read or write it again."""
    at = tl.arange(0, SIZE)
    tl.store(x_ptr + at, at.to(tl.float32))
    if READ:
        tl.load(x_ptr + SIZE - 1 - at)
    else:
        tl.store(x_ptr + SIZE - 1 - at, at.to(tl.float32))


@triton.jit
def masked_kernel(x_ptr, y_ptr, SIZE: tl.constexpr, OTHER: tl.constexpr):
    """Copy x, but the first of it."""
    at = tl.arange(0, SIZE)
    value = tl.load(x_ptr + at, mask=at > 0, other=0) if OTHER else tl.load(x_ptr + at, mask=at > 0)
    tl.store(y_ptr + at, value)


@triton.jit
def halves_kernel(x_ptr, y_ptr, SIZE: tl.constexpr, ADD: tl.constexpr):
    """Convert to and from bfloat16, or add in it."""
    at = tl.arange(0, SIZE)
    value = tl.load(x_ptr + at).to(tl.bfloat16)
    if ADD:
        value = value + value
    tl.store(y_ptr + at, value.to(tl.float32))


@triton.jit
def product_kernel(a_ptr, b_ptr, c_ptr, SIZE: tl.constexpr):
    """c = a b, of matrices [SIZE, SIZE]."""
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(c_ptr + at, tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at)))


def refused(kernel, grid: int, *args, says: str, **constants) -> None:
    with pytest.raises(Exception, match=says):
        kernel[(grid,)](*args, **constants)


def test_what_keeps_to_its_places_passes() -> None:
    x, y = torch.arange(8.0), torch.zeros(9)
    shift_kernel[(2,)](x, y, 1, SIZE=4)
    assert torch.equal(y[1:], x)
    shift_kernel[(2,)](x, x, 0, SIZE=4)  # in place: each program has its own


def test_addresses_outside_the_tensors() -> None:
    x = torch.zeros(8)
    refused(
        shift_kernel,
        2,
        x,
        torch.zeros(8),
        1,
        SIZE=4,
        says="program 1 writes outside its tensors, 32 bytes from .* y_ptr",
    )
    refused(shift_kernel, 3, x, torch.zeros(12), 0, SIZE=4, says="program 2 reads outside its tensors")
    refused(shift_kernel, 1, x, torch.zeros(8)[1:], -2, SIZE=4, says="program 0 writes outside its tensors")


def test_programs_that_meet() -> None:
    x = torch.zeros(16)
    refused(
        shift_kernel,
        3,
        x,
        x,
        4,
        SIZE=4,
        says="program 1 reads x_ptr or y_ptr at byte 16, which program 0 has written",
    )
    refused(
        shift_kernel, 2, x[4:], x[4:], -4, SIZE=4, says="program 1 writes .* byte 16, which program 0 has read"
    )


def test_threads_that_meet() -> None:
    x = torch.zeros(8)
    refused(
        twice_kernel, 1, x, SIZE=8, READ=True, says="program 0 reads x_ptr at byte 28, which it has written itself"
    )
    refused(
        twice_kernel,
        1,
        x,
        SIZE=8,
        READ=False,
        says="program 0 writes x_ptr at byte 28, which it has written before",
    )


def test_masked_values_are_anything() -> None:
    for x in (torch.ones(4), torch.ones(4, dtype=torch.int32), torch.ones(4, dtype=torch.bfloat16)):
        y = torch.zeros_like(x)
        masked_kernel[(1,)](x, y, SIZE=4, OTHER=True)
        assert y.tolist() == [0, 1, 1, 1]
        masked_kernel[(1,)](x, y, SIZE=4, OTHER=False)
        assert y[0] != 0
        assert y[1:].tolist() == [1, 1, 1]


def test_bfloat16_is_rounded_as_pytorch_rounds() -> None:
    torch.manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (4096,), dtype=torch.int64).to(torch.int32)
    ties = (bits & ~0xFFFF) | 0x8000
    x = torch.cat([bits, ties]).view(torch.float32)
    y = torch.empty_like(x)
    halves_kernel[(1,)](x, y, SIZE=len(x), ADD=False)
    torch.testing.assert_close(y, x.to(torch.bfloat16).float(), rtol=0, atol=0, equal_nan=True)
    refused(halves_kernel, 1, x, y, SIZE=16, ADD=True, says="arithmetic in bfloat16")


def test_products_of_bfloat16_are_summed_in_float32() -> None:
    a, b = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    c = torch.empty(16, 16)
    product_kernel[(1,)](a, b, c, SIZE=16)
    torch.testing.assert_close(c.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-6)
