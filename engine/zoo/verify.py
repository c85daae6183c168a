"""Check a whole zoo: every byte of every file, and that the files agree with one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WseError
from .format import LOCK_FILE, LOG_FILE, MANIFEST_FILE, SHARD_FOLDER, STUDIES_FOLDER
from .integrity import file_problem
from .tables import MEMBERS_FILE, SNAPSHOTS_FILE

if TYPE_CHECKING:
    from .reader import Zoo


def find_problems(zoo: Zoo) -> list[str]:
    """The problems of a zoo, one line each, naming the file; an empty list for a zoo that is whole.

    A zoo that is not whole is no error here; a file that cannot be read is one of the problems.
    """
    broken = {path: problem for path, problem in _damaged_files(zoo) if problem}
    problems = [f"{path}: {problem}" for path, problem in broken.items()]
    problems += [f"{path}: it does not belong to the zoo" for path in _surplus(zoo)]
    for name in zoo.manifest.architectures:
        try:
            zoo.layout(name)
        except WseError as error:
            problems.append(f"{zoo.folder / MANIFEST_FILE}: {error}")
    if not any(zoo.folder / name in broken for name in zoo.manifest.tables):
        try:
            problems += _disagreements(zoo, broken)
        except WseError as error:
            problems.append(str(error))
    return problems


def _damaged_files(zoo: Zoo) -> Iterator[tuple[Path, str | None]]:
    for name, table in zoo.manifest.tables.items():
        yield zoo.folder / name, file_problem(zoo.folder / name, table.bytes, table.sha256)
    for shard in zoo.manifest.shards:
        path = zoo.folder / SHARD_FOLDER / shard.file
        yield path, file_problem(path, shard.bytes, shard.sha256)


def _surplus(zoo: Zoo) -> Iterator[Path]:
    names = (MANIFEST_FILE, LOG_FILE, LOCK_FILE, SHARD_FOLDER, STUDIES_FOLDER, *zoo.manifest.tables)
    known = {zoo.folder / name for name in names}
    known |= {zoo.folder / SHARD_FOLDER / shard.file for shard in zoo.manifest.shards}
    for folder in (zoo.folder, zoo.folder / SHARD_FOLDER):
        found = set(folder.iterdir()) if folder.is_dir() else set()
        yield from sorted(found - known)


def _disagreements(zoo: Zoo, broken: dict[Path, str]) -> Iterator[str]:
    members = zoo.members.select(["id", "shard", "row", "architecture", "status", "snapshots"]).to_pylist()
    table = zoo.folder / MEMBERS_FILE
    if len(members) != zoo.manifest.models:
        yield f"{table}: it has {len(members):,} members instead of {zoo.manifest.models:,}"
    found = Counter(member["status"] for member in members)
    if found != Counter(zoo.manifest.counts):
        yield f"{table}: its members by status are {dict(found)}, not {zoo.manifest.counts}"
    places = {
        (member["shard"], member["row"]): (member["id"], member["architecture"], member["snapshots"])
        for member in members
    }
    for entry in zoo.manifest.shards:
        path = zoo.folder / SHARD_FOLDER / entry.file
        if path in broken:
            continue
        shard = zoo.shard(entry.file)
        for row, (member, snapshots) in enumerate(zip(shard.members, shard.snapshots, strict=True)):
            listed = places.pop((entry.file, row), None)
            if listed != (member, shard.architecture, snapshots):
                yield f"{path}: row {row} is not the member that {table.name} names"
    for file, row in places:
        if zoo.folder / SHARD_FOLDER / file not in broken:
            yield f"{table}: it names row {row} of {file}, which does not exist"
    counts = Counter(zoo.snapshots["member"].to_pylist())
    for member in members:
        if counts[member["id"]] != member["snapshots"]:
            yield f"{zoo.folder / SNAPSHOTS_FILE}: member {member['id']} has {counts[member['id']]} rows"
