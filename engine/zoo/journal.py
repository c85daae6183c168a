"""What keeps finished members safe until their shard and the tables are written.

The folder ``journal`` holds the weights of each member whose shard is not written yet (a *piece*, for
instance ``000123.safetensors``, a shard with one row) and the file ``journal.jsonl``. A line of that is

    {"crc32": ..., "entry": {"type": "member", ...}}        a member's record, and its piece
    {"crc32": ..., "entry": {"type": "shard", ...}}         a shard that is complete

and is on the disk when the call that adds it returns. A line is only ever added after the file it names.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..files import atomic_write, sync_folder
from .format import JOURNAL_FOLDER, Record, ShardEntry
from .integrity import loading, saving
from .records import MemberRecord


class MemberLine(Record, frozen=True, kw_only=True, tag="member"):
    """A finished member; ``piece`` is the file that holds its weights, None if they are in a shard already."""

    record: MemberRecord
    piece: ShardEntry | None


class ShardLine(Record, frozen=True, kw_only=True, tag="shard"):
    """A shard that has been written from the pieces of its members."""

    shard: ShardEntry


Line = MemberLine | ShardLine
_LINE = re.compile(rb'\{"crc32":(?P<crc32>\d+),"entry":(?P<entry>.*)\}\n')


class Journal:
    """The journal of a zoo; nothing is read or written before a method is called.

    Args:
        zoo: the folder of the zoo.
    """

    def __init__(self, zoo: Path) -> None:
        self.folder = zoo / JOURNAL_FOLDER
        self.path = self.folder / "journal.jsonl"
        self._size = 0

    def piece(self, member: int) -> Path:
        """Where the weights of a member are kept."""
        return self.folder / f"{member:06d}.safetensors"

    def start(self) -> None:
        """Make the folder and an empty journal where there is none.

        Raises:
            WseError: they cannot be made.
        """
        with saving(self.path):
            self.folder.mkdir(exist_ok=True)
            if not self.path.exists():
                with atomic_write(self.path):
                    pass
            sync_folder(self.folder.parent)
            self._size = self.path.stat().st_size

    def append(self, line: Line) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            WseError: it cannot be written; the journal is as before.
        """
        text = _encode(line)
        with saving(self.path), self.path.open("r+b") as file:
            # Whatever stands behind the last good line was left by an append that failed.
            file.seek(self._size)
            file.truncate()
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(text)

    def read(self, notes: list[str] | None = None) -> Iterator[Line]:
        """The good lines, in order.

        Args:
            notes: damaged lines are told here. A last line that was cut short by a crash is not worth a note:
                the member it would have named had not been reported as stored.

        Raises:
            WseError: the journal cannot be read.
        """
        with loading(self.path), self.path.open("rb") as file:
            for number, text in enumerate(file, 1):
                line = _decode(text)
                if line is not None:
                    yield line
                elif text.endswith(b"\n") and notes is not None:
                    notes.append(f"{self.path}: line {number} is damaged and left out")

    def rewrite(self, lines: Iterable[Line]) -> None:
        """Put these lines, which may come from ``read``, in place of those that are there.

        Raises:
            WseError: the journal cannot be written.
        """
        with saving(self.path), atomic_write(self.path) as file:
            for line in lines:
                file.write(_encode(line))
            self._size = file.tell()

    def finished(self) -> frozenset[int]:
        """Ids of the members that have a good line; none where there is no journal.

        Raises:
            WseError: the journal cannot be read.
        """
        if not self.path.exists():
            return frozenset()
        return frozenset(line.record.id for line in self.read() if isinstance(line, MemberLine))


def _canonical(entry: Any) -> str:
    # The standard library's JSON, because the losses of a diverged member may be NaN or infinite.
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))


def _encode(line: Line) -> bytes:
    entry = _canonical(msgspec.to_builtins(line))
    return f'{{"crc32":{zlib.crc32(entry.encode())},"entry":{entry}}}\n'.encode()


def _decode(text: bytes) -> Line | None:
    """The entry of a line, or None if the line is torn or damaged."""
    try:
        found = _LINE.fullmatch(text)
        if found is None or zlib.crc32(found["entry"]) != int(found["crc32"]):
            return None
        line: Line = msgspec.convert(json.loads(found["entry"]), Line)
        return line
    except (ValueError, TypeError, RecursionError):  # msgspec's errors are ValueErrors
        return None
