"""What a format reader finds in the files of others: networks, with all that is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError, WseError
from ..nets import Layout
from ..space import PROPERTIES
from ..zoo import Value

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignSnapshot:
    """A network at one time.

    Attributes:
        epoch: epochs trained before it.
        step: optimizer steps taken before it; None where that is not known.
        metrics: what was measured, by the names of the snapshots table.
    """

    epoch: int
    step: int | None
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignMember:
    """A network.

    Attributes:
        origin: what tells it from all others of the source.
        layout: of its weights, as wse lays them out.
        config: a value for every property; None where it does not apply or is not known.
        snapshots: in the order of time.
        read: reads the weights [snapshots, D] float32, in the order of the layout.
        facts: more columns of the members table.
    """

    origin: str
    layout: Layout
    config: Mapping[str, Value]
    snapshots: tuple[ForeignSnapshot, ...]
    read: Callable[[], Float32]
    facts: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """What a source holds.

    Attributes:
        members: its networks.
        files: name -> sha256 of each file that says what they are.
        notes: lines on what is in it that no network was made of.
    """

    members: Sequence[ForeignMember]
    files: Mapping[str, str]
    notes: tuple[str, ...] = ()


def setup(**known: Value) -> dict[str, Value]:
    """A complete set-up of what is known; all other properties are None."""
    return {**dict.fromkeys(PROPERTIES), **known}


def translated(value: str, words: Mapping[str, str], where: str) -> str:
    """A word of theirs in ours, whatever its case and underscores.

    Args:
        value: their word.
        words: theirs -> ours.
        where: it was found, for an error.

    Raises:
        WseError: wse has no such thing.
    """
    found = {_plain(word): ours for word, ours in words.items()}.get(_plain(value))
    if found is None:
        raise WseError(f"{where} is {value!r}, and wse knows only {', '.join(words)}: leave such networks out")
    return found


def _plain(word: str) -> str:
    return word.strip().lower().replace("_", "").replace("-", "")


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Raises:
        UsageError: the file cannot be read.
    """
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """A block that reads a file of theirs; what goes wrong becomes one line.

    Args:
        path: the file.
        errors: what a parser raises if the file is not what it should be.

    Raises:
        UsageError: the system cannot read it.
        WseError: a parser could not.
    """
    try:
        yield
    except errors as error:
        raise WseError(f"{path} is damaged: {str(error).partition(chr(10))[0]}; get it again") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
