"""Zoos in the formats of others: read and made zoos of ours.

A module a format says what is there; ``importing`` makes a zoo of it, so that everything that reads zoos reads
theirs as well.
"""

from .importing import FORMATS, Imported, import_zoo

__all__ = ["FORMATS", "Imported", "import_zoo"]
