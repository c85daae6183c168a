"""What a merged zoo holds besides weights: the tables and the ``zoo.json`` of several zoos, joined."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import msgspec
import numpy as np
import pyarrow as pa

from ..text import name_text
from .format import Cost, Manifest, ShardEntry, SourceEntry, Timing
from .reader import Zoo
from .records import STATUSES
from .tables import SOURCE_COLUMNS, members_schema, numbers, snapshots_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A zoo that goes into a merged one.

    Attributes:
        zoo: the zoo.
        first: the new id of its first member.
        source: the place of its first run in ``sources``.
    """

    zoo: Zoo
    first: int
    source: int

    @property
    def ids(self) -> range:
        """The new ids of its members, in order."""
        return range(self.first, self.first + len(self.zoo))


def parts_of(zoos: Sequence[Zoo]) -> list[Part]:
    """The parts of a merged zoo: members keep their order, zoo after zoo."""
    parts: list[Part] = []
    first = source = 0
    for zoo in zoos:
        parts.append(Part(zoo=zoo, first=first, source=source))
        first += len(zoo)
        source += len(zoo.manifest.runs)
    return parts


def joined_shards(parts: Sequence[Part]) -> Iterator[tuple[Part, ShardEntry, str]]:
    """Every shard, with the name of its copy, in the order of architecture names."""
    for architecture in sorted({name for part in parts for name in part.zoo.manifest.architectures}):
        found = [
            (part, entry)
            for part in parts
            for entry in part.zoo.manifest.shards
            if entry.architecture == architecture
        ]
        for number, (part, entry) in enumerate(found):
            yield part, entry, f"{architecture}-{number:04d}.safetensors"


def joined_members(parts: Sequence[Part], files: Mapping[tuple[int, str], str]) -> pa.Table:
    """The members table.

    Args:
        parts: of the merged zoo.
        files: (``first`` of a part, its shard) -> the name of the copy.
    """
    tables = []
    for part in parts:
        manifest, table = part.zoo.manifest, part.zoo.members
        columns = {
            **{name: table[name] for name in table.column_names},
            **_source_columns(part),
            "id": pa.array(part.ids, pa.int64()),
            "shard": pa.array([files[part.first, file] for file in table["shard"].to_pylist()], pa.string()),
        }
        schema = members_schema(manifest.config_types, manifest.labels, merged=True)
        tables.append(pa.table(columns, schema=schema))
    return pa.concat_tables(tables).combine_chunks()


def _source_columns(part: Part) -> dict[str, pa.Array | pa.ChunkedArray]:
    table = part.zoo.members
    if part.zoo.manifest.sources:
        columns = {name: table[name] for name in SOURCE_COLUMNS}
        places = [part.source + place for place in table["source.number"].to_pylist()]
        return columns | {"source.number": pa.array(places, pa.int64())}
    (run,) = part.zoo.manifest.runs
    same = {
        "source.number": part.source,
        "source.seed": run.seed,
        "source.backend": run.backend,
        "source.precision": run.precision,
    }
    columns = {name: pa.array([value] * len(part.zoo), SOURCE_COLUMNS[name]) for name, value in same.items()}
    return columns | {"source.id": table["id"]}


def joined_snapshots(parts: Sequence[Part]) -> pa.Table:
    """The snapshots table."""
    tables = []
    for part in parts:
        table = part.zoo.snapshots
        members = part.first + np.searchsorted(part.zoo.ids, numbers(table["member"]))
        columns = {name: table[name] for name in table.column_names}
        columns["member"] = pa.array(members.tolist(), pa.int64())
        tables.append(pa.table(columns, schema=snapshots_schema(part.zoo.manifest.labels)))
    return pa.concat_tables(tables).combine_chunks()


def joined_manifest(parts: Sequence[Part]) -> Manifest:
    """What ``zoo.json`` holds but for the files."""
    manifests = [part.zoo.manifest for part in parts]
    counts = Counter[str]()
    for manifest in manifests:
        counts.update(manifest.counts)
    return Manifest(
        format_version=2,
        status="complete",
        wse_version=version("wse"),
        software={
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "pyarrow")},
        },
        seed=None,
        models=sum(manifest.models for manifest in manifests),
        space=None,
        labels=manifests[0].labels,
        backend=None,
        precision=None,
        dtype=manifests[0].dtype,
        image_sets={name: entry for manifest in manifests for name, entry in manifest.image_sets.items()},
        architectures={name: entry for manifest in manifests for name, entry in manifest.architectures.items()},
        config_types=manifests[0].config_types,
        counts={status: counts[status] for status in STATUSES},
        cost=_cost([manifest.cost for manifest in manifests]),
        timing=_timing([manifest.timing for manifest in manifests]),
        sources=tuple(source for part in parts for source in _sources(part.zoo)),
    )


def _sources(zoo: Zoo) -> tuple[SourceEntry, ...]:
    """A zoo as a source; of a merged one its own sources."""
    if zoo.manifest.sources:
        return zoo.manifest.sources
    (run,) = zoo.manifest.runs
    return (SourceEntry(zoo=name_text(zoo.folder.resolve()), **msgspec.structs.asdict(run)),)


def _cost(costs: Sequence[Cost | None]) -> Cost | None:
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return None
    return Cost(**{name: sum(getattr(cost, name) for cost in known) for name in Cost.__struct_fields__})


def _timing(timings: Sequence[Timing | None]) -> Timing | None:
    known = [timing for timing in timings if timing is not None]
    return Timing.of_all(known) if len(known) == len(timings) else None
