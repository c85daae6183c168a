"""Triton's interpreter, made as strict as a GPU and right about bfloat16, for the tests that run kernels in it.

What it forgives, and a GPU does not:

- an address outside the tensors of the launch, or one that its type may not lie at;
- programs of a launch that meet at an address which one of them writes: nobody knows who comes first;
- lanes of one store that meet, and a program that reads or writes again what it has written: other threads of it
  may be behind or ahead;
- the value of a masked load without ``other``: zero there, anything on a GPU.

What it gets wrong: conversions to bfloat16 cut digits off, and its arithmetic is that of the bits as integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

Array = npt.NDArray[Any]

_NOBODY, _SEVERAL = 0, -1
_ANYTHING = 0x5A5A5A5A  # an integer that no index may be


class Launch:
    """Who has read and written which byte of a launch's tensors.

    Args:
        kernel: its name, for what is said.
        tensors: the arguments that are tensors, by name.
    """

    def __init__(self, kernel: str, tensors: dict[str, torch.Tensor]) -> None:
        spans: dict[int, tuple[int, list[str]]] = {}
        for name, tensor in tensors.items():
            storage = tensor.untyped_storage()
            if storage.nbytes():
                spans.setdefault(storage.data_ptr(), (storage.nbytes(), []))[1].append(name)
        self._kernel, self._begins = kernel, np.array(sorted(spans), dtype=np.int64)
        self._sizes = np.array([spans[begin][0] for begin in self._begins], dtype=np.int64)
        self._names = [" or ".join(spans[begin][1]) for begin in self._begins]
        self._places = np.concatenate(([0], np.cumsum(self._sizes)))
        # Of each byte that a value begins at. Pages nobody touches cost nothing.
        self._writers, self._readers, self._lanes = np.zeros((3, self._places[-1]), dtype=np.int32)
        self._program = 0

    def begin_program(self) -> None:
        """What follows is done by the next program."""
        self._program += 1

    def read(self, addresses: Array, itemsize: int) -> None:
        """A program reads values, uint64 [N]."""
        at = self._at(addresses, itemsize, "reads")
        writers = self._writers[at]
        self._refuse("reads", at, writers, writers == self._program, "it has written itself")
        self._refuse("reads", at, writers, writers != _NOBODY, "program {} has written")
        readers = self._readers[at]
        self._readers[at] = np.where((readers == _NOBODY) | (readers == self._program), self._program, _SEVERAL)

    def write(self, addresses: Array, itemsize: int) -> None:
        """A program writes values, uint64 [N]."""
        at = self._at(addresses, itemsize, "writes")
        lanes = np.arange(len(at), dtype=np.int32)
        self._lanes[at] = lanes
        self._refuse("writes", at, lanes, self._lanes[at] != lanes, "another lane of the same store writes")
        writers, readers = self._writers[at], self._readers[at]
        self._refuse("writes", at, writers, writers == self._program, "it has written before")
        self._refuse("writes", at, writers, writers != _NOBODY, "program {} has written")
        others = (readers != _NOBODY) & (readers != self._program)
        self._refuse("writes", at, readers, others, "program {} has read")
        self._writers[at] = self._program

    def _at(self, addresses: Array, itemsize: int, does: str) -> Array:
        """Where those addresses are in what is remembered, int64 [N]."""
        addresses = addresses.astype(np.int64)
        span = np.searchsorted(self._begins, addresses, side="right") - 1
        offset = addresses - self._begins[span]
        outside = (span < 0) | (offset + itemsize > self._sizes[span])
        if outside.any():
            near = span[outside][0]
            name, place = self._names[near], offset[outside][0]
            raise AssertionError(
                f"{self._who()} {does} outside its tensors, {place} bytes from where {name} begins"
            )
        if (addresses % itemsize).any():
            raise AssertionError(f"{self._who()} {does} values of {itemsize} bytes at addresses between them")
        made: Array = self._places[span] + offset
        return made

    def _refuse(self, does: str, at: Array, owners: Array, bad: npt.NDArray[np.bool_], why: str) -> None:
        if bad.any():
            place, owner = at[bad][0], owners[bad][0]
            span = int(np.searchsorted(self._places, place, side="right")) - 1
            what = f"{self._names[span]} at byte {place - self._places[span]}"
            known = "another" if owner == _SEVERAL else owner - 1
            raise AssertionError(f"{self._who()} {does} {what}, which {why.format(known)}")

    def _who(self) -> str:
        return f"{self._kernel}: program {self._program - 1}"


def make_strict() -> None:
    """Change the interpreter of this process."""
    _watch_memory()
    _mend_bfloat16()


def _watch_memory() -> None:
    run, begin = interpreter.GridExecutor.__call__, InterpreterBuilder.set_grid_idx
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    launch: Launch | None = None

    def watched_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal launch
        named = dict(zip(self.arg_names, args, strict=False)) | kwargs
        tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
        launch = Launch(self.fn.__name__, tensors)
        try:
            return run(self, *args, **kwargs)
        finally:
            launch = None

    def watched_begin(self: Any, x: int, y: int, z: int) -> None:
        assert launch is not None
        launch.begin_program()
        begin(self, x, y, z)

    def watched_load(self: Any, ptrs: Any, mask: Any, other: Any, *rest: Any, **options: Any) -> Any:
        assert launch is not None
        launch.read(ptrs.data[mask.data], _itemsize(ptrs))
        return load(self, ptrs, mask, _anything(ptrs) if other is None else other, *rest, **options)

    def watched_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        assert launch is not None
        launch.write(ptrs.data[mask.data], _itemsize(ptrs))
        return store(self, ptrs, value, mask, *rest, **options)

    interpreter.GridExecutor.__call__ = watched_run
    InterpreterBuilder.set_grid_idx = watched_begin
    InterpreterBuilder.create_masked_load = watched_load
    InterpreterBuilder.create_masked_store = watched_store


def _itemsize(ptrs: Any) -> int:
    size: int = max(ptrs.get_element_ty().primitive_bitwidth // 8, 1)
    return size


def _anything(ptrs: Any) -> Any:
    """What a masked load is when nothing is said: NaN, or a number that is no index."""
    kind = ptrs.get_element_ty()
    dtype = interpreter._get_np_dtype(kind)
    if kind == tl.bfloat16:
        value = np.full(ptrs.data.shape, 0x7FFF, dtype=dtype)
    elif np.issubdtype(dtype, np.floating):
        value = np.full(ptrs.data.shape, np.nan, dtype=dtype)
    else:
        value = np.full(ptrs.data.shape, _ANYTHING, dtype=np.uint64).astype(dtype)
    return TensorHandle(value, kind)


def _mend_bfloat16() -> None:
    cast, convert, dot = (
        InterpreterBuilder.cast_impl,
        InterpreterBuilder.create_fp_to_fp,
        InterpreterBuilder.create_dot,
    )

    def cast_impl(self: Any, source: Any, kind: Any) -> Any:
        if source.dtype.scalar == kind.scalar:
            return source
        if kind.scalar == tl.bfloat16:
            return _to_bfloat16(cast(self, source, tl.float32))
        return cast(self, _to_float32(source), kind)

    def create_fp_to_fp(self: Any, source: Any, kind: Any, rounding: Any) -> Any:
        if tl.bfloat16 in (source.dtype.scalar, kind.scalar):
            return cast_impl(self, source, kind)
        return convert(self, source, kind, rounding)

    def create_dot(self: Any, a: Any, b: Any, total: Any, *options: Any) -> Any:
        return dot(self, _to_float32(a), _to_float32(b), total, *options)

    def refuse(operation: Any) -> Any:
        def refusing(self: Any, *arguments: Any) -> Any:
            if any(isinstance(value, TensorHandle) and value.dtype.scalar == tl.bfloat16 for value in arguments):
                raise AssertionError("arithmetic in bfloat16, which the interpreter does not know: convert before")
            return operation(self, *arguments)

        return refusing

    InterpreterBuilder.cast_impl = cast_impl
    InterpreterBuilder.create_fp_to_fp = create_fp_to_fp
    InterpreterBuilder.create_dot = create_dot
    InterpreterBuilder.binary_op = refuse(InterpreterBuilder.binary_op)
    InterpreterBuilder.unary_op = refuse(InterpreterBuilder.unary_op)


def _to_float32(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _to_bfloat16(handle: Any) -> Any:
    """The nearest, the even one of two that are as near."""
    bits = np.ascontiguousarray(handle.data).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return TensorHandle(np.where(np.isnan(handle.data), 0x7FFF, nearest).astype(np.uint16), tl.bfloat16)
