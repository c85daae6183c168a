"""The two tables of a zoo: a row a member and a row a snapshot.

The same rows always give the same bytes; only the column ``seconds`` differs between two runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..files import atomic_write
from .format import ConfigType, Labels, TableEntry
from .integrity import DamagedError, loading, saving
from .records import FAITHFUL_METRICS, METRICS, MemberRecord, SnapshotRecord

MEMBERS_FILE = "members.parquet"
SNAPSHOTS_FILE = "snapshots.parquet"
CONFIG = "config."
# What makes a member of a merged zoo again: the place of its run in ``sources``, its id there, and of that run
# what a member's bits depend on.
SOURCE_COLUMNS: Mapping[str, pa.DataType] = {
    "source.number": pa.int64(),
    "source.id": pa.int64(),
    "source.seed": pa.uint64(),
    "source.backend": pa.string(),
    "source.precision": pa.string(),
}

_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
}


def outcomes(labels: Labels) -> tuple[str, ...]:
    """Names of the columns that tell how good weights are."""
    return (*METRICS, "generalization_gap", *(FAITHFUL_METRICS if labels == "faithful" else ()))


def members_schema(config_types: Mapping[str, ConfigType], labels: Labels, *, merged: bool = False) -> pa.Schema:
    """Columns of the members table; the set-up stands in ``config.*`` columns in alphabetical order."""
    return pa.schema(
        [
            ("id", pa.int64()),
            ("architecture", pa.string()),
            ("shard", pa.string()),
            ("row", pa.int64()),
            ("status", pa.string()),
            *((CONFIG + name, _TYPES[config_types[name]]) for name in sorted(config_types)),
            ("epochs", pa.int64()),
            ("steps", pa.int64()),
            ("snapshots", pa.int64()),
            *((name, pa.float64()) for name in outcomes(labels)),
            ("predicted_classes", pa.int64()),
            ("samples_trained", pa.int64()),
            ("samples_evaluated", pa.int64()),
            ("seconds", pa.float64()),
            *(SOURCE_COLUMNS.items() if merged else ()),
        ]
    )


def snapshots_schema(labels: Labels) -> pa.Schema:
    """Columns of the snapshots table."""
    return pa.schema(
        [
            ("member", pa.int64()),
            ("snapshot", pa.int64()),
            ("epoch", pa.int64()),
            ("step", pa.int64()),
            *((name, pa.float64()) for name in outcomes(labels)),
        ]
    )


def members_table(
    records: Sequence[MemberRecord],
    places: Mapping[int, tuple[str, int]],
    config_types: Mapping[str, ConfigType],
    labels: Labels,
) -> pa.Table:
    """The members table.

    Args:
        records: in the order of their ids.
        places: id -> (shard file, row in it).
        config_types: the type of each property.
        labels: what was measured.
    """
    rows = []
    for record in records:
        shard, row = places[record.id]
        last = record.snapshots[-1] if record.snapshots else None
        rows.append(
            {
                "id": record.id,
                "architecture": record.architecture,
                "shard": shard,
                "row": row,
                "status": record.status,
                **{CONFIG + name: value for name, value in record.config.items()},
                "epochs": record.epochs,
                "steps": record.steps,
                "snapshots": len(record.snapshots),
                **{name: getattr(last, name, None) for name in outcomes(labels)},
                "predicted_classes": record.predicted_classes,
                "samples_trained": record.samples_trained,
                "samples_evaluated": record.samples_evaluated,
                "seconds": record.seconds,
            }
        )
    return pa.Table.from_pylist(rows, members_schema(config_types, labels))


def snapshots_table(records: Sequence[MemberRecord], labels: Labels) -> pa.Table:
    """The snapshots table of records that come in the order of their ids."""
    rows = [
        {
            "member": record.id,
            "snapshot": index,
            "epoch": snapshot.epoch,
            "step": snapshot.step,
            **{name: getattr(snapshot, name) for name in outcomes(labels)},
        }
        for record in records
        for index, snapshot in enumerate(record.snapshots)
    ]
    return pa.Table.from_pylist(rows, snapshots_schema(labels))


def records(members: pa.Table, snapshots: pa.Table) -> list[MemberRecord]:
    """The records that two tables were made of, in the order of their ids.

    Args:
        members: what ``members_table`` gave.
        snapshots: what ``snapshots_table`` gave.
    """
    owned = snapshot_records(snapshots)
    plain = set(MemberRecord.__struct_fields__) - {"config", "snapshots"}
    return [
        MemberRecord(
            config={name.removeprefix(CONFIG): row[name] for name in row if name.startswith(CONFIG)},
            snapshots=owned.get(row["id"], ()),
            **{name: row[name] for name in plain},
        )
        for row in members.to_pylist()
    ]


def snapshot_records(snapshots: pa.Table) -> dict[int, tuple[SnapshotRecord, ...]]:
    """The records of each member's snapshots, by its id, from what ``snapshots_table`` gave."""
    found: dict[int, list[SnapshotRecord]] = {}
    columns = [name for name in SnapshotRecord.__struct_fields__ if name in snapshots.column_names]
    for row in snapshots.select(["member", *columns]).to_pylist():
        found.setdefault(row.pop("member"), []).append(SnapshotRecord(**row))
    return {member: tuple(records) for member, records in found.items()}


def write_table(path: Path, table: pa.Table) -> TableEntry:
    """Write a table as Parquet.

    Returns:
        What to record of the file.

    Raises:
        WseError: the file cannot be written.
    """
    content = table_bytes(table)
    with saving(path), atomic_write(path) as file:
        file.write(content)
    return TableEntry(rows=table.num_rows, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def read_table(path: Path, entry: TableEntry, schema: pa.Schema) -> pa.Table:
    """Read a table and check it.

    Args:
        path: the file.
        entry: what was recorded of it.
        schema: the columns it must have.

    Raises:
        WseError: the file is missing or is not what was written.
    """
    with loading(path):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DamagedError(path, "its content does not match its sha256")
    try:
        # Not pq.read_table: that loads all of pyarrow.dataset, which takes longer than opening the zoo.
        # Without threads: where a command ends soon after, Arrow's may still be starting, and that aborts it.
        table: Any = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(path, f"it is not a Parquet table ({error})") from error
    if table.schema != schema or table.num_rows != entry.rows:
        raise DamagedError(path, "its columns or rows are not those zoo.json names")
    return table


def numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """The values [rows] of a column of numbers without nulls; read-only.

    Not by its ``to_numpy``, which imports pandas: that takes longer than everything else here.
    """
    return np.from_dlpack(column.combine_chunks())
