"""Slices read straight from memory, compiled by numba for the CPU.

A slice is copied, converted and, where a shift and a scale are given, normalised on the way. Its own mean and
standard deviation are known only at its end, so ``slice`` adds up while it copies and goes over the result once
more, while that is in the first-level cache. Memory is read once in each case.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, float32, njit, types, uint32
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..simd.cache import cached_njit
from .runs import EPSILON, Normalize, Runs

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_NONE, _SLICE, _RUN, _PLACE = range(4)
_MODES: dict[Normalize, int] = {"none": _NONE, "slice": _SLICE, "run": _RUN, "place": _PLACE}

_FLOAT32, _BFLOAT16, _FLOAT16 = range(3)
_CODES = {np.dtype(np.float32): _FLOAT32, np.dtype(np.uint16): _BFLOAT16, np.dtype(np.float16): _FLOAT16}

_BLOCK = 1024  # values that are worked on, while they are in the first-level cache, and summed in float32
_LINE = 64  # bytes of a cache line
_NOTHING = np.empty(0, np.float32)
_LEAST_BYTES = 2**20  # that a thread writes at least: below, waking it up costs what it saves


def gather(
    addresses: Int64,
    places: Int64,
    counts: Int64,
    length: int,
    runs: Runs,
    dtype: np.dtype[Any],
    *,
    normalize: Normalize = "none",
    shift: Float32 | None = None,
    scale: Float32 | None = None,
    first: Int64 | None = None,
    order: Int64 | None = None,
    threads: int = 1,
) -> Float32:
    """One slice of each vector: see ``reference.gather``.

    Args:
        addresses: of the first value of each stored vector, int64 [B]. Whatever they point into must live on
            until this returns.
        places: of the first value of each slice, int64 [B].
        counts: values of each slice; the rest is 0, int64 [B].
        length: of what is returned.
        runs: which stored values places stand for.
        dtype: of the stored values: float32, float16, or uint16 with the bits of bfloat16.
        normalize: see ``Normalize``.
        shift: what is subtracted, float32.
        scale: what the difference is multiplied by, as ``shift``.
        first: for ``run``, where run 0 would stand in ``shift`` for each slice, int64 [B].
        order: in which slices are read, a permutation int64 [B]; None: as they come.
        threads: that may work at it.

    Returns:
        [B, length] float32.

    Raises:
        ValueError: the dtype is another one, or what normalises is missing.
    """
    if dtype not in _CODES:
        raise ValueError(f"`dtype` (={dtype}) must be float32, float16, or uint16 for bfloat16")
    code, mode = _CODES[dtype], _MODES[normalize]
    if mode in (_RUN, _PLACE) and (shift is None or scale is None or (mode == _RUN and first is None)):
        raise ValueError(f"`normalize` (={normalize}) needs `shift`, `scale` and for runs `first`")
    shift, scale = (_NOTHING if given is None else given for given in (shift, scale))
    first = places if first is None else first
    run_of = runs.run_of(places)
    values = np.empty((len(places), length), np.float32)
    order = np.arange(len(places)) if order is None else order
    parts = max(1, min(threads, values.nbytes // _LEAST_BYTES))
    bounds = [len(order) * part // parts for part in range(parts + 1)]

    def work(part: int) -> None:
        rows = order[bounds[part] : bounds[part + 1]]
        slices = (rows, addresses, places, counts, run_of, runs.begin, runs.source, code)
        _compiled(*slices, mode, shift, scale, first, values)

    if parts == 1:
        work(0)
    else:
        done = [_crew(os.getpid(), threads - 1).submit(work, part) for part in range(1, parts)]
        work(0)
        for each in done:
            each.result()
    return values


def moments(vector: NDArray[Any], runs: Runs, group: Int64) -> NDArray[np.float64]:
    """Mean and variance of the values of groups of runs: see ``reference.moments``.

    Args:
        vector: as it is stored, without gaps [D].
        runs: of the vector's kind alone.
        group: which group each run is in, int64 [R].

    Returns:
        [R, 2] float64.
    """
    groups, of_run = np.unique(group, return_inverse=True)
    found = np.zeros((len(groups), 2))
    _compiled_moments(vector.ctypes.data, runs.begin, runs.source, of_run, _CODES[vector.dtype], found)
    return found[of_run]


@cache
def _crew(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: those of another did not come along when it forked."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"slices-{process}")


@intrinsic
def _singles(typing_context: Any, address: Any) -> Any:
    """An address as a pointer to float32."""
    return _pointer_to(types.float32)


@intrinsic
def _halves(typing_context: Any, address: Any) -> Any:
    """An address as a pointer to uint16."""
    return _pointer_to(types.uint16)


def _pointer_to(kind: Any) -> Any:
    pointer = types.CPointer(kind)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(pointer))

    return pointer(types.int64), emit


@intrinsic
def _touch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address; where there is nothing, nothing happens."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        reading, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(prefetch, [builder.inttoptr(values[0], byte), reading, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), emit


@njit(nogil=True, error_model="numpy")
def _fetch(address, code, target):
    """Copy and convert as many values as ``target`` has."""
    count = len(target)
    if code == _FLOAT32:
        values = carray(_singles(address), (count,))
        for j in range(count):
            target[j] = values[j]
        return
    stored, bits = carray(_halves(address), (count,)), target.view(np.uint32)
    if code == _BFLOAT16:
        for j in range(count):
            bits[j] = uint32(stored[j]) << uint32(16)
        return
    for j in range(count):
        half = uint32(stored[j])
        # The product moves the exponent's zero from 15 to 127, subnormal numbers included.
        size = np.uint32((half & uint32(0x7FFF)) << uint32(13)).view(np.float32) * float32(2.0**112)
        # The largest exponent stands for infinite and NaN in both.
        endless = uint32(0x7F800000) if half & uint32(0x7C00) == uint32(0x7C00) else uint32(0)
        bits[j] = np.float32(size).view(np.uint32) | ((half & uint32(0x8000)) << uint32(16)) | endless


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _sums(values, centre):
    """The sums of values - centre and of its square."""
    total = squares = 0.0
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        part = square = float32(0.0)
        for j in range(len(block)):
            difference = block[j] - centre
            part += difference
            square += difference * difference
        total += part
        squares += square
    return total, squares


@njit(nogil=True, error_model="numpy")
def _affine(values, shift, scale):
    # In a function of its own, because slices of arrays are compiled to better loops than indices that add up.
    for j in range(len(values)):
        values[j] = (values[j] - shift[j]) * scale[j]


@njit(nogil=True, error_model="numpy")
def _joined(block, count, mean, squares):
    """Mean and sum of squares around it of ``count`` values and a block (Chan, Golub and LeVeque, 1983)."""
    size = len(block)
    # Around about the block's mean, so that nothing cancels: that of many values before it, or a first guess.
    centre = float32(mean) if count >= _BLOCK else float32(block[0] + _sums(block, block[0])[0] / size)
    total, around = _sums(block, centre)
    apart = centre + total / size - mean
    share = size / (count + size)
    return mean + apart * share, squares + around - total * total / size + apart * apart * share * count


@njit(nogil=True, error_model="numpy")
def _standardise(values, mean, variance, ahead, size):
    """Subtract the mean and divide by the deviation; meanwhile ask for as many values of ``size`` bytes ahead."""
    shift, scale = float32(mean), float32(1 / np.sqrt(max(variance, 0.0) + EPSILON))
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        _touch_all(ahead + size * start, size * len(block))
        for j in range(len(block)):
            block[j] = (block[j] - shift) * scale


@njit(nogil=True, error_model="numpy")
def _touch_all(address, count):
    for line in range(address, address + count, _LINE):
        _touch(line)


def _gather(
    rows, addresses, places, counts, runs, begin, source, code, mode, shift, scale, first, values
):  # fmt: skip
    size = 4 if code == _FLOAT32 else 2
    for number in range(len(rows)):
        row = rows[number]
        other = rows[min(number + 1, len(rows) - 1)]
        following = addresses[other] + size * (source[runs[other]] + places[other] - begin[runs[other]])
        place, run, target = places[row], runs[row], values[row]
        stop, done = place + counts[row], 0
        mean = squares = 0.0
        while place < stop:
            block = min(stop, begin[run + 1], place + _BLOCK) - place
            address = addresses[row] + size * (source[run] + place - begin[run])
            # What comes next is asked for now: the processor guesses no further than the end of a page of 4 KiB.
            _touch_all(following if place + block == stop else address + size * block, size * _BLOCK)
            part = target[done : done + block]
            _fetch(address, code, part)
            if mode == _RUN:
                minus, by = shift[first[row] + run], scale[first[row] + run]
                for j in range(block):
                    part[j] = (part[j] - minus) * by
            elif mode == _PLACE:
                _affine(part, shift[place : place + block], scale[place : place + block])
            elif mode == _SLICE:
                mean, squares = _joined(part, done, mean, squares)
            place += block
            done += block
            if place == begin[run + 1]:
                run += 1
        if mode == _SLICE:
            _standardise(target[:done], mean, squares / done, following, size)
        target[done:] = 0


def _moments(address, begin, source, group, code, found):
    size = 4 if code == _FLOAT32 else 2
    block, counts = np.empty(_BLOCK, np.float32), np.zeros(len(found))
    # First the means, then the variances around them, so that nothing cancels.
    for column in range(2):
        for run in range(len(source)):
            mine, length = found[group[run]], begin[run + 1] - begin[run]
            centre = float32(0.0) if column == 0 else float32(mine[0])
            for start in range(0, length, _BLOCK):
                part = block[: min(_BLOCK, length - start)]
                _fetch(address + size * (source[run] + start), code, part)
                mine[column] += _sums(part, centre)[column]
            if column == 0:
                counts[group[run]] += length
        found[:, column] /= counts
    for mine in found:
        mine[1] = max(mine[1] - (mine[0] - float32(mine[0])) ** 2, 0.0)


_sources = sorted(Path(__file__).parent.glob("*.py"))
_compiled, _compiled_moments = (cached_njit(function, _sources) for function in (_gather, _moments))
