"""Image sets: where they are found, how they are read, checked and brought to one form.

``load("mnist")`` gives uint8 images [n, 32, 32, 3], memory-mapped from the cache. Two environment
variables matter: ``WSE_DATA``, a data folder (a folder per image set, or NAME.npz), and ``WSE_CACHE``, where
downloads and converted images go.
"""

from .cache import ImageSet, load
from .download import fetch
from .search import Found, Status, available, known_names, locate, status
from .sources import IMAGE_SET_NAMES, IMAGE_SETS, Download, Source

__all__ = [
    "IMAGE_SETS",
    "IMAGE_SET_NAMES",
    "Download",
    "Found",
    "ImageSet",
    "Source",
    "Status",
    "available",
    "fetch",
    "known_names",
    "load",
    "locate",
    "status",
]
