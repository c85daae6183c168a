"""Write a zoo while its members are being trained; stop at any moment and go on later.

The steps, each complete before the next begins: zoo.json ("running"); for each member its piece, then its
line in the journal; for each shard whose members are all there the shard, then its line, then its pieces are
removed; the tables; zoo.json ("complete"); the journal is removed. Whatever step a crash interrupts, the files
of the steps before it hold all that is needed to do it again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..errors import WseError
from ..files import make_folder, sync_folder
from ..nets import forward_macs, training_flops
from .format import (
    SHARD_FOLDER,
    ConfigType,
    Cost,
    Manifest,
    ShardEntry,
    Timing,
    read_manifest,
    write_manifest,
)
from .integrity import resume_command, saving
from .journal import Journal, MemberLine, ShardLine
from .lock import Lock
from .plan import ShardPlan, plan_checksum
from .records import FAITHFUL_METRICS, STATUSES, MemberRecord, MemberResult
from .recovery import check_growth, check_nothing_lost, check_same_run, recover, stored_members
from .removal import check_free, remove_leftovers
from .reopening import journal_lines, reopen
from .shards import Float32, Shard, write_shard
from .tables import (
    MEMBERS_FILE,
    SNAPSHOTS_FILE,
    members_table,
    snapshots_table,
    write_table,
)

_PYTHON_TYPES: dict[ConfigType, tuple[type, ...]] = {
    "string": (str,),
    "int64": (int,),
    "double": (float, int),
    "bool": (bool,),
}


class ZooWriter:
    """A zoo being written; made by ``create`` or ``resume``. One thread at a time may use it.

    No other run can write the zoo before ``finish`` or ``close``, or the end of the process.

    Attributes:
        folder: of the zoo.
        manifest: as it stands in ``zoo.json``.
        notes: what a resumed run found damaged and does again, a line each.
    """

    def __init__(self, folder: Path, manifest: Manifest, plans: Sequence[ShardPlan], lock: Lock) -> None:
        self.folder = folder
        self.manifest = manifest
        self.notes: list[str] = []
        self._plans = plans
        self._lock = lock
        self._plan_of = {member: plan for plan in plans for member in plan.members}
        self._journal = Journal(folder)
        self._shards: dict[str, ShardEntry] = {}
        self._finished: set[int] = set()

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, plans: Sequence[ShardPlan]) -> ZooWriter:
        """Begin a zoo.

        Args:
            folder: missing or empty.
            manifest: with status "running"; ``plan`` and what is known only at the end are filled in.
            plans: every member once, by ``plan_shards``.

        Raises:
            UsageError: the folder has something in it, or another run has begun there.
            ValueError: manifest and plans do not fit.
            WseError: a file cannot be written.
        """
        manifest = _planned(manifest, plans)
        if not folder.is_dir():
            check_free(folder)
        with saving(folder):
            make_folder(folder)
        lock = Lock(folder)
        try:
            check_free(folder)
            with saving(folder):
                remove_leftovers(folder)
            write_manifest(folder, manifest)
            writer = cls(folder, manifest, plans, lock)
            writer._make_folders()
        except BaseException:
            lock.release()
            raise
        return writer

    @classmethod
    def resume(cls, folder: Path, manifest: Manifest, plans: Sequence[ShardPlan]) -> ZooWriter:
        """Go on with a zoo, checking everything it holds so far.

        A complete zoo is left alone, unless it is to have more members: then it is one that is being written, of
        which all but the new shards are there. Members that were asked for may be left out again as long as they
        are not stored: ``zoo.json`` says so first, and what else there is of them is then cleared away.

        Args:
            folder: of the zoo.
            manifest: what ``create`` would be given; it may have more or fewer members, see ``growth``.
            plans: likewise.

        Raises:
            UsageError: the folder is not a zoo, was begun with another set-up, or has stored members that are not
                asked for; or another run is at work on it.
            ValueError: manifest and plans do not fit.
            WseError: ``zoo.json`` is damaged, or a file cannot be read, written or removed.
        """
        manifest = _planned(manifest, plans)
        check_resumable(folder, manifest, plans)
        lock = Lock(folder)
        try:
            there = read_manifest(folder)  # as the run that held the lock left it
            if manifest.models != there.models:
                check_growth(folder, manifest)
                if manifest.models < there.models:
                    check_nothing_lost(folder, there, plans)
                elif there.status == "complete":
                    reopen(folder, there)
                there = msgspec.structs.replace(manifest, software=there.software)
                write_manifest(folder, there)
            writer = cls(folder, there, plans, lock)
            writer._recover()
        except BaseException:
            lock.release()
            raise
        return writer

    @property
    def finished(self) -> frozenset[int]:
        """Ids of the members that are stored."""
        return frozenset(self._finished)

    def records(self) -> list[MemberRecord]:
        """What is known of the members stored so far, ordered by id; of a complete zoo, the tables tell it."""
        if self.manifest.status == "complete":
            return []
        lines = self._journal.read()
        return sorted(
            (line.record for line in lines if isinstance(line, MemberLine)), key=lambda record: record.id
        )

    def add(self, result: MemberResult) -> None:
        """Store a member; it is safe on the disk when this returns.

        Raises:
            ValueError: the result does not fit the plan or the manifest, or the member is already stored.
            WseError: a file cannot be written.
        """
        plan = self._check(result)
        size = self.manifest.architectures[plan.architecture].size
        rows = [snapshot.weights for snapshot in result.snapshots]
        piece = write_shard(
            self._journal.piece(result.id),
            [np.stack(rows) if rows else np.empty((0, size), np.float32)],
            architecture=plan.architecture,
            members=[result.id],
            dtype=self.manifest.dtype,
        )
        self._journal.append(MemberLine(record=result.record(), piece=piece))
        self._finished.add(result.id)
        self._store_full_shards([plan])

    def finish(self, timing: Timing) -> Path:
        """Write the tables and the final ``zoo.json``; does nothing if the zoo is complete.

        Args:
            timing: of the run.

        Returns:
            The folder of the zoo.

        Raises:
            WseError: members are missing, or a file cannot be written.
        """
        if self.manifest.status == "complete":
            self.close()
            return self.folder
        missing = sorted(self._plan_of.keys() - self._finished)
        if missing:
            raise WseError(
                f"{self.folder} cannot be finished: {len(missing):,} of {len(self._plan_of):,} members are "
                f"missing (the first is {missing[0]}); train them with `{resume_command(self.folder)}`"
            )
        self._store_full_shards(self._plans)
        records = self.records()
        places = {member: (plan.file, row) for plan in self._plans for row, member in enumerate(plan.members)}
        labels = self.manifest.labels
        tables = {
            MEMBERS_FILE: members_table(records, places, self.manifest.config_types, labels),
            SNAPSHOTS_FILE: snapshots_table(records, labels),
        }
        counts = Counter(record.status for record in records)
        self.manifest = msgspec.structs.replace(
            self.manifest,
            status="complete",
            shards=tuple(self._shards[plan.file] for plan in self._plans),
            tables={name: write_table(self.folder / name, table) for name, table in tables.items()},
            counts={status: counts[status] for status in STATUSES},
            cost=self._cost(records),
            timing=timing,
        )
        write_manifest(self.folder, self.manifest)
        self._remove_journal()
        self.close()
        return self.folder

    def close(self) -> None:
        """Let other runs at the zoo, finished or not; nothing may be added afterwards.

        Raises:
            WseError: the file of the lock cannot be removed.
        """
        self._lock.release()

    def _recover(self) -> None:
        """Find out what is stored already, and clear away what is not whole."""
        with saving(self.folder):
            remove_leftovers(self.folder)
        if self.manifest.status == "complete":
            self._finished = set(self._plan_of)
            self._remove_journal()
            return
        self._make_folders()
        recovered = recover(self.folder, self._plans, self._journal)
        self.notes = recovered.notes
        self._shards = recovered.shards
        self._finished = recovered.finished
        self._store_full_shards(self._plans)

    def _check(self, result: MemberResult) -> ShardPlan:
        plan = self._plan_of.get(result.id)
        if plan is None or result.id in self._finished:
            raise ValueError(f"member {result.id} is {'not planned' if plan is None else 'already stored'}")
        if result.architecture != plan.architecture:
            raise ValueError(f"member {result.id} is {result.architecture}, planned as {plan.architecture}")
        if result.status not in STATUSES:
            raise ValueError(f"`status` (={result.status!r}) must be one of {', '.join(STATUSES)}")
        if result.config.keys() != self.manifest.config_types.keys():
            unlike = sorted(result.config.keys() ^ self.manifest.config_types.keys())
            raise ValueError(f"`config` of member {result.id} has or lacks {', '.join(unlike)}")
        for name, value in result.config.items():
            wanted = self.manifest.config_types[name]
            is_bool_for_number = isinstance(value, bool) and wanted != "bool"
            if value is not None and (is_bool_for_number or not isinstance(value, _PYTHON_TYPES[wanted])):
                raise ValueError(f"`config[{name!r}]` (={value!r}) of member {result.id} must be a {wanted}")
        size = self.manifest.architectures[plan.architecture].size
        for snapshot in result.snapshots:
            if snapshot.weights.shape != (size,):
                shape = list(snapshot.weights.shape)
                raise ValueError(f"weights of member {result.id} have shape {shape}, not [{size}]")
            faithful = [getattr(snapshot, name) is not None for name in FAITHFUL_METRICS]
            if set(faithful) != {self.manifest.labels == "faithful"}:
                raise ValueError(f"`faithful_*` of member {result.id} do not go with {self.manifest.labels!r}")
        return plan

    def _store_full_shards(self, plans: Iterable[ShardPlan]) -> None:
        for plan in plans:
            if plan.file in self._shards or not self._finished.issuperset(plan.members):
                continue
            entry = write_shard(
                self.folder / SHARD_FOLDER / plan.file,
                _Pieces(self._journal, plan.members),
                architecture=plan.architecture,
                members=plan.members,
                dtype=self.manifest.dtype,
            )
            self._journal.append(ShardLine(shard=entry))
            self._shards[plan.file] = entry
            for member in plan.members:
                with saving(self._journal.piece(member)):
                    self._journal.piece(member).unlink()

    def _make_folders(self) -> None:
        with saving(self.folder / SHARD_FOLDER):
            (self.folder / SHARD_FOLDER).mkdir(exist_ok=True)
        self._journal.start()

    def _cost(self, records: Sequence[MemberRecord]) -> Cost:
        """The work of all members; it does not depend on where the run was interrupted."""
        entries = self.manifest.architectures
        architectures = {name: entry.architecture for name, entry in entries.items()}
        return Cost(
            samples_trained=sum(record.samples_trained for record in records),
            samples_evaluated=sum(record.samples_evaluated for record in records),
            training_flops=sum(
                record.samples_trained * training_flops(architectures[record.architecture]) for record in records
            ),
            evaluation_flops=sum(
                record.samples_evaluated * 2 * forward_macs(architectures[record.architecture])
                for record in records
            ),
        )

    def _remove_journal(self) -> None:
        with saving(self._journal.folder):
            if self._journal.folder.exists():
                shutil.rmtree(self._journal.folder)
                sync_folder(self.folder)


class _Pieces(Sequence[Float32]):
    """The weights of members [snapshots, D], each read from its piece when it is asked for."""

    def __init__(self, journal: Journal, members: Sequence[int]) -> None:
        self._journal = journal
        self._members = members

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> Float32:  # type: ignore[override]  # nobody takes slices of it
        shard = Shard(self._journal.piece(self._members[index]))
        weights = np.empty(shard.shape[1:], np.float32)
        for snapshot, row in enumerate(weights):
            row[:] = shard.read(0, snapshot)
        return weights


def check_resumable(folder: Path, manifest: Manifest, plans: Sequence[ShardPlan]) -> frozenset[int]:
    """Find out whether ``ZooWriter.resume`` would go on with a zoo; nothing is written.

    Args:
        folder: of the zoo.
        manifest: what ``ZooWriter.resume`` would be given.
        plans: likewise.

    Returns:
        Ids of the members that the zoo says are stored; files are not checked.

    Raises:
        UsageError: as ``ZooWriter.resume``.
        WseError: ``zoo.json`` is damaged, or the journal cannot be read.
    """
    there = read_manifest(folder)
    check_same_run(folder, there, _planned(manifest, plans))
    if manifest.models < there.models:
        check_nothing_lost(folder, there, plans)
    elif manifest.models > there.models and there.status == "complete":
        journal_lines(folder, there)  # can be written
    return stored_members(folder, there)


def _planned(manifest: Manifest, plans: Sequence[ShardPlan]) -> Manifest:
    members = sum(len(plan.members) for plan in plans)
    if members != manifest.models:
        raise ValueError(f"{members} members are planned, but `models` is {manifest.models}")
    unknown = sorted({plan.architecture for plan in plans} - manifest.architectures.keys())
    if unknown:
        raise ValueError(f"the manifest lacks architectures that are planned: {', '.join(unknown)}")
    return msgspec.structs.replace(manifest, plan=plan_checksum(plans))
