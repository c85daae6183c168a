"""Make the tables of a zoo again from what is whole: space and seed, the log, the other table, the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np

from ..data.search import DataDir
from ..machine import cores
from ..space import Member, Space
from ..zoo import LOG_FILE, Zoo
from ..zoo.records import MemberRecord, SnapshotRecord
from ..zoo.shards import Float32
from ..zoo.tables import (
    MEMBERS_FILE,
    SNAPSHOTS_FILE,
    members_table,
    snapshot_records,
    snapshots_table,
    table_bytes,
)
from .again import AGAIN, Population, load_images
from .backend import Backend, Context
from .log import LOGGED, Facts, logged_facts
from .measuring import measured_snapshots, measurements
from .options import backend_for
from .schedule import SnapshotKeeper
from .split import Split


def missing_facts(zoo: Zoo) -> str | None:
    """Why the members table cannot be made again, or None."""
    known = len(logged_facts(zoo.folder).keys() & set(range(zoo.manifest.models)))
    if known == zoo.manifest.models:
        return None
    models = zoo.manifest.models
    return (
        f"it is made of what {LOG_FILE} tells of each member, and that is there for {known:,} of {models:,}: "
        "restore it from a copy"
    )


def restored_tables(
    zoo: Zoo,
    names: tuple[str, ...],
    *,
    data_dir: DataDir = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, bytes]:
    """Tables made again; it is for the caller to compare them with what ``zoo.json`` says.

    Args:
        zoo: all shards must be whole, and the tables that are not in ``names``.
        names: of the tables.
        data_dir: as for ``load``.
        tell: as for ``backend_for``.

    Returns:
        The content of each file, by name.

    Raises:
        UsageError: an image set is not here.
        WseError: another version of wse made the zoo, an image set is another one, or a shard is damaged.
    """
    manifest = zoo.manifest
    made = manifest.the_run(zoo.folder, AGAIN)
    population = Population.of(zoo)
    facts = logged_facts(zoo.folder) if MEMBERS_FILE in names else _tabled_facts(zoo)
    if SNAPSHOTS_FILE in names:
        backend = backend_for(made.backend, tell, precision=made.precision)
        snapshots = _measured(zoo, population, facts, backend, data_dir)
    else:
        snapshots = snapshot_records(zoo.snapshots)
    records = [
        MemberRecord(
            id=member.id,
            architecture=member.architecture.name,
            config=msgspec.structs.asdict(member.setup),
            snapshots=snapshots[member.id],
            **facts[member.id],
        )
        for member in population.members
    ]
    places = {id_: (plan.file, row) for plan in population.shards for row, id_ in enumerate(plan.members)}
    tables = {
        MEMBERS_FILE: lambda: members_table(records, places, manifest.config_types, manifest.labels),
        SNAPSHOTS_FILE: lambda: snapshots_table(records, manifest.labels),
    }
    return {name: table_bytes(tables[name]()) for name in names}


def _tabled_facts(zoo: Zoo) -> Facts:
    rows = zoo.members.select(["id", *LOGGED]).to_pylist()
    return {row.pop("id"): row for row in rows}


def _measured(
    zoo: Zoo, population: Population, facts: Facts, backend: Backend, data_dir: DataDir
) -> dict[int, tuple[SnapshotRecord, ...]]:
    """Every snapshot of a zoo, measured again on all cores by what measured it in training."""
    manifest = zoo.manifest
    made = manifest.the_run(zoo.folder, AGAIN)
    space = Space.from_config(made.space)
    context = Context(
        settings=space.settings,
        splits={
            name: Split.make(load_images(name, manifest, data_dir), seed=made.seed, settings=space.settings)
            for name in manifest.image_sets
        },
        should_stop=lambda: False,
        choices=space.all_choices,
    )

    def measure(given: tuple[Member, list[Float32]]) -> tuple[int, tuple[SnapshotRecord, ...]]:
        member, weights = given
        epochs, steps = facts[member.id]["epochs"], facts[member.id]["steps"]
        chosen = dict(zip(_snapshot_epochs(member, epochs, context), weights, strict=True))
        faithful = manifest.labels == "faithful"
        pack = backend.open(member.architecture, 1, context)
        snapshots, _ = measured_snapshots(
            chosen,
            pack.evaluate(measurements(member, chosen, faithful=faithful)),
            steps_per_epoch=steps // epochs if epochs else 0,
            faithful=faithful,
        )
        return member.id, tuple(snapshot.record() for snapshot in snapshots)

    backend.prepare({member.architecture for member in population.members}, context)
    found: dict[int, tuple[SnapshotRecord, ...]] = {}
    pool = ThreadPoolExecutor(backend.workers or cores())
    try:
        for stored in _stored(zoo, population):  # a shard at a time, so that memory is bounded
            found.update(pool.map(measure, stored))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _stored(zoo: Zoo, population: Population) -> Iterator[list[tuple[Member, list[Float32]]]]:
    """The members of each shard with the weights of their snapshots."""
    members = {member.id: member for member in population.members}
    for plan in population.shards:
        shard = zoo.shard(plan.file)
        yield [
            (members[id_], [shard.read(row, snapshot).copy() for snapshot in range(shard.snapshots[row])])
            for row, id_ in enumerate(plan.members)
        ]


def _snapshot_epochs(member: Member, epochs: int, context: Context) -> list[int]:
    """The epochs of the snapshots of a member that trained for so many."""
    settings, nothing = context.settings, np.empty(0, np.float32)
    keeper = SnapshotKeeper(settings.snapshots, epochs=member.setup.epochs, may_stop=settings.early_stopping)
    for epoch in range(epochs + 1):
        keeper.keep(epoch, nothing)
    return list(keeper.choose(epochs, nothing))
