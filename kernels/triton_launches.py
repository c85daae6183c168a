"""Launches of Triton kernels that are kept instead of done, to learn which forms of kernels something asks for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from .triton_variant import Variant

_POINTERS = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16",
    torch.int8: "*i8", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64", torch.uint8: "*u8",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """A launch that was not done.

    Attributes:
        kernel: the function that ``triton.jit`` made.
        arguments: by name.
        grid: programs along each axis.
        options: ``num_warps`` and the like.
    """

    kernel: Any
    arguments: dict[str, Any]
    grid: tuple[int, ...]
    options: dict[str, Any]

    def variant(self) -> Variant:
        """What Triton compiles it as: integers that are 1 are constants, those that 16 divides are known to be."""
        signature: dict[str, str] = {}
        constants: dict[str, Any] = {}
        aligned = []
        for parameter in self.kernel.params:
            name = parameter.name
            value = self.arguments.get(name, parameter.default)
            is_looked_at = isinstance(value, int) and not parameter.do_not_specialize
            if parameter.is_constexpr or (is_looked_at and value == 1):
                constants[name] = value
            elif isinstance(value, torch.Tensor):
                signature[name] = _POINTERS[value.dtype]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32" if value < 2**31 else "i64"
                if is_looked_at and value % 16 == 0:
                    aligned.append(name)
        return Variant(
            kernel=self.kernel,
            name=self.kernel.__name__,
            signature=signature,
            constexprs=constants,
            aligned=tuple(aligned),
            **self.options,
        )

    def form(self) -> Form:
        """What another process needs to compile the same."""
        given = [self.arguments.get(parameter.name, parameter.default) for parameter in self.kernel.params]
        return Form(
            module=self.kernel.__module__,
            name=self.kernel.__name__,
            arguments=tuple(value.dtype if isinstance(value, torch.Tensor) else value for value in given),
            options=self.options,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A form of a kernel, as Triton would find it out from a launch. It can be pickled.

    Attributes:
        module: of the kernel.
        name: of the kernel.
        arguments: in their order; in the place of a tensor, which begins at a multiple of 16 bytes, its dtype.
        options: ``num_warps`` and the like.
    """

    module: str
    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def compile(self) -> None:
        """Have it compiled by what launches do, for the GPU of Triton's driver; from the disk if it is there."""
        kernel = getattr(importlib.import_module(self.module), self.name)
        kernel.warmup(*self.arguments, grid=(1,), **self.options)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Keeps launches instead of doing them, those of all threads: nobody else may launch meanwhile.

    So tensors need no memory: those on PyTorch's "meta" device do.
    """
    launches: list[Launch] = []
    run = JITFunction.run

    def keep(self: Any, *arguments: Any, grid: tuple[int, ...], warmup: bool = False, **options: Any) -> None:
        named = dict(zip(self.arg_names, arguments, strict=False))
        named |= {name: options.pop(name) for name in list(options) if name in self.arg_names}
        launches.append(Launch(kernel=self, arguments=named, grid=tuple(grid), options=options))

    JITFunction.run = keep
    try:
        yield launches
    finally:
        JITFunction.run = run
