"""What the machine can do at most: fused multiply-adds in registers, a triad and a copy through memory.

The multiply-adds are chains that are independent of each other and never leave the registers, at the widest
vectors there are: as many chains as hide the latency, and as fit. They are emitted as LLVM vector instructions,
because no compiler makes them of a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .contender import Job
from .lanes import combine, work_side_by_side

_FMA_ITERATIONS = 1_000_000  # of one job: some 3 ms
_TRIAD_VALUES = 2**25  # an array of all lanes together: 128 MiB, three of them
_TRIAD_BYTES = 12  # of one value: two are read, one is written
_COPY_BYTES = 8


def vector_shape() -> tuple[int, int]:
    """(float32 lanes of the widest vector here, chains that its registers hold)."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 24  # of 32 registers
    if features.get("fma"):
        return 8, 12  # of 16
    return 4, 24 if features.get("neon") else 12


@cache
def fma_chains() -> Callable[[int], float]:
    """A compiled function that iterates all chains, and frees the interpreter while it does."""
    lanes, chains = vector_shape()
    single = ir.FloatType()
    vector = ir.VectorType(single, lanes)

    def constant(value: float) -> ir.Constant:
        return ir.Constant(vector, [value] * lanes)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f32"
        )
        # Stack slots, which LLVM turns into registers.
        slots = [_slot(builder, constant(float(chain))) for chain in range(chains)]
        with cgutils.for_range(builder, arguments[0]):
            for slot in slots:
                # Runs to 1, so that no value overflows or becomes denormal.
                builder.store(builder.call(fma, [builder.load(slot), constant(0.999), constant(0.001)]), slot)
        total = builder.load(slots[0])
        for slot in slots[1:]:
            total = builder.fadd(total, builder.load(slot))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    def typed(typing_context: Any, iterations: Any) -> Any:
        return types.float32(types.int64), emit

    iterate: Any = intrinsic(typed)

    def run(iterations: int) -> float:
        return float(iterate(iterations))

    compiled: Callable[[int], float] = njit("float64(int64)", nogil=True)(run)
    return compiled


@cache
def triad() -> Callable[..., None]:
    """A compiled ``out = left + factor * right``, which frees the interpreter while it runs."""

    def run(out: Any, left: Any, right: Any, factor: Any) -> None:
        for index in range(len(out)):
            out[index] = left[index] + factor * right[index]

    array = "float32[::1]"
    compiled: Callable[..., None] = njit(f"void({array}, {array}, {array}, float32)", nogil=True)(run)
    return compiled


def _slot(builder: Any, value: ir.Constant) -> Any:
    """A variable on the stack that holds a value."""
    return cgutils.alloca_once_value(builder, value)


class _FmaJob:
    images = 0

    def __init__(self) -> None:
        lanes, chains = vector_shape()
        self.work = 2.0 * lanes * chains * _FMA_ITERATIONS
        self._run = fma_chains()

    def start(self) -> None:
        pass

    def __call__(self) -> None:
        self._run(_FMA_ITERATIONS)


class _TriadJob:
    images = 0

    def __init__(self, values: int) -> None:
        self.work = float(_TRIAD_BYTES * values)
        self._arrays: npt.NDArray[np.float32] = np.ones((3, values), np.float32)
        self._run = triad()

    def start(self) -> None:
        pass

    def __call__(self) -> None:
        self._run(*self._arrays, np.float32(2))


class _CopyJob:
    images = 0

    def __init__(self, values: int) -> None:
        self.work = float(_COPY_BYTES * values)
        self._arrays: npt.NDArray[np.float32] = np.ones((2, values), np.float32)

    def start(self) -> None:
        pass

    def __call__(self) -> None:
        np.copyto(*self._arrays)  # memcpy, which writes past the cache


class Probe:
    """Measures the machine, in this process.

    Args:
        name: ``fma`` (FLOP/s of fused multiply-adds), ``triad`` (bytes/s that a triad of float32 moves, without
            the reads that its writes cause) or ``copy`` (bytes/s read and written by copying large arrays).
        lanes: threads at once.
    """

    def __init__(self, name: Literal["fma", "triad", "copy"], lanes: int) -> None:
        make: dict[str, Callable[[], Job]] = {
            "fma": _FmaJob,
            "triad": lambda: _TriadJob(_TRIAD_VALUES // lanes),
            "copy": lambda: _CopyJob(_TRIAD_VALUES // lanes),
        }
        self._lanes: list[list[Job]] = [[make[name]()] for _ in range(lanes)]
        self.measure(0.0)  # warm-up

    def measure(self, seconds: float) -> float:
        """FLOP/s or bytes/s over so many seconds."""
        return combine(work_side_by_side(self._lanes, seconds), len(self._lanes)).work
