"""How many float32 lanes a vector has on this machine."""

from __future__ import annotations

import os
import platform

from llvmlite import binding


def _choose() -> int:
    asked = os.environ.get("WSE_SIMD_WIDTH")
    if asked:
        if asked not in ("4", "8", "16"):
            raise ValueError(f"WSE_SIMD_WIDTH (={asked!r}) must be 4, 8 or 16")
        return int(asked)
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4


V: int = _choose()
"""Lanes of a vector: 16 with AVX-512, 8 with AVX2, else 4; ``WSE_SIMD_WIDTH`` overrides it."""

VECTOR_BYTES: int = 4 * V

MANY_REGISTERS: bool = V == 16 or (V == 4 and platform.machine().lower() in ("arm64", "aarch64"))
"""Whether there are 32 vector registers, as with AVX-512 and on ARM, or 16. What a tile holds must fit them."""
