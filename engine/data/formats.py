"""Readers of the original file formats: strict, and they name the file when something is wrong.

Each returns ``(images, labels)``: uint8 [n, height, width, channels] and uint8 [n], labels from 0.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WseError
from .containers import faults_named, one_line, open_binary, read_at_most

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images uint8 [n, height, width, channels] and their labels uint8 [n]."""

MAX_IMAGES = 1_000_000
"""A part of a set that claims more images is taken for damaged; the largest read here has 73,257."""

CIFAR10_RECORD_BYTES = 1 + 3 * 32 * 32
STL10_IMAGE_BYTES = 3 * 96 * 96


def read_idx(images_path: Path, labels_path: Path, *, n_classes: int, height: int, width: int) -> Labelled:
    """Read a pair of IDX files (MNIST, Fashion-MNIST), plain or ``.gz``.

    The format is described at http://yann.lecun.com/exdb/mnist/: big-endian uint32 magic number
    (0x0803 images, 0x0801 labels) and dimensions, then the bytes.

    Raises:
        WseError: A file is damaged, truncated, oversized or of another kind, the images have another
            size, a label is not below `n_classes`, or the two files differ in number.
    """
    images = _read_idx_array(images_path, (height, width))
    labels = _read_idx_array(labels_path, ())
    _check_numbers(len(images), len(labels), images_path, labels_path)
    _check_labels(labels, 0, n_classes - 1, labels_path)
    return images[..., None], labels


def _read_idx_array(path: Path, item_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    n_axes = 1 + len(item_shape)
    header_bytes = 4 * (1 + n_axes)
    kind = "images" if item_shape else "labels"
    with open_binary(path) as stream:
        header = read_at_most(stream, header_bytes)
        if len(header) < header_bytes:
            raise WseError(f"{path}: truncated, expected {header_bytes} bytes of header, found {len(header)}")
        magic, n_items, *found_shape = (int(word) for word in np.frombuffer(header, ">u4"))
        expected_magic = 0x0800 + n_axes  # 0x08: unsigned bytes
        if magic != expected_magic:
            raise WseError(
                f"{path}: not an IDX file of {kind} (magic number 0x{magic:08x}, not 0x{expected_magic:08x})"
            )
        if tuple(found_shape) != item_shape:
            raise WseError(f"{path}: images are {_times(found_shape)} pixels, expected {_times(item_shape)}")
        if not 1 <= n_items <= MAX_IMAGES:
            raise WseError(f"{path}: the header claims {n_items} {kind}, plausible are 1 to {MAX_IMAGES}")
        expected_bytes = n_items * int(np.prod(item_shape, dtype=np.int64))
        # One byte more than expected: it shows an oversized file, and makes gzip check its checksum.
        body = read_at_most(stream, expected_bytes + 1)
    if len(body) < expected_bytes:
        raise WseError(f"{path}: truncated, expected {expected_bytes} bytes of {kind}, found {len(body)}")
    if len(body) > expected_bytes:
        raise WseError(f"{path}: oversized, more than the {expected_bytes} bytes its header announces")
    return np.frombuffer(body, np.uint8).reshape(n_items, *item_shape)


def read_cifar10(blob: bytes, where: str | Path) -> Labelled:
    """Read one file of the CIFAR-10 binary version.

    A record is 3073 bytes: the label, then 32x32 red, green and blue planes, row by row
    (https://www.cs.toronto.edu/~kriz/cifar.html).

    Args:
        blob: The file's content.
        where: What to call it in errors.

    Raises:
        WseError: The size is no whole number of records, or a label is above 9.
    """
    n = _count_records(blob, CIFAR10_RECORD_BYTES, "a record", where)
    records = np.frombuffer(blob, np.uint8).reshape(n, CIFAR10_RECORD_BYTES)
    labels = records[:, 0].copy()
    _check_labels(labels, 0, 9, where)
    return records[:, 1:].reshape(n, 3, 32, 32).transpose(0, 2, 3, 1), labels


def read_stl10(images_blob: bytes, labels_blob: bytes, images_where: str, labels_where: str) -> Labelled:
    """Read the images and labels of one part of STL-10's binary version.

    An image is three 96x96 planes (red, green, blue), each stored column by column; labels are 1..10
    (https://cs.stanford.edu/~acoates/stl10/).

    Args:
        images_blob: Content of ``train_X.bin`` or ``test_X.bin``.
        labels_blob: Content of ``train_y.bin`` or ``test_y.bin``.
        images_where: What to call the images in errors.
        labels_where: What to call the labels in errors.

    Returns:
        Images of 96x96x3; labels 0..9.

    Raises:
        WseError: A size is wrong, a label is not 1..10, or the two differ in number.
    """
    n = _count_records(images_blob, STL10_IMAGE_BYTES, "an image", images_where)
    labels = np.frombuffer(labels_blob, np.uint8)
    _check_numbers(n, len(labels), images_where, labels_where)
    _check_labels(labels, 1, 10, labels_where)
    planes_NCXY = np.frombuffer(images_blob, np.uint8).reshape(n, 3, 96, 96)
    return planes_NCXY.transpose(0, 3, 2, 1), labels - np.uint8(1)


def read_svhn(path: Path) -> Labelled:
    """Read one file of SVHN's cropped digits (MATLAB 5: ``X`` [32, 32, 3, n], ``y`` [n, 1]).

    Labels are 1..10 and 10 means digit 0 (http://ufldl.stanford.edu/housenumbers/). Shapes are checked
    from the headers before anything is loaded.

    Raises:
        WseError: The file is damaged or truncated, lacks ``X`` or ``y``, or they have other types or
            shapes, or a label is not 1..10.
    """
    variables = _load_matlab(path)
    images, labels = variables["X"], variables["y"].reshape(-1)
    _check_labels(labels, 1, 10, path)
    if not np.array_equal(labels, np.floor(labels)):
        raise WseError(f"{path}: labels `y` are not whole numbers")
    return images.transpose(3, 0, 1, 2), labels.astype(np.uint8) % np.uint8(10)


def _load_matlab(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadWarning

    with faults_named(path), open(path, "rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("error", MatReadWarning)
        try:
            headers = {name: (shape, kind) for name, shape, kind in whosmat(stream)}
            _check_svhn_headers(headers, path)
            stream.seek(0)
            variables: dict[str, Any] = loadmat(stream, variable_names=["X", "y"])
        except WseError:
            raise
        except Exception as error:  # on damaged files scipy raises nearly anything, IndexError included
            raise WseError(f"{path}: no intact MATLAB 5 file ({one_line(error)})") from error
    return variables


def _check_svhn_headers(headers: dict[str, tuple[tuple[int, ...], str]], path: Path) -> None:
    missing = [name for name in ("X", "y") if name not in headers]
    if missing:
        raise WseError(f"{path}: lacks the variable {' and '.join(missing)}; expected SVHN's cropped digits")
    (image_shape, image_kind), (label_shape, label_kind) = headers["X"], headers["y"]
    if image_kind != "uint8" or len(image_shape) != 4 or image_shape[:3] != (32, 32, 3):
        raise WseError(f"{path}: `X` is {image_kind} {list(image_shape)}, expected uint8 [32, 32, 3, n]")
    n = image_shape[3]
    if not 1 <= n <= MAX_IMAGES:
        raise WseError(f"{path}: the header claims {n} images, plausible are 1 to {MAX_IMAGES}")
    if label_kind not in ("uint8", "double") or label_shape not in ((n, 1), (1, n)):
        raise WseError(f"{path}: `y` is {label_kind} {list(label_shape)}, expected uint8 [{n}, 1]")


def _count_records(blob: bytes, record_bytes: int, what: str, where: str | Path) -> int:
    n, rest = divmod(len(blob), record_bytes)
    if rest or n == 0:
        raise WseError(
            f"{where}: truncated or oversized, expected a multiple of {record_bytes} bytes ({what}), "
            f"found {len(blob)}"
        )
    if n > MAX_IMAGES:
        raise WseError(f"{where}: holds {n} images, plausible are 1 to {MAX_IMAGES}")
    return n


def _check_numbers(n_images: int, n_labels: int, images_where: str | Path, labels_where: str | Path) -> None:
    if n_images != n_labels:
        raise WseError(f"{labels_where}: holds {n_labels} labels for the {n_images} images of {images_where}")


def _check_labels(labels: NDArray[Any], lowest: int, highest: int, where: str | Path) -> None:
    # Stated so that a NaN, which MATLAB files can hold, is out of range too.
    wrong = np.flatnonzero(~((labels >= lowest) & (labels <= highest)))
    if wrong.size:
        first = int(wrong[0])
        raise WseError(f"{where}: label {labels[first]:g} of image {first} is not in {lowest}..{highest}")


def _times(shape: tuple[int, ...] | list[int]) -> str:
    return "x".join(str(size) for size in shape)
