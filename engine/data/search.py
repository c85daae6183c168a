"""Where image sets are: the folders searched, and what is found in them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import platformdirs

from ..errors import UsageError
from .own import own_sets
from .sources import IMAGE_SET_NAMES, IMAGE_SETS, Source

SYSTEM_FOLDER = Path("/usr/share/datasets")

DataDir = str | os.PathLike[str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An image set that is here; ``str()`` says where.

    Attributes:
        name: The image set.
        where: The folder or archive, or the package with its version.
        files: The files of the set, in the order its reader takes them; none for a package.
    """

    name: str
    where: str
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return self.where


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What is known of one image set on this machine.

    Attributes:
        name: The name used in spaces and on the command line.
        title: The name for people.
        n_classes: Number of classes; None before a set of the user's own is read.
        train_images: Images in the training part of the original; None likewise.
        test_images: Images in the test part of the original; None likewise.
        found: Where it is, or None.
        gaps: Folders that hold a part of it, each with the files that are missing there; empty if it was found.
        how: What to do to get it.
        origin: Who made it, and its terms of use where they are stated.
    """

    name: str
    title: str
    n_classes: int | None
    train_images: int | None
    test_images: int | None
    found: str | None
    gaps: tuple[str, ...]
    how: str
    origin: str


def cache_folder() -> Path:
    """The folder for downloads and converted images: ``WSE_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("WSE_CACHE")
    return Path(os.path.expanduser(chosen)) if chosen else Path(platformdirs.user_cache_dir("wse"))


def downloads_folder() -> Path:
    """Where `fetch` puts the originals; laid out like any data folder."""
    return cache_folder() / "downloads"


def known_names(data_dir: DataDir = None) -> list[str]:
    """`IMAGE_SET_NAMES`, then sets of the user's own in the data folders.

    Args:
        data_dir: As for `locate`.

    Raises:
        UsageError: `data_dir` or ``WSE_DATA`` is no folder.
    """
    return [*IMAGE_SET_NAMES, *own_sets(_data_folders(data_dir))]


def source_of(name: str, *, data_dir: DataDir = None) -> Source:
    """The image set of that name: one that wse knows, or one of the user's own in a data folder.

    Args:
        name: The image set.
        data_dir: As for `locate`.

    Raises:
        UsageError: There is none; the message lists those there are. Or as `locate`.
    """
    known = {**IMAGE_SETS, **own_sets(_data_folders(data_dir))}
    if name not in known:
        raise UsageError(
            f"unknown image set {name!r}; there are: {', '.join(known)}, and images of your own in a file "
            "NAME.npz in a folder named by --data-dir or WSE_DATA"
        )
    return known[name]


def locate(name: str, *, data_dir: DataDir = None) -> Found | None:
    """Find an image set: in `data_dir`, ``WSE_DATA``, the cache, ``/usr/share/datasets``, in this order.

    Looks at file names only; nothing is read.

    Args:
        name: One of `known_names`.
        data_dir: A folder with image sets, searched first; ``~`` is expanded.

    Returns:
        Where it is, or None.

    Raises:
        UsageError: `name` is unknown, or `data_dir` or ``WSE_DATA`` is no folder.
    """
    found, _ = _search(source_of(name, data_dir=data_dir), _data_folders(data_dir))
    return found


def require(name: str, *, data_dir: DataDir = None) -> Found:
    """As `locate`, but an image set that is not here is an error.

    Raises:
        UsageError: As `locate`; or the set is not here: the message says which are, and how to get it.
    """
    source = source_of(name, data_dir=data_dir)
    folders = _data_folders(data_dir)
    found, gaps = _search(source, folders)
    if found is not None:
        return found
    problem = f"image set {name!r} is not here"
    advice = f"get it with `{source.how}`"
    if source.package is None:
        problem += f" (looked in {', '.join(map(str, folders))})"
        advice += " or put its files in a folder named by --data-dir or WSE_DATA"
    if gaps:
        problem += f"; {'; '.join(gaps)}"
    here = ", ".join(available(data_dir)) or "none"
    raise UsageError(f"{problem}; available: {here}; {advice}")


def available(data_dir: DataDir = None) -> list[str]:
    """The image sets that are here, in the order of `known_names`.

    Args:
        data_dir: As for `locate`.

    Raises:
        UsageError: `data_dir` or ``WSE_DATA`` is no folder.
    """
    return [row.name for row in status(data_dir) if row.found is not None]


def status(data_dir: DataDir = None) -> list[Status]:
    """A row for each image set: what it is, where it was found, how to get it.

    Args:
        data_dir: As for `locate`.

    Raises:
        UsageError: `data_dir` or ``WSE_DATA`` is no folder.
    """
    folders = _data_folders(data_dir)
    rows = []
    for source in (*IMAGE_SETS.values(), *own_sets(folders).values()):
        found, gaps = _search(source, folders)
        train_images, test_images = source.counts or (None, None)
        rows.append(
            Status(
                name=source.name,
                title=source.title,
                n_classes=source.n_classes,
                train_images=train_images,
                test_images=test_images,
                found=None if found is None else found.where,
                gaps=tuple(gaps),
                how=source.how,
                origin=source.origin,
            )
        )
    return rows


def _data_folders(data_dir: DataDir) -> list[Path]:
    """The data folders in the order they are searched; those a user named must exist."""
    named = [("--data-dir", data_dir), ("WSE_DATA", os.environ.get("WSE_DATA"))]
    folders = []
    for origin, value in named:
        if value is None or value == "":
            continue
        folder = Path(os.path.expanduser(value))
        if not os.path.isdir(folder):
            raise UsageError(f"{origin} names {folder}, which is no folder; name one that holds image sets")
        folders.append(folder)
    return list(dict.fromkeys([*folders, downloads_folder(), SYSTEM_FOLDER]))


def _search(source: Source, folders: list[Path]) -> tuple[Found | None, list[str]]:
    """Find a set; else say which files are missing in folders that hold a part of it."""
    if source.package is not None:
        return _search_package(source.name, source.package), []
    gaps = []
    for folder in (root / inner for root in folders for inner in source.folders):
        for layout in source.layouts:
            files = [
                next((folder / name for name in names if os.path.isfile(folder / name)), None) for names in layout
            ]
            present = tuple(file for file in files if file is not None)
            if len(present) == len(layout):
                where = present[0] if len(present) == 1 else folder
                return Found(name=source.name, where=str(where), files=present), []
            if present:
                missing = [names[-1] for names, file in zip(layout, files, strict=True) if file is None]
                gaps.append(f"{folder} lacks {', '.join(missing)}")
    if source.name in IMAGE_SETS:
        taken = [folder / f"{source.name}.npz" for folder in folders]
        gaps += [
            f"{file} is not read under a name that wse gives: rename it" for file in taken if os.path.isfile(file)
        ]
    return None, gaps


def _search_package(name: str, package: str) -> Found | None:
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
    return Found(name=name, where=f"{package} {version}", files=())
