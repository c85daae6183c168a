"""What there is of a zoo whose run has not ended: the members that its journal names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from ..errors import WseError
from .format import SHARD_FOLDER, Manifest, ShardEntry, read_manifest
from .integrity import resume_command
from .journal import Journal, MemberLine
from .reader import Zoo
from .records import STATUSES
from .shards import Shard
from .tables import members_table, snapshots_table


class UnfinishedZoo(Zoo):
    """The members that had ended when it was opened; ``Zoo.open`` makes one. Later ones are not seen.

    The manifest has shards and counts of these members, so its ``models``, how many there will be, is not their
    number. A run that is still at work moves weights into shards: those that it has moved since cannot be read
    before the zoo is opened again.
    """

    def __init__(self, folder: Path, manifest: Manifest, members: pa.Table, snapshots: pa.Table) -> None:
        super().__init__(folder, manifest)
        self.members, self.snapshots = members, snapshots
        self._journal = Journal(folder)
        self._pieces = {self._journal.piece(member).name for member in self} & self._entries.keys()

    @classmethod
    def read(cls, folder: Path, manifest: Manifest) -> Zoo:
        """Read the journal.

        Args:
            folder: of the zoo.
            manifest: of the zoo, whose status is "running".

        Raises:
            WseError: no member has ended yet, or a file is damaged.
        """
        journal, records, pieces, shards = Journal(folder), {}, {}, []
        try:
            for line in journal.read():
                if isinstance(line, MemberLine):
                    records[line.record.id], pieces[line.record.id] = line.record, line.piece
                else:
                    shards.append(line.shard)
        except WseError:
            if read_manifest(folder).status == "complete":  # since its manifest was read
                return Zoo.open(folder)
            if journal.path.exists():
                raise
        places = _places(folder, shards, pieces)
        ended = [record for member, record in sorted(records.items()) if member in places]
        if not ended:
            raise WseError(
                f"{folder} is unfinished: none of its {manifest.models:,} members has ended yet; "
                f"look again later, or go on with its run by `{resume_command(folder)}`"
            )
        counts = Counter(record.status for record in ended)
        files = {file for file, _ in places.values()}
        found = msgspec.structs.replace(
            manifest,
            shards=tuple(
                entry for entry in (*shards, *pieces.values()) if entry is not None and entry.file in files
            ),
            counts={status: counts[status] for status in STATUSES},
        )
        members = members_table(ended, places, manifest.config_types, manifest.labels)
        return cls(folder, found, members, snapshots_table(ended, manifest.labels))

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return (UnfinishedZoo, (self.folder, self.manifest, self.members, self.snapshots))

    def path(self, file: str) -> Path:
        """Where a weight file is: a shard, or the piece of a member that waits for its shard."""
        return self._journal.folder / file if file in self._pieces else super().path(file)

    def _open_shard(self, file: str) -> Shard:
        try:
            return super()._open_shard(file)
        except WseError:
            if file not in self._pieces or self.path(file).exists():
                raise
            raise WseError(
                f"{self.path(file)} has become part of a shard since {self.folder} was opened: open it again"
            ) from None


def _places(
    folder: Path, shards: list[ShardEntry], pieces: Mapping[int, ShardEntry | None]
) -> dict[int, tuple[str, int]]:
    """Id -> (file, row in it) of all members whose weights are there."""
    places = {member: (piece.file, 0) for member, piece in pieces.items() if piece is not None}
    for entry in shards:
        members = Shard(folder / SHARD_FOLDER / entry.file).members
        places |= {member: (entry.file, row) for row, member in enumerate(members)}
    return places
