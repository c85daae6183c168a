"""A zoo of ours out of zoos in the formats of others."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from ..data import IMAGE_SETS, Source
from ..errors import UsageError, WseError
from ..space import arrow_types
from ..zoo import (
    SHARD_FOLDER,
    ArchitectureEntry,
    Dtype,
    ImageSetEntry,
    ImportEntry,
    Manifest,
    ShardEntry,
    ShardPlan,
    check_local,
    check_place,
    plan_shards,
    saving,
    taking_place,
    write_shard,
)
from ..zoo.format import write_manifest
from ..zoo.records import METRICS, STATUSES
from ..zoo.shards import stored_dtype
from ..zoo.tables import CONFIG, MEMBERS_FILE, SNAPSHOTS_FILE, members_schema, snapshots_schema, write_table
from . import model_zoos, nws, small_cnn_zoo
from .foreign import Foreign, ForeignMember, ForeignSnapshot

FORMATS: Mapping[str, ModuleType] = {small_cnn_zoo.NAME: small_cnn_zoo, nws.NAME: nws, model_zoos.NAME: model_zoos}
"""The modules that read the formats of others, by name: ``recognises`` a source, and ``read`` it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What an import made.

    Attributes:
        manifest: what the new ``zoo.json`` holds.
        left_out: snapshots that were left out: of each network those from the first whose weights are not finite.
        notes: lines on what else was left out.
    """

    manifest: Manifest
    left_out: int
    notes: tuple[str, ...]


def import_zoo(
    sources: Sequence[Path],
    out: Path,
    *,
    dtype: Dtype = "float32",
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Make a zoo out of files of others, which are only read.

    Args:
        sources: files or folders, all of one of ``FORMATS``.
        out: missing or empty.
        dtype: number format of the stored weights.
        tell: told how many networks have been stored, and of how many.

    Raises:
        UsageError: a source is missing or of no known format, or a network is in them twice; ``out`` is taken.
        WseError: a source is damaged, no network has finite weights, or the zoo cannot be written. Nothing is left
            of it.
    """
    check_local(out)
    name = _format_of(sources)
    found: list[Foreign] = [FORMATS[name].read(source) for source in sources]
    members = [member for foreign in found for member in foreign.members]
    _check_distinct(members)
    plans = _plan(members, dtype)
    check_place(out, sum(_bytes(member, dtype) for member in members))
    with taking_place(out, "importing") as folder:
        shards, kept = _store(members, plans, dtype, folder / SHARD_FOLDER, tell)
        if not any(kept):
            raise WseError("the first weights of every network are not finite: there is nothing to store")
        tables = _tables(members, kept, plans)
        layouts = {member.layout.architecture.name: member.layout for member in members}
        sets = {name: IMAGE_SETS[name] for name in sorted({str(member.config["dataset"]) for member in members})}
        counts = Counter(tables[MEMBERS_FILE]["status"].to_pylist())
        manifest = Manifest(
            format_version=3,
            status="complete",
            wse_version=version("wse"),
            software={
                "python": platform.python_version(),
                **{library: version(library) for library in ("numpy", "pyarrow")},
            },
            seed=None,
            models=len(members),
            space=None,
            labels="imported",
            backend=None,
            precision=None,
            dtype=dtype,
            image_sets={name: _image_set(source) for name, source in sets.items()},
            architectures={name: ArchitectureEntry.of(layouts[name]) for name in sorted(layouts)},
            config_types=arrow_types(),
            shards=tuple(shards),
            tables={name: write_table(folder / name, table) for name, table in tables.items()},
            counts={status: counts[status] for status in STATUSES},
            imported=ImportEntry(format=name, files=_files(found)),
        )
        write_manifest(folder, manifest)
    return Imported(
        manifest=manifest,
        left_out=sum(len(member.snapshots) for member in members) - sum(kept),
        notes=tuple(note for foreign in found for note in foreign.notes),
    )


def _files(found: Sequence[Foreign]) -> dict[str, str]:
    """The checksums of all sources; a name that several files have gets a number."""
    files: dict[str, str] = {}
    times: Counter[str] = Counter()
    for name, digest in (entry for foreign in found for entry in foreign.files.items()):
        times[name] += 1
        files[name if times[name] == 1 else f"{name} ({times[name]})"] = digest
    return files


def _format_of(sources: Sequence[Path]) -> str:
    """The name of the format that all sources have."""
    names = []
    for source in sources:
        if not source.exists():
            raise UsageError(f"there is no {source}: name a file or a folder to import")
        name = _recognised(source)
        if name is None:
            inner = sorted(source.iterdir()) if source.is_dir() else []
            better = next((path for path in inner if _recognised(path)), None)
            advice = f"name what is in it, such as {better}" if better else "see docs/exchange.md"
            raise UsageError(f"{source} is of no format that wse reads ({', '.join(FORMATS)}): {advice}")
        names.append(name)
    if len(set(names)) != 1:
        raise UsageError(
            f"the sources are of different formats ({', '.join(sorted(set(names)))}): import them apart"
        )
    return names[0]


def _recognised(source: Path) -> str | None:
    return next((name for name, module in FORMATS.items() if module.recognises(source)), None)


def _check_distinct(members: Sequence[ForeignMember]) -> None:
    """A network that is there twice could be learned from and tested on."""
    if not members:
        raise UsageError("there are no networks in the sources: name others")
    origin, times = Counter(member.origin for member in members).most_common(1)[0]
    if times > 1:
        raise UsageError(f"the network {origin} is in the sources {times} times: name each once")


def _bytes(member: ForeignMember, dtype: Dtype) -> int:
    return len(member.snapshots) * member.layout.size * stored_dtype(dtype).itemsize


def _plan(members: Sequence[ForeignMember], dtype: Dtype) -> list[ShardPlan]:
    """Which networks go into which shard; their ids are their places."""
    largest: dict[str, int] = {}
    for member in members:
        name = member.layout.architecture.name
        largest[name] = max(largest.get(name, 1), _bytes(member, dtype))
    return plan_shards(((member, found.layout.architecture.name) for member, found in enumerate(members)), largest)


def _store(
    members: Sequence[ForeignMember],
    plans: Sequence[ShardPlan],
    dtype: Dtype,
    folder: Path,
    tell: Callable[[int, int], None],
) -> tuple[list[ShardEntry], list[int]]:
    """Write the weights, a shard in memory at a time; also how many snapshots of each network were stored."""
    with saving(folder):
        folder.mkdir()
    shards, kept, done = [], [0] * len(members), 0
    for plan in plans:
        rows = []
        for member in plan.members:
            weights = members[member].read()
            broken = np.flatnonzero(~np.isfinite(weights).all(axis=1))
            kept[member] = int(broken[0]) if len(broken) else len(weights)
            rows.append(weights[: kept[member]])
            done += 1
            tell(done, len(members))
        path = folder / plan.file
        shards.append(write_shard(path, rows, architecture=plan.architecture, members=plan.members, dtype=dtype))
    return shards, kept


def _tables(
    members: Sequence[ForeignMember], kept: Sequence[int], plans: Sequence[ShardPlan]
) -> dict[str, pa.Table]:
    """The tables, by the names of their files."""
    places = {member: (plan.file, row) for plan in plans for row, member in enumerate(plan.members)}
    types = arrow_types()
    own: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for id_, (member, count) in enumerate(zip(members, kept, strict=True)):
        snapshots = [_measured(snapshot) for snapshot in member.snapshots[:count]]
        last = snapshots[-1] if snapshots else {}
        shard, row = places[id_]
        own.append(
            {
                **{name: last.get(name) for name in METRICS},
                **{CONFIG + name: member.config[name] for name in types},
                **member.facts,
                "generalization_gap": last.get("generalization_gap"),
                "id": id_,
                "architecture": member.layout.architecture.name,
                "shard": shard,
                "row": row,
                "status": "ok" if count == len(member.snapshots) and _finite(snapshots) else "diverged",
                "snapshots": count,
            }
        )
        rows += [{"member": id_, "snapshot": index, **snapshot} for index, snapshot in enumerate(snapshots)]
    return {
        MEMBERS_FILE: pa.Table.from_pylist(own, members_schema(types, "imported")),
        SNAPSHOTS_FILE: pa.Table.from_pylist(rows, snapshots_schema("imported")),
    }


def _measured(snapshot: ForeignSnapshot) -> dict[str, Any]:
    """A row of the snapshots table."""
    metrics = dict(snapshot.metrics)
    if {"train_accuracy", "test_accuracy"} <= metrics.keys():
        metrics["generalization_gap"] = metrics["train_accuracy"] - metrics["test_accuracy"]
    return {"epoch": snapshot.epoch, "step": snapshot.step, **metrics}


def _finite(snapshots: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all losses are."""
    return all(isfinite(value) for row in snapshots for name, value in row.items() if name.endswith("_loss"))


def _image_set(source: Source) -> ImageSetEntry:
    train, test = source.counts or (0, 0)
    return ImageSetEntry(sha256=None, train=train, test=test, classes=source.n_classes or 0)
