"""Slices of stored vectors: gathered, converted to float32 and normalised in one pass.

The plain version is ``reference.gather``, the compiled one ``cpu.gather``, that of a GPU ``triton.gather``.
"""

from .runs import EPSILON, Normalize, Runs

__all__ = ["EPSILON", "Normalize", "Runs"]
