"""What a Triton kernel can be compiled to, so that all of it can be compiled and looked at without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One compiled form of a kernel. Each module with kernels lists its own in ``variants()``.

    Args:
        kernel: the function that ``triton.jit`` made.
        name: what to call this form, unique in its module, for instance ``convolve-k5-32x32-4-8-bf16``.
        signature: Triton's type of each argument that is no constant, by name: ``*bf16``, ``*i32``, ``i64``, ...
            All pointers are multiples of 16 bytes.
        constexprs: the constants by name. Together with ``signature`` they name every argument once.
        num_warps: warps of a program.
        num_stages: depth of the software pipeline.
        needs_matrix: whether it must use matrix instructions.
        aligned: integer arguments that are multiples of 16, as strides of the arena are.
    """

    kernel: Any
    name: str
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    needs_matrix: bool = False
    aligned: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """The same for forms that differ in name alone, and so have the same machine code."""
        options = self.num_warps, self.num_stages, self.needs_matrix
        arguments = sorted(self.signature.items()), sorted(self.constexprs.items()), sorted(self.aligned)
        return repr((self.kernel.__module__, self.kernel.__name__, arguments, options))
