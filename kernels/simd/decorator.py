"""From a kernel's body to a compiled function, and single values in memory for the code that calls kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .builder import Builder, Value
from .width import VECTOR_BYTES


def kernel(body: Callable[..., None]) -> Callable[..., None]:
    """Make ``body(k, *values)`` a compiled function of as many int64 values; it releases the GIL.

    Numba functions and Python may call it. Addresses are in bytes, and so are strides.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        body(Builder(builder), *cgutils.unpack_tuple(builder, values[0]))
        return context.get_dummy_value()

    @intrinsic  # type: ignore[untyped-decorator]
    def instructions(typing_context: Any, values: Any) -> Any:
        return types.void(types.UniTuple(types.int64, len(values))), emit

    def launch(*values: int) -> None:
        instructions(values)

    launch.__qualname__ = launch.__name__ = body.__name__  # what a profiler shows
    launch.__doc__ = body.__doc__
    compiled: Callable[..., None] = njit(nogil=True)(launch)
    return compiled


def _peek(of: ir.Type, result: Any) -> Callable[[int], float]:
    @intrinsic  # type: ignore[untyped-decorator]
    def load(typing_context: Any, address: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            return builder.load(builder.inttoptr(values[0], of.as_pointer()), align=4)

        return result(types.int64), emit

    made: Callable[[int], float] = load
    return made


@intrinsic  # type: ignore[untyped-decorator]
def poke(typing_context: Any, address: Any, value: Any) -> Any:
    """Inside compiled code: write a float32 to an address."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        builder.store(values[1], builder.inttoptr(values[0], ir.FloatType().as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), emit


peek = _peek(ir.FloatType(), types.float32)
"""Inside compiled code: the float32 at an address."""

peek_double = _peek(ir.DoubleType(), types.float64)
"""Inside compiled code: the float64 at an address."""


@kernel
def clear(k: Builder, address: Value, vectors: Value) -> None:
    """Write zeros over so many vectors."""
    with k.loop(vectors) as index:
        k.store(k.constant(0.0), k.plus(address, k.times(index, VECTOR_BYTES)))


@kernel
def scale(k: Builder, source: Value, target: Value, vectors: Value, factor: Value) -> None:
    """Write so many vectors times the float at ``factor``; may work in place."""
    by = k.load_all(factor)
    with k.loop(vectors) as index:
        at = k.times(index, VECTOR_BYTES)
        k.store(k.mul(k.load(k.plus(source, at)), by), k.plus(target, at))
