"""Zoos in the formats of others, in and out.

A module a format knows its files. ``importing`` makes a zoo of what it reads, so that everything that reads zoos
reads theirs as well; ``exporting`` has it write what a zoo of ours holds.
"""

from .exporting import WRITERS, export_zoo
from .importing import FORMATS, Imported, import_zoo

__all__ = ["FORMATS", "WRITERS", "Imported", "export_zoo", "import_zoo"]
