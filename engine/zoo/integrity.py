"""Checksums, and system errors turned into messages that name the file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError, WseError
from ..text import command_text

MENDING = "see what `wse verify --repair` can make again, or restore it from a copy"


def resume_command(folder: Path) -> str:
    """The command that goes on with an unfinished zoo."""
    return command_text("wse", "generate", "--resume", "--out", folder)


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` in the block (disk full, no permission) into an ``UnwritableError``."""
    try:
        yield
    except OSError as error:
        raise UnwritableError(path, error.strerror or str(error)) from error


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` in the block (no such file, no permission) into a ``WseError`` naming ``path``."""
    try:
        yield
    except OSError as error:
        raise WseError(f"cannot read {path}: {error.strerror or error}") from error


class UnwritableError(WseError):
    """A file cannot be written.

    Attributes:
        path: the file.
        reason: why, in the words of the system.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot write {path}: {reason}; "
            "put that right, then give the same command again, with --resume if a run had begun"
        )
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnwritableError], tuple[Path, str]]:
        return (UnwritableError, (self.path, self.reason))


class DamagedError(WseError):
    """A file is not what was written.

    Attributes:
        path: the file.
        problem: what is wrong, in words that continue "FILE is damaged: ".
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} is damaged: {problem}; {MENDING}")
        self.path = path
        self.problem = problem

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str]]:
        # Workers of a data loader hand it to their parent; the message alone does not make it again.
        return (DamagedError, (self.path, self.problem))


def file_problem(path: Path, size: int, sha256: str) -> str | None:
    """What is wrong with a file, after reading all of it.

    Args:
        path: the file.
        size: the bytes it must have.
        sha256: the checksum it must have, in hexadecimal.

    Returns:
        What is wrong, in words that continue "FILE is damaged: ", or None.
    """
    try:
        found = path.stat().st_size
        if found != size:
            return f"it has {found:,} bytes instead of {size:,}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    return None if digest == sha256 else "its content does not match its sha256"


def check_local(folder: Path) -> None:
    """Refuse what is meant as an address: it would become a folder of that name.

    Raises:
        UsageError: it is one.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder), re.IGNORECASE):
        raise UsageError(
            f"{folder} looks like the address of a store: name a folder of this machine, or one that it shares"
        )
