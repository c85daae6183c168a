"""Mend a complete zoo: train the members of damaged shards again, make damaged tables again, and nothing else.

Members train in the folder ``repair`` inside the zoo, which is a zoo of its own: a repair that is interrupted or
killed goes on like any run. What is whole is never touched, ``zoo.json`` neither, and a file takes its place only
if it has the checksum that ``zoo.json`` names. So the zoo is at no time less readable than before.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..errors import UsageError, WseError
from ..files import atomic_write, sync_folder
from ..zoo import (
    REPAIR_FOLDER,
    SHARD_FOLDER,
    Lock,
    Problem,
    ShardEntry,
    Zoo,
    file_problem,
    plan_checksum,
    read_manifest,
    saving,
)
from ..zoo.tables import MEMBERS_FILE, SNAPSHOTS_FILE
from .again import Execute, Population, other_software, run_again
from .log import Log
from .restore import missing_facts, restored_tables
from .run import Run

_OTHERS = {
    "surplus": "it is not of the zoo: move it elsewhere",
    "contradiction": "its content is what zoo.json says: restore both from a copy, or make the zoo again",
}


@dataclass(frozen=True, kw_only=True)
class RepairPlan:
    """What a repair would do.

    Attributes:
        shards: whose members are trained again.
        tables: names of the tables that are made again, in this order.
        leftovers: files and folders of killed runs, which are removed.
        beyond: what cannot be mended, and why.
    """

    shards: tuple[ShardEntry, ...]
    tables: tuple[str, ...]
    leftovers: tuple[Path, ...]
    beyond: tuple[Problem, ...]

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.shards or self.tables or self.leftovers)

    def steps(self) -> Iterator[str]:
        """What is done, in words, a line each."""
        for entry in self.shards:
            yield f"train the members of {SHARD_FOLDER}/{entry.file} again ({entry.members:,})"
        for name in self.tables:
            source = "the snapshots, measured" if name == SNAPSHOTS_FILE else "log, space and snapshots"
            yield f"make {name} again from {source}"
        for path in self.leftovers:
            yield f"remove {path.name}, which a run or a repair left"


def plan_repair(zoo: Zoo, problems: Sequence[Problem]) -> RepairPlan:
    """What can be mended of what ``find_problems`` found.

    Args:
        zoo: whose problems they are.
        problems: all of them.
    """
    damaged = {problem.file: problem for problem in problems if problem.kind == "damaged"}
    shards = {zoo.folder / SHARD_FOLDER / entry.file: entry for entry in zoo.manifest.shards}
    members, snapshots = zoo.folder / MEMBERS_FILE, zoo.folder / SNAPSHOTS_FILE
    beyond = {path: obstacle for path in damaged if (obstacle := _obstacle(zoo, path, path in shards))}
    for table, sources in ((snapshots, [*shards, members]), (members, [snapshots])):
        if table in damaged and table not in beyond and not beyond.keys().isdisjoint(sources):
            beyond[table] = "it would be made of another file, which cannot be mended"
    mended = damaged.keys() - beyond.keys()
    lost = tuple(entry for path, entry in shards.items() if path in mended)
    return RepairPlan(
        shards=lost,
        tables=tuple(path.name for path in (snapshots, members) if path in mended),
        leftovers=tuple(
            problem.file
            for problem in problems
            if problem.kind == "leftover" and not (lost and problem.file == zoo.folder / REPAIR_FOLDER)
        ),
        beyond=(
            *(Problem(file=path, text=text) for path, text in beyond.items()),
            *(Problem(file=p.file, text=_OTHERS[p.kind]) for p in problems if p.kind in _OTHERS),
        ),
    )


def repair(
    zoo: Zoo,
    plan: RepairPlan,
    *,
    data_dir: Path | None = None,
    execute: Execute = Run.execute,
    tell: Callable[[str], None] | None = None,
) -> bool:
    """Mend a zoo.

    Args:
        zoo: the zoo; open it again afterwards.
        plan: by ``plan_repair``.
        data_dir: as for ``load``.
        execute: runs a run.
        tell: as for ``backend_for``.

    Returns:
        False if training was interrupted; another repair goes on.

    Raises:
        UsageError: another run is at work on the zoo or has been since it was opened, or an image set is not here.
        WseError: what was made again has other bits, or a file cannot be written.
    """
    lock = Lock(zoo.folder)
    try:
        if read_manifest(zoo.folder) != zoo.manifest:  # what was left over then may be what a run goes on with
            raise UsageError(f"{zoo.folder} has changed since it was looked at, by another run: try again")
        missing = _place(zoo, _earlier(zoo), plan.shards)
        if missing and not _train(zoo, missing, execute=execute, data_dir=data_dir, tell=tell):
            return False
        if plan.tables:
            restored = restored_tables(Zoo.open(zoo.folder), plan.tables, data_dir=data_dir, tell=tell)
            for name in plan.tables:
                _write_table(zoo, name, restored[name])
        for path in plan.leftovers:
            _remove(path)
        mended = [*(entry.file for entry in plan.shards), *plan.tables]
        if mended:
            log = Log(zoo.folder)
            log.write("repaired", files=mended)
        return True
    finally:
        lock.release()


def _obstacle(zoo: Zoo, path: Path, is_shard: bool) -> str | None:
    """Why a damaged file cannot be mended, or None."""
    manifest = zoo.manifest
    if manifest.imported:
        return "the zoo was imported, not made by wse: import it again"
    if manifest.sources:
        return "the zoo was merged: repair the zoos it was merged from, and merge them again"
    if manifest.wse_version != version("wse"):
        return f"only wse {manifest.wse_version}, which made it, can make it again; this is {version('wse')}"
    if path.name == MEMBERS_FILE:
        return missing_facts(zoo)
    if manifest.backend == "cuda":
        return "it was made on a GPU, where bits depend on the pack, so it cannot be made again"
    if not is_shard and manifest.dtype != "float32":
        return f"it was measured before the weights were rounded to {manifest.dtype}, so it cannot be made again"
    return None


def _earlier(zoo: Zoo) -> Path | None:
    """The zoo of members that an earlier repair trained to the end, if it did not come to put them in place."""
    folder = zoo.folder / REPAIR_FOLDER
    try:
        return folder if read_manifest(folder).status == "complete" else None
    except WseError:  # there is none, or it is of no use
        return None


def _place(zoo: Zoo, made: Path | None, shards: Sequence[ShardEntry]) -> list[ShardEntry]:
    """Move shards that are what ``zoo.json`` says from ``made`` into the zoo; which are still missing."""
    if made is None:
        return list(shards)
    missing = []
    for entry in shards:
        source, target = made / SHARD_FOLDER / entry.file, zoo.folder / SHARD_FOLDER / entry.file
        if file_problem(source, entry.bytes, entry.sha256) is None:
            with saving(target):
                target.parent.mkdir(exist_ok=True)
                source.replace(target)
                sync_folder(target.parent)
        else:
            missing.append(entry)
    _remove(made)
    return missing


def _train(
    zoo: Zoo,
    shards: Sequence[ShardEntry],
    *,
    execute: Execute,
    data_dir: Path | None,
    tell: Callable[[str], None] | None,
) -> bool:
    """Train the members of shards, and put these in place; False if it was interrupted."""
    folder = zoo.folder / REPAIR_FOLDER
    files = {entry.file for entry in shards}
    plans = [plan for plan in Population.of(zoo).shards if plan.file in files]
    resume = _is_begun(folder, plan_checksum(plans))
    if not resume:
        _remove(folder)
    if not execute(run_again(zoo, plans, folder, data_dir=data_dir, resume=resume, tell=tell)):
        return False
    missing = _place(zoo, folder, shards)
    if missing:
        path = zoo.folder / SHARD_FOLDER / missing[0].file
        raise _unlike(zoo, path, f"trained again, its members{'' if len(missing) == 1 else ' and others'}")
    return True


def _is_begun(folder: Path, plan: str) -> bool:
    """Whether a repair of the same shards has been begun."""
    try:
        return read_manifest(folder).plan == plan
    except WseError:
        return False


def _write_table(zoo: Zoo, name: str, content: bytes) -> None:
    path = zoo.folder / name
    if hashlib.sha256(content).hexdigest() != zoo.manifest.tables[name].sha256:
        raise _unlike(zoo, path, "made again, its rows")
    with saving(path), atomic_write(path) as file:
        file.write(content)


def _unlike(zoo: Zoo, path: Path, what: str) -> WseError:
    return WseError(
        f"{path} stays damaged: {what} are not what zoo.json says, as on another processor or with other "
        f"libraries{other_software(zoo.manifest)}; restore it from a copy, or make the zoo again"
    )


def _remove(path: Path) -> None:
    with saving(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
