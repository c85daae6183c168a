"""Loading an image set: converted once into one file of the cache, memory-mapped ever after.

The file: a JSON header padded to 4096 bytes, then the four arrays one after the other, uint8, in the order
of `_PARTS`. Its name carries a fingerprint of the sources, so that changed sources are converted again.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import WseError
from ..files import atomic_write
from .containers import faults_named
from .formats import Labelled
from .resize import SIZE, to_rgb32
from .search import DataDir, Found, cache_folder, require, source_of
from .sources import Source

# To be changed with everything that changes the bytes: the file's layout, the readers, the resizing.
FORMAT = "wse-images-2"

_HEADER_BYTES = 4096
_IMAGE_BYTES = SIZE * SIZE * 3
# What is converted at once: so many images, fewer of those that are larger than STL-10's.
_CHUNK_IMAGES = 256
_CHUNK_VALUES = _CHUNK_IMAGES * 96 * 96 * 3
_PARTS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageSet:
    """An image set as training uses it: 32x32 RGB, memory-mapped, read-only.

    Attributes:
        name: One of `known_names`.
        n_classes: Number of classes; every class occurs in the training part.
        train_images: uint8 [n, 32, 32, 3] (NHWC), values 0..255.
        train_labels: uint8 [n], values below `n_classes`.
        test_images: uint8 [m, 32, 32, 3].
        test_labels: uint8 [m].
        sha256: Identity of the content, the same on every machine: over the four arrays in this order,
            each preceded by the ASCII line ``name sizes``, as in ``train_images 60000,32,32,3``.
    """

    name: str
    n_classes: int
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    sha256: str


def load(name: str, *, data_dir: DataDir = None) -> ImageSet:
    """Find, read and check an image set; the first time it is converted into the cache.

    The first load of a set takes seconds, later ones milliseconds: they map the file of the cache and
    read no image. Any number of processes may load a set at once. Where the cache cannot be written, the images
    are converted into memory, and a warning says so.

    Args:
        name: One of `known_names`.
        data_dir: A folder with image sets, searched first; ``~`` is expanded.

    Raises:
        UsageError: `name` is unknown, the set is not here, or `data_dir` or ``WSE_DATA`` is no folder.
        WseError: A file is damaged, or a class has fewer than two training images.
    """
    found = require(name, data_dir=data_dir)
    source = source_of(name, data_dir=data_dir)
    path = cache_folder() / "images" / f"{name}-{_fingerprint(found)}.images"
    converted = _open(path, source)
    if converted is None:
        train, test = _read(source, found)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as stream:
                _write(stream, source, train, test)
        except OSError as error:
            warnings.warn(
                f"images of {name} cannot be kept in {path.parent} ({error.strerror or error}), so each start "
                "converts them: set WSE_CACHE to a folder that can be written",
                stacklevel=2,
            )
            return _converted(source, train, test)
        converted = _open(path, source)
    if converted is None:
        raise WseError(f"{path}: changed while it was opened; run the command again")
    return converted


def _read(source: Source, found: Found) -> tuple[Labelled, Labelled]:
    try:
        train, test = source.read(found.files)
        _check_classes(train[1], source, found)
    except WseError as error:
        if not source.downloads:
            raise
        # Fetching alone would not help where another folder is searched first.
        raise WseError(f"{error}: put the original there, or remove that and get it by `{source.how}`") from error
    return train, test


def _converted(source: Source, train: Labelled, test: Labelled) -> ImageSet:
    """An image set in memory."""
    stream = io.BytesIO()
    _write(stream, source, train, test)
    content = np.frombuffer(stream.getbuffer(), np.uint8)
    content.flags.writeable = False
    images = _image_set(content, source)
    assert images is not None  # noqa: S101 - just written
    return images


def _fingerprint(found: Found) -> str:
    """16 hex digits that change with the sources (path, size, time of change) and with `FORMAT`."""
    identity: list[object] = [FORMAT, found.name]
    for file in found.files:
        with faults_named(file):
            stat = file.stat()
        identity.append([str(file.resolve()), stat.st_size, stat.st_mtime_ns])
    if not found.files:
        identity.append(found.where)
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _check_classes(labels: NDArray[np.uint8], source: Source, found: Found) -> None:
    # Training draws classes in equal numbers, which an empty class would make impossible; one image is kept back.
    counts = np.bincount(labels, minlength=source.n_classes or 0)
    few = np.flatnonzero(counts < 2)
    if few.size:
        raise WseError(f"{found}: fewer than two training images of class {', '.join(map(str, few))}")


def _write(stream: BinaryIO, source: Source, train: Labelled, test: Labelled) -> None:
    digest = hashlib.sha256()
    stream.seek(_HEADER_BYTES)

    def put(array: NDArray[np.uint8]) -> None:
        data = np.ascontiguousarray(array).data
        digest.update(data)
        stream.write(data)

    for part, (images, labels) in (("train", train), ("test", test)):
        digest.update(f"{part}_images {len(images)},{SIZE},{SIZE},3\n".encode("ascii"))
        count = min(_CHUNK_IMAGES, max(_CHUNK_VALUES // images[0].size, 1))
        for start in range(0, len(images), count):
            put(to_rgb32(images[start : start + count]))
        digest.update(f"{part}_labels {len(labels)}\n".encode("ascii"))
        put(labels)
    header = {
        "format": FORMAT,
        "name": source.name,
        "classes": source.n_classes or int(train[1].max()) + 1,
        "train": len(train[1]),
        "test": len(test[1]),
        "sha256": digest.hexdigest(),
    }
    stream.seek(0)
    stream.write(json.dumps(header).encode("ascii").ljust(_HEADER_BYTES))


def _open(path: Path, source: Source) -> ImageSet | None:
    """Map a converted file; None when it is missing, has the wrong size or is not what its name says."""
    try:
        return _image_set(np.memmap(path, np.uint8, mode="r"), source)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None


def _image_set(content: NDArray[np.uint8], source: Source) -> ImageSet | None:
    """The image set in the bytes of a converted file."""
    header = _parse_header(content[:_HEADER_BYTES].tobytes(), source)
    if header is None:
        return None
    arrays, start = {}, _HEADER_BYTES
    for part in _PARTS:
        shape = (header[part.partition("_")[0]], *((SIZE, SIZE, 3) if part.endswith("images") else ()))
        stop = start + math.prod(shape)
        if stop > len(content):
            return None
        arrays[part] = content[start:stop].reshape(shape)
        start = stop
    if start != len(content):
        return None
    return ImageSet(name=source.name, n_classes=header["classes"], sha256=header["sha256"], **arrays)


def _parse_header(block: bytes, source: Source) -> dict[str, Any] | None:
    try:
        header = json.loads(block)
    except ValueError:
        return None
    expected = {"format": FORMAT, "name": source.name}
    if not isinstance(header, dict) or any(header.get(key) != value for key, value in expected.items()):
        return None
    sizes = [header.get(key) for key in ("classes", "train", "test")]
    if not all(isinstance(n, int) and n >= 1 for n in sizes) or not isinstance(header.get("sha256"), str):
        return None
    return header
