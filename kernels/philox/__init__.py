"""Counter-based random numbers: Philox4x32-10, what is drawn from it, and a keyed permutation."""

from .dropout import drop_level, keep_mask, keep_probability
from .permute import permute, permute_each
from .reference import (
    Stream,
    normal,
    normal_pairs,
    philox4x32,
    truncated_normal,
    uniform,
    words,
)

__all__ = [
    "Stream",
    "drop_level",
    "keep_mask",
    "keep_probability",
    "normal",
    "normal_pairs",
    "permute",
    "permute_each",
    "philox4x32",
    "truncated_normal",
    "uniform",
    "words",
]
