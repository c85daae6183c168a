"""The vector language that CPU kernels are written in."""

from .builder import Builder, Value, Variable, lane_sums
from .decorator import clear, kernel, peek, peek_double, poke, scale
from .width import MANY_REGISTERS, VECTOR_BYTES, V

__all__ = [
    "MANY_REGISTERS",
    "VECTOR_BYTES",
    "Builder",
    "V",
    "Value",
    "Variable",
    "clear",
    "kernel",
    "lane_sums",
    "peek",
    "peek_double",
    "poke",
    "scale",
]
