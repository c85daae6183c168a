"""Slices of vectors that lie in the memory of a GPU.

A program makes a block of one slice. Where a slice is normalised by its own mean and standard deviation, a program
makes all of it: up to ``_WHOLE`` values stay in registers, longer slices are read again from the cache.
Letters of shapes: B slices, R runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_layout import power_of_two
from ..triton_variant import Variant
from .runs import EPSILON, Normalize, Runs

_NONE, _SLICE, _RUN, _PLACE = (tl.constexpr(code) for code in range(4))
_MODES: dict[Normalize, int] = {"none": 0, "slice": 1, "run": 2, "place": 3}
_BLOCK = 1024  # values of a program
_WHOLE = 8192  # values of a slice that registers hold, 16 a thread


@triton.jit
def _load(values_ptr, begin_ptr, source_ptr, place, count, run, start, BLOCK: tl.constexpr):
    """Values of a slice from ``start`` on as float32, 0 beyond its end, and the run that each is in."""
    at = place + start + tl.arange(0, BLOCK)
    last = place + min(count, start + BLOCK)
    stored = at + tl.load(source_ptr + run).to(tl.int32) - tl.load(begin_ptr + run).to(tl.int32)
    run_of = tl.zeros_like(at) + run
    following = tl.load(begin_ptr + run + 1).to(tl.int32)
    while following < last:
        run += 1
        stored = tl.where(at >= following, at + tl.load(source_ptr + run).to(tl.int32) - following, stored)
        run_of = tl.where(at >= following, run, run_of)
        following = tl.load(begin_ptr + run + 1).to(tl.int32)
    return tl.load(values_ptr + stored, mask=at < place + count, other=0.0).to(tl.float32), run_of


@triton.jit
def gather_kernel(
    values_ptr, offsets_ptr, places_ptr, counts_ptr, runs_ptr, begin_ptr, source_ptr,
    shift_ptr, scale_ptr, first_ptr, made_ptr, length, MODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block of a slice."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * BLOCK
    index = start + tl.arange(0, BLOCK)
    place, count = tl.load(places_ptr + row).to(tl.int32), tl.load(counts_ptr + row).to(tl.int32)
    vector, run = values_ptr + tl.load(offsets_ptr + row), tl.load(runs_ptr + row).to(tl.int32)
    value, run_of = _load(vector, begin_ptr, source_ptr, place, count, run, start, BLOCK)
    if MODE != _NONE:
        at = place + index
        if MODE == _RUN:
            first = tl.load(first_ptr + row)
            shift_ptr += first
            scale_ptr += first
            at = run_of
        shift = tl.load(shift_ptr + at, mask=index < count, other=0.0)
        scale = tl.load(scale_ptr + at, mask=index < count, other=0.0)
        value = (value - shift) * scale
    tl.store(made_ptr + row * length + index, value, mask=index < length)


@triton.jit
def standardise_kernel(
    values_ptr, offsets_ptr, places_ptr, counts_ptr, runs_ptr, begin_ptr, source_ptr, made_ptr, length,
    EPSILON: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """A slice, less its mean and divided by its standard deviation."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    place, count = tl.load(places_ptr + row).to(tl.int32), tl.load(counts_ptr + row).to(tl.int32)
    vector, run = values_ptr + tl.load(offsets_ptr + row), tl.load(runs_ptr + row).to(tl.int32)
    made = made_ptr + row * length
    # Sums are of what values are more than the first one, so that the mean of equal values is what they are.
    at = place + tl.load(source_ptr + run).to(tl.int32) - tl.load(begin_ptr + run).to(tl.int32)
    origin = tl.load(vector + at).to(tl.float32)
    if WHOLE:
        value, _ = _load(vector, begin_ptr, source_ptr, place, count, run, 0, BLOCK)
        mean = origin + tl.sum(tl.where(lane < count, value - origin, 0.0), 0) / count
        difference = tl.where(lane < count, value - mean, 0.0)
        scale = 1.0 / tl.sqrt_rn(tl.sum(difference * difference, 0) / count + EPSILON)
        tl.store(made + lane, difference * scale, mask=lane < length)
    else:
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, count, BLOCK):
            value, _ = _load(vector, begin_ptr, source_ptr, place, count, run, start, BLOCK)
            total += tl.where(start + lane < count, value - origin, 0.0)
        mean = origin + tl.sum(total, 0) / count
        squares = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, count, BLOCK):
            value, _ = _load(vector, begin_ptr, source_ptr, place, count, run, start, BLOCK)
            difference = tl.where(start + lane < count, value - mean, 0.0)
            squares += difference * difference
        scale = 1.0 / tl.sqrt_rn(tl.sum(squares, 0) / count + EPSILON)
        for start in range(0, length, BLOCK):
            index = start + lane
            value, _ = _load(vector, begin_ptr, source_ptr, place, count, run, start, BLOCK)
            tl.store(made + index, tl.where(index < count, (value - mean) * scale, 0.0), mask=index < length)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """``Runs`` in the memory of a GPU.

    Attributes:
        begin: int64 [R + 1].
        source: int64 [R].
    """

    begin: Tensor
    source: Tensor

    @classmethod
    def of(cls, runs: Runs, device: torch.device | str) -> Table:
        """Copy runs to a device."""
        return cls(begin=torch.tensor(runs.begin, device=device), source=torch.tensor(runs.source, device=device))


def gather(
    values: Tensor,
    offsets: Tensor,
    places: Tensor,
    counts: Tensor,
    length: int,
    table: Table,
    *,
    normalize: Normalize = "none",
    shift: Tensor | None = None,
    scale: Tensor | None = None,
    first: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One slice of each of B vectors: see ``reference.gather``.

    Args:
        values: all vectors, float32, float16 or bfloat16, of one dimension.
        offsets: where the vector of each slice begins in ``values``, int64 [B].
        places: of the first value of each slice, int64 [B].
        counts: values of each slice; the rest is 0, int64 [B].
        length: of what is returned.
        table: which stored values places stand for.
        normalize: see ``Normalize``.
        shift: what is subtracted, float32.
        scale: what the difference is multiplied by, as ``shift``.
        first: for ``run``, where run 0 would stand in ``shift`` for each slice, int64 [B].
        out: to be written, float32 [B, length]; None: made here.

    Returns:
        ``out``.

    Raises:
        ValueError: the dtype is another one, what normalises is missing, or ``out`` has another shape.
    """
    if values.dtype not in (torch.float32, torch.float16, torch.bfloat16) or not values.is_contiguous():
        raise ValueError(f"`values` (of {values.dtype}) must be contiguous float32, float16 or bfloat16")
    if normalize in ("run", "place") and (
        shift is None or scale is None or (normalize == "run" and first is None)
    ):
        raise ValueError(f"`normalize` (={normalize}) needs `shift`, `scale` and for runs `first`")
    rows = len(places)
    out = torch.empty(rows, length, dtype=torch.float32, device=values.device) if out is None else out
    if out.shape != (rows, length) or out.dtype != torch.float32 or not out.is_contiguous():
        raise ValueError(f"`out` ({out.dtype} {list(out.shape)}) must be contiguous float32 [{rows}, {length}]")
    if not rows:
        return out
    runs = torch.searchsorted(table.begin, places, right=True) - 1
    slices = (values, offsets, places, counts, runs, table.begin, table.source)
    if normalize == "slice":
        block = power_of_two(length) if length <= _WHOLE else _BLOCK
        constants = {"EPSILON": EPSILON, "BLOCK": block, "WHOLE": length <= _WHOLE}
        standardise_kernel[(rows,)](*slices, out, length, **constants, num_warps=_warps(block))
    else:
        nothing = values  # is not looked at
        scaling = (nothing if given is None else given for given in (shift, scale, first))
        grid = (rows, triton.cdiv(length, _BLOCK))
        gather_kernel[grid](*slices, *scaling, out, length, MODE=_MODES[normalize], BLOCK=_BLOCK, num_warps=4)
    return out


def _warps(block: int) -> int:
    return max(1, min(block // 256, 16))


def variants() -> Iterator[Variant]:
    """Every form there is: each dtype and way to normalise, slices in registers by the power of two they fit."""
    common = dict.fromkeys(("offsets_ptr", "places_ptr", "counts_ptr", "runs_ptr"), "*i64")
    common |= {"begin_ptr": "*i64", "source_ptr": "*i64", "made_ptr": "*fp32", "length": "i32"}
    for dtype in ("fp32", "fp16", "bf16"):
        for mode, code in _MODES.items():
            if mode != "slice":
                scaling = {"shift_ptr": "*fp32", "scale_ptr": "*fp32", "first_ptr": "*i64"}
                yield Variant(
                    kernel=gather_kernel,
                    name=f"gather-{mode}-{dtype}",
                    signature=common | scaling | {"values_ptr": f"*{dtype}"},
                    constexprs={"MODE": code, "BLOCK": _BLOCK},
                )
        for block, whole in ((1, True), (32, True), (1024, True), (_WHOLE, True), (_BLOCK, False)):
            yield Variant(
                kernel=standardise_kernel,
                name=f"standardise-{block if whole else 'long'}-{dtype}",
                signature=common | {"values_ptr": f"*{dtype}"},
                constexprs={"EPSILON": EPSILON, "BLOCK": block, "WHOLE": whole},
                num_warps=_warps(block),
            )
