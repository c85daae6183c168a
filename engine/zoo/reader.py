"""Read a zoo: its tables, the weights of its members, the members as runnable networks.

Opening reads ``zoo.json`` only. Tables are read, whole, when they are first asked for; weights are mapped
into memory, so what is not looked at is not read.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import UsageError, WseError
from ..machine import open_files
from ..nets import Layout
from ..text import counted_text
from .format import MANIFEST_FILE, SHARD_FOLDER, Manifest, RunEntry, ShardEntry, read_manifest
from .integrity import DamagedError, resume_command
from .items import Items
from .journal import Journal
from .shards import Float32, Shard
from .tables import CONFIG, MEMBERS_FILE, SNAPSHOTS_FILE, members_schema, numbers, read_table, snapshots_schema
from .verify import find_problems

if TYPE_CHECKING:
    import torch

    from .normalising import Normalizing
    from .slices import SliceDataset

# An open shard holds a file descriptor: at most so many, and no more than a quarter of what the system allows.
OPEN_SHARDS = 64


class Zoo:
    """A zoo; ``Zoo.open`` makes one. Its members are ``zoo[id]``, its ids ``iter(zoo)``, in order.

    Attributes:
        folder: of the zoo.
        manifest: what ``zoo.json`` holds.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._layouts: dict[str, Layout] = {}
        self._open: OrderedDict[str, Shard] = OrderedDict()
        # Kept when a shard is closed: a snapshot is checked once, however often its shard is opened again.
        self._verified: dict[str, NDArray[np.bool_]] = {}

    @classmethod
    def open(cls, path: Path | str, *, unfinished: bool = False) -> Zoo:
        """Open a zoo.

        Args:
            path: its folder.
            unfinished: whether its run may still be going on, or have been stopped. The zoo then has the members
                that have ended so far; see ``UnfinishedZoo``.

        Raises:
            UsageError: the folder is missing or is not a zoo.
            WseError: the zoo is damaged or of a newer format; or it is unfinished, and that was not allowed or
                no member has ended yet.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        if manifest.status != "complete" and unfinished:
            from .unfinished import UnfinishedZoo

            return UnfinishedZoo.read(folder, manifest)
        if manifest.status != "complete":
            finished = len(Journal(folder).finished())
            raise WseError(
                f"{folder} is unfinished: {finished:,} of {manifest.models:,} members are there; "
                f"finish it with `{resume_command(folder)}`, or look at these with "
                "`wse info`, or `wse meta` and `wse report` with --unfinished"
            )
        _check_names(folder / MANIFEST_FILE, manifest)
        return cls(folder, manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process opens its own files.
        return (Zoo, (self.folder, self.manifest))

    @cached_property
    def members(self) -> pa.Table:
        """A row a member, ordered by id.

        Raises:
            WseError: the table is missing or damaged.
        """
        merged = bool(self.manifest.sources)
        schema = members_schema(self.manifest.config_types, self.manifest.labels, merged=merged)
        return read_table(self.folder / MEMBERS_FILE, self.manifest.tables[MEMBERS_FILE], schema)

    @cached_property
    def snapshots(self) -> pa.Table:
        """A row a snapshot, ordered by member and time.

        Raises:
            WseError: the table is missing or damaged.
        """
        entry = self.manifest.tables[SNAPSHOTS_FILE]
        return read_table(self.folder / SNAPSHOTS_FILE, entry, snapshots_schema(self.manifest.labels))

    @property
    def architectures(self) -> dict[str, Layout]:
        """The layout of every architecture, by name.

        Raises:
            WseError: this version of wse lays one out in another way.
        """
        return {name: self.layout(name) for name in self.manifest.architectures}

    def layout(self, architecture: str) -> Layout:
        """The layout of one architecture, by name.

        Raises:
            WseError: this version of wse lays it out in another way.
        """
        if architecture not in self._layouts:
            self._layouts[architecture] = self.manifest.architectures[architecture].layout()
        return self._layouts[architecture]

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the members, ascending."""
        return numbers(self.members["id"])

    def __len__(self) -> int:
        return self.manifest.models

    def __repr__(self) -> str:
        architectures = counted_text(len(self.manifest.architectures), "architecture")
        return f"Zoo({str(self.folder)!r}, {counted_text(len(self), 'member')} of {architectures})"

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __getitem__(self, member: int) -> ZooMember:
        """The member of that id; raises a ``UsageError`` if there is none."""
        member = operator.index(member)
        row = int(np.searchsorted(self.ids, member))
        if row == len(self.ids) or self.ids[row] != member:
            raise UsageError(
                f"{self.folder} has no member {member}: its {len(self):,} ids lie between "
                f"{self.ids.min(initial=0)} and {self.ids.max(initial=0)}"
            )
        return ZooMember(self, self.members.slice(row, 1).to_pylist()[0])

    def by_run(
        self, members: NDArray[np.int64]
    ) -> Iterator[tuple[RunEntry, NDArray[np.int64], NDArray[np.int64]]]:
        """What makes members again, run by run: a merged zoo has more than one, an imported one none.

        Args:
            members: ids, ascending.

        Yields:
            A run, the ids of its members here, and their ids in the run.
        """
        runs = self.manifest.runs
        if not self.manifest.sources:
            yield from ((run, members, members) for run in runs)
            return
        rows = np.searchsorted(self.ids, members)
        numbers_here = numbers(self.members["source.number"])[rows]
        ids_there = numbers(self.members["source.id"])[rows]
        for number in np.unique(numbers_here):
            here = numbers_here == number
            yield runs[number], members[here], ids_there[here]

    def items(
        self, *, snapshots: str | Sequence[int] | None = None, members: Sequence[int] | None = None
    ) -> Items:
        """Chosen snapshots of chosen members.

        Args:
            snapshots: None for the last snapshot of each member, "all", or a list of indices.
            members: ids; None for all members.

        Returns:
            Items; see ``wse.engine.zoo.Items``, also for errors.
        """
        return Items(self, snapshots=snapshots, members=members)

    def slices(
        self,
        part: str,
        length: int | None = None,
        *,
        target: str | None = None,
        snapshots: str | Sequence[int] | None = None,
        members: Sequence[int] | None = None,
        seed: int = 0,
        normalize: Normalizing = "none",
        statistics: bool = False,
        pad: bool = False,
        resident: bool | str = False,
    ) -> SliceDataset:
        """Random consecutive values of a part of every network, as a torch data set.

        Args:
            part: ``all``, ``conv`` or ``fc``, a layer (``conv3``), or something inside it (``conv3.weight``).
            length: of a slice, in values; None for the whole part.
            target: a property or another column; None: the id of the member.
            snapshots: None for the last snapshot of each member, "all", or a list of indices.
            members: ids; None for all members.
            seed: of the places of slices.
            normalize: ``none``, ``slice``, ``layer``, or what ``fit_positions`` gives.
            statistics: whether moving averages of batch normalisation belong to the part.
            pad: whether a part may be shorter than ``length``; its slice ends in zeros then.
            resident: whether to keep the part of all items in memory; the name of a device: in that one's.

        Returns:
            A data set of (values float32 [length], target); see ``wse.engine.zoo.slices.SliceDataset``, also for
            errors.
        """
        from .slices import SliceDataset

        items = self.items(snapshots=snapshots, members=members)
        return SliceDataset(
            items, part, length, target=target, seed=seed,
            normalize=normalize, statistics=statistics, pad=pad, resident=resident,
        )  # fmt: skip

    def verify(self) -> list[str]:
        """Read every file in full and check it; a line for each problem, none for a zoo that is whole."""
        return [str(problem) for problem in find_problems(self)]

    def path(self, file: str) -> Path:
        """Where a weight file is."""
        return self.folder / SHARD_FOLDER / file

    def shard(self, file: str) -> Shard:
        """A weight file, opened; the least recently used ones are closed when too many are open.

        Raises:
            WseError: the file is missing, damaged or not the one the zoo was made with.
        """
        shard = self._open.get(file)
        if shard is None:
            shard = self._open_shard(file)
            self._open[file] = shard
            self._verified[file] = shard.verified
            if len(self._open) > max(min(OPEN_SHARDS, open_files() // 4), 1):
                self._open.popitem(last=False)
        self._open.move_to_end(file)
        return shard

    @cached_property
    def _entries(self) -> dict[str, ShardEntry]:
        return {entry.file: entry for entry in self.manifest.shards}

    def _open_shard(self, file: str) -> Shard:
        entry = self._entries.get(file)
        if entry is None:
            raise DamagedError(self.folder / MANIFEST_FILE, f"it does not name the shard {file}")
        path = self.path(file)
        shard = Shard(path, self._verified.get(file))
        size = self.manifest.architectures[entry.architecture].size
        expected = (self.manifest.dtype, entry.architecture, (entry.members, entry.snapshots, size))
        if shard.bytes != entry.bytes or (shard.dtype, shard.architecture, shard.shape) != expected:
            raise DamagedError(path, "its size or its header is not the one zoo.json names")
        return shard


def _check_names(path: Path, manifest: Manifest) -> None:
    """Refuse a ``zoo.json`` that names files or architectures that a complete zoo cannot have."""
    for name in (MEMBERS_FILE, SNAPSHOTS_FILE):
        if name not in manifest.tables:
            raise DamagedError(path, f"it does not name {name}")
    for entry in manifest.shards:
        if entry.architecture not in manifest.architectures:
            raise DamagedError(path, f"it does not describe the architecture of shard {entry.file!r}")
    for name in (*manifest.tables, *(entry.file for entry in manifest.shards)):
        if not name or Path(name).name != name or "\0" in name:
            raise DamagedError(path, f"it names {name!r}, which is not the name of a file in its folder")


class ZooMember:
    """One network of a zoo, its set-up and how its training went.

    Attributes:
        id: of the member.
        architecture: name of its architecture.
        status: "ok", "dead" or "diverged".
        record: its row of the members table.
    """

    def __init__(self, zoo: Zoo, record: dict[str, Any]) -> None:
        self.id: int = record["id"]
        self.architecture: str = record["architecture"]
        self.status: str = record["status"]
        self.record = record
        self._zoo = zoo

    @property
    def config(self) -> dict[str, Any]:
        """Its set-up: property -> value."""
        return {name.removeprefix(CONFIG): value for name, value in self.record.items() if name.startswith(CONFIG)}

    @property
    def layout(self) -> Layout:
        """The layout of its weights."""
        return self._zoo.layout(self.architecture)

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        """Its rows of the snapshots table, in the order of time."""
        table = self._zoo.snapshots
        owners = numbers(table["member"])
        start, stop = np.searchsorted(owners, [self.id, self.id + 1])
        rows: list[dict[str, Any]] = table.slice(start, stop - start).to_pylist()
        return rows

    def weights(self) -> Float32:
        """All snapshots.

        Returns:
            [snapshots, D] float32, in memory of their own.

        Raises:
            WseError: the shard is missing or damaged.
        """
        weights = np.empty((self.record["snapshots"], self.layout.size), np.float32)
        for snapshot, row in enumerate(weights):
            row[:] = self._read(snapshot)
        return weights

    def state_dict(self, snapshot: int = -1) -> dict[str, torch.Tensor]:
        """One snapshot as tensors named and shaped as in the layout, moving statistics included.

        Args:
            snapshot: 0 is the first, -1 the last.

        Raises:
            UsageError: there is no such snapshot.
            WseError: the shard is missing or damaged.
        """
        import torch

        count = self.record["snapshots"]
        if not -count <= snapshot < count:
            raise UsageError(f"member {self.id} has no snapshot {snapshot}: it has {count}")
        vector = torch.from_numpy(self._read(snapshot % count).copy())
        return {
            spec.name: vector[spec.offset : spec.stop].reshape(spec.shape) for spec in self.layout.tensors.values()
        }

    def module(self, snapshot: int = -1) -> torch.nn.Module:
        """One snapshot as a runnable network in eval mode.

        Args:
            snapshot: 0 is the first, -1 the last.

        Raises:
            UsageError: there is no such snapshot, or the set-up of the member names no activation.
            WseError: the shard is missing or damaged.
        """
        from ..nets.module import build

        activation = self.config.get("activation")
        if activation is None:
            raise UsageError(f"member {self.id} has no property `activation`: it cannot be run")
        module: torch.nn.Module = build(self.layout.architecture, activation)
        module.load_state_dict(self.state_dict(snapshot))
        return module.eval()

    def __repr__(self) -> str:
        return f"ZooMember({self.id}, {self.architecture}, {self.status}, {self.record['snapshots']} snapshots)"

    def _read(self, snapshot: int) -> Float32:
        shard = self._zoo.shard(self.record["shard"])
        row = self.record["row"]
        if row >= len(shard.members) or shard.members[row] != self.id:
            raise DamagedError(shard.path, f"row {row} is not member {self.id}")
        if snapshot >= shard.snapshots[row]:
            raise DamagedError(shard.path, f"it lacks snapshot {snapshot} of member {self.id}")
        return shard.read(row, snapshot)
