"""Reading files that may be damaged: bounded, in memory, every fault one line that names the file."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from ..errors import WseError

_CHUNK_BYTES = 1 << 20


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Turn what gzip, tar and the file system raise into a `WseError` that names `path`."""
    try:
        yield
    except EOFError as error:
        raise WseError(f"{path}: truncated compressed data") from error
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise WseError(f"{path}: damaged archive ({one_line(error)})") from error
    except OSError as error:
        raise WseError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def open_binary(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file for reading, through gzip when its name ends in ``.gz``; faults as `faults_named`."""
    with faults_named(path):
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as stream:
                yield stream
        else:
            with open(path, "rb") as stream:
                yield stream


def read_at_most(stream: BufferedIOBase, limit_bytes: int) -> bytes:
    """Read up to `limit_bytes`, using memory for what is there and not for what a header promised."""
    parts = []
    left = limit_bytes
    while left > 0 and (part := stream.read(min(left, _CHUNK_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_whole(path: Path, limit_bytes: int) -> bytes:
    """The content of a plain or gzip file.

    Raises:
        WseError: The file cannot be read, is damaged, or holds more than `limit_bytes`.
    """
    with open_binary(path) as stream:
        content = read_at_most(stream, limit_bytes + 1)
    if len(content) > limit_bytes:
        raise WseError(f"{path}: holds more than {limit_bytes} bytes, too many for this kind of file")
    return content


def read_tar_gz(path: Path, names: Collection[str], limit_bytes: int) -> dict[str, bytes]:
    """Read members of a ``.tar.gz`` into memory, by exact name; nothing is written to disk.

    The archive is read to its very end, so that its checksum is verified.

    Args:
        path: The archive.
        names: Full names of the members wanted, all of them regular files.
        limit_bytes: The most bytes one member may have.

    Returns:
        Name -> content, for every name.

    Raises:
        WseError: The archive is damaged or truncated; a member is missing, there twice, not a regular
            file, or larger than `limit_bytes`.
    """
    found: dict[str, bytes] = {}
    with open_binary(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.name not in names:
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    raise WseError(f"{path}: {member.name} is not a regular file in this archive")
                if member.name in found:
                    raise WseError(f"{path}: {member.name} is in this archive twice")
                if member.size > limit_bytes:
                    raise WseError(
                        f"{path}: {member.name} claims {member.size} bytes, plausible are {limit_bytes}"
                    )
                found[member.name] = content.read()
        while stream.read(_CHUNK_BYTES):
            pass
    missing = [name for name in names if name not in found]
    if missing:
        raise WseError(f"{path}: lacks {', '.join(missing)}; is it the original archive?")
    return found
