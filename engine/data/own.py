"""Image sets of the user's own: ``NAME.npz`` in a data folder, with arrays named as in the sets of Keras."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WseError
from .containers import faults_named, one_line
from .formats import MAX_IMAGES, Labelled
from .resize import MAX_SIDE
from .sources import IMAGE_SETS, Files, Source

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_PARTS = ("train", "test")
_ARRAYS = tuple(f"{kind}_{part}" for part in _PARTS for kind in "xy")
_MOST_CLASSES = 256  # labels are bytes


def own_sets(folders: Sequence[Path]) -> dict[str, Source]:
    """The image sets of data folders, by name; of two of one name that in the first folder. No file is read.

    A name that wse gives to a set is not taken. A folder that is not there, or may not be looked into, has none.
    """
    names = {
        path.stem
        for folder in folders
        if os.path.isdir(folder)  # unlike Path.is_dir, it raises nothing
        for path in folder.glob("*.npz")
        if re.fullmatch(_NAME, path.stem) and path.stem not in IMAGE_SETS and os.path.isfile(path)
    }
    return {name: _source(name) for name in sorted(names)}


def _source(name: str) -> Source:
    return Source(
        name=name,
        title=name,
        n_classes=None,
        counts=None,
        origin="of your own",
        read=_read_npz,
        folders=(".",),
        layouts=(((f"{name}.npz",),),),
        how=f"put {name}.npz into a data folder",
    )


def _read_npz(files: Files) -> tuple[Labelled, Labelled]:
    """Training and test part of a file with ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Raises:
        WseError: the file is damaged, lacks an array, or one is not images or labels as they should be.
    """
    (path,) = files
    arrays = _arrays(path)
    train, test = (
        (_images(arrays[f"x_{part}"], f"x_{part}", path), _labels(arrays[f"y_{part}"], f"y_{part}", path))
        for part in _PARTS
    )
    for part, (images, labels) in zip(_PARTS, (train, test), strict=True):
        if len(images) != len(labels):
            raise WseError(f"{path}: {len(images)} images in x_{part} but {len(labels)} labels in y_{part}")
    if test[1].max() > train[1].max():
        raise WseError(f"{path}: y_test has label {test[1].max()}, but y_train has none above {train[1].max()}")
    return train, test


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name; what NumPy and the archive raise is told in one line."""
    try:
        with faults_named(path), path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # NumPy would take it for something else
                raise zipfile.BadZipFile("it is no zip archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in _ARRAYS if name in stored}
        strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if strange:
            raise ValueError(f"{strange[0]} is no array")
    except (WseError, MemoryError):
        raise
    except Exception as error:  # of damaged bytes NumPy and zipfile make errors of many kinds, even tokenize's
        raise WseError(
            f"{path}: damaged, or not arrays of numbers as numpy.savez writes them ({one_line(error)})"
        ) from error
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise WseError(f"{path}: lacks {', '.join(missing)}; it must have x_train, y_train, x_test and y_test")
    return arrays


def _images(images: NDArray[Any], name: str, path: Path) -> NDArray[np.uint8]:
    if images.ndim == 3:
        images = images[..., None]
    is_right = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3) and images.size
    if not is_right or len(images) > MAX_IMAGES or max(images.shape[1:3]) > MAX_SIDE:
        raise WseError(
            f"{path}: {name} is {images.dtype} {list(images.shape)}; images must be uint8 [n, height, width] or "
            f"[n, height, width, 1 or 3], at most {MAX_IMAGES:,} of at most {MAX_SIDE:,} pixels a side"
        )
    return np.asarray(images)


def _labels(labels: NDArray[Any], name: str, path: Path) -> NDArray[np.uint8]:
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras has those of CIFAR-10
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not labels.size:
        raise WseError(f"{path}: {name} is {labels.dtype} {list(labels.shape)}; labels must be whole numbers [n]")
    if labels.min() < 0 or labels.max() >= _MOST_CLASSES:
        raise WseError(
            f"{path}: {name} has labels from {labels.min()} to {labels.max()}; they must count from 0, to "
            f"{_MOST_CLASSES - 1} at most"
        )
    return np.asarray(labels, np.uint8)
