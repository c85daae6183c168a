"""A complete zoo becomes one that is being written again, so that members can be added."""

from __future__ import annotations

from pathlib import Path

from .format import Manifest
from .journal import Journal, Line, MemberLine, ShardLine
from .tables import MEMBERS_FILE, SNAPSHOTS_FILE, members_schema, read_table, records, snapshots_schema


def reopen(folder: Path, manifest: Manifest) -> None:
    """Write the journal again that a complete zoo once had; its files stay as they are.

    The zoo is complete until its ``zoo.json`` says otherwise, which is for the caller to write: what a crash
    leaves before that is a journal of a complete zoo, which means nothing.

    Args:
        folder: of the zoo.
        manifest: of the zoo.

    Raises:
        WseError: a table is damaged, so that the records of members are lost, or the journal cannot be written.
    """
    journal = Journal(folder)
    lines = journal_lines(folder, manifest)
    journal.start()
    journal.rewrite(lines)


def journal_lines(folder: Path, manifest: Manifest) -> list[Line]:
    """What the journal of a complete zoo would hold.

    Raises:
        WseError: a table is damaged, so that the records of members are lost.
    """
    schemas = {
        MEMBERS_FILE: members_schema(manifest.config_types, manifest.labels),
        SNAPSHOTS_FILE: snapshots_schema(manifest.labels),
    }
    members, snapshots = (
        read_table(folder / name, manifest.tables[name], schema) for name, schema in schemas.items()
    )
    lines: list[Line] = [MemberLine(record=record, piece=None) for record in records(members, snapshots)]
    lines += [ShardLine(shard=entry) for entry in manifest.shards]
    return lines
