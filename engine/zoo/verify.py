"""Check a whole zoo: every byte of every file, and that the files agree with one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import WseError
from ..files import is_temporary
from .format import (
    CHECKPOINT_FOLDER,
    JOURNAL_FOLDER,
    LOCK_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    REPAIR_FOLDER,
    SHARD_FOLDER,
    STUDIES_FOLDER,
    STUDY_FILE,
)
from .integrity import DamagedError, file_problem
from .tables import MEMBERS_FILE, SNAPSHOTS_FILE, SOURCE_COLUMNS

if TYPE_CHECKING:
    from .reader import Zoo


_PAGES, _PICTURES = (".html", ".htm"), (".png", ".svg", ".pdf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something wrong in a zoo.

    Attributes:
        file: that is to blame.
        text: what is wrong with it.
        kind: "damaged": the file is not what ``zoo.json`` says; "leftover": a run or a repair that was killed left
            it; "surplus": it is not of the zoo; "contradiction": files that are whole contradict one another.
    """

    file: Path
    text: str
    kind: Literal["damaged", "surplus", "leftover", "contradiction"] = "contradiction"

    @classmethod
    def of(cls, error: WseError, file: Path) -> Problem:
        """The problem that an error tells of: with the file it names, or else ``file``."""
        if isinstance(error, DamagedError):
            return cls(file=error.path, text=error.problem)
        return cls(file=file, text=str(error))

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


def find_problems(zoo: Zoo) -> list[Problem]:
    """The problems of a zoo; an empty list for a zoo that is whole.

    A zoo that is not whole is no error here; a file that cannot be read is one of the problems.
    """
    problems = list(_damaged_files(zoo))
    broken = {problem.file for problem in problems}
    problems += _surplus(zoo)
    for name in zoo.manifest.architectures:
        try:
            zoo.layout(name)
        except WseError as error:
            problems.append(Problem.of(error, zoo.folder / MANIFEST_FILE))
    if not any(zoo.folder / name in broken for name in zoo.manifest.tables):
        try:
            problems += _disagreements(zoo, broken)
            problems += _wrong_sources(zoo)
        except WseError as error:
            problems.append(Problem.of(error, zoo.folder))
    return problems


def found_beside(folder: Path) -> list[Path]:
    """What lies in a zoo's folder and was made of the zoo, going by names: it is no part of it, and no problem.

    These are pages with the folder of their figures, pictures, and studies.

    Args:
        folder: of the zoo.
    """
    found = sorted(folder.iterdir())
    pages = [path for path in found if path.suffix.lower() in _PAGES and path.is_file()]
    pictures = [path for path in found if path.suffix.lower() in _PICTURES and path.is_file()]
    figures = [path.with_name(f"{path.stem}-data") for path in pages]
    return [path for path in found if path in [*pages, *pictures, *figures] or (path / STUDY_FILE).is_file()]


def _damaged_files(zoo: Zoo) -> Iterator[Problem]:
    files = {zoo.folder / name: (table.bytes, table.sha256) for name, table in zoo.manifest.tables.items()}
    for shard in zoo.manifest.shards:
        files[zoo.folder / SHARD_FOLDER / shard.file] = shard.bytes, shard.sha256
    for path, (size, sha256) in files.items():
        text = file_problem(path, size, sha256)
        if text is not None:
            yield Problem(file=path, text=text, kind="damaged")


def _surplus(zoo: Zoo) -> Iterator[Problem]:
    names = (MANIFEST_FILE, LOG_FILE, LOCK_FILE, SHARD_FOLDER, STUDIES_FOLDER, *zoo.manifest.tables)
    known = {*(zoo.folder / name for name in names), *found_beside(zoo.folder)}
    known |= {zoo.folder / SHARD_FOLDER / shard.file for shard in zoo.manifest.shards}
    of_runs = {zoo.folder / name for name in (CHECKPOINT_FOLDER, JOURNAL_FOLDER, REPAIR_FOLDER)}
    for folder in (zoo.folder, zoo.folder / SHARD_FOLDER):
        found = set(folder.iterdir()) if folder.is_dir() else set()
        for path in sorted(found - known):
            if path in of_runs or is_temporary(path):
                yield Problem(file=path, text="it was left by a run or a repair that was killed", kind="leftover")
            else:
                yield Problem(file=path, text="it does not belong to the zoo", kind="surplus")


def _disagreements(zoo: Zoo, broken: set[Path]) -> Iterator[Problem]:
    """Where whole files contradict one another; shards in ``broken`` are passed over."""
    members = zoo.members.select(["id", "shard", "row", "architecture", "status", "snapshots"]).to_pylist()
    table = zoo.folder / MEMBERS_FILE
    if len(members) != zoo.manifest.models:
        text = f"it has {len(members):,} members instead of {zoo.manifest.models:,}"
        yield Problem(file=table, text=text)
    found = Counter(member["status"] for member in members)
    if found != Counter(zoo.manifest.counts):
        yield Problem(file=table, text=f"its members by status are {dict(found)}, not {zoo.manifest.counts}")
    places = {
        (member["shard"], member["row"]): (member["id"], member["architecture"], member["snapshots"])
        for member in members
    }
    readable = set()
    for entry in zoo.manifest.shards:
        path = zoo.folder / SHARD_FOLDER / entry.file
        if path in broken:
            continue
        try:
            shard = zoo.shard(entry.file)
        except WseError as error:
            yield Problem.of(error, path)
            continue
        readable.add(entry.file)
        for row, (member, snapshots) in enumerate(zip(shard.members, shard.snapshots, strict=True)):
            listed = places.pop((entry.file, row), None)
            if listed != (member, shard.architecture, snapshots):
                yield Problem(file=path, text=f"row {row} is not the member that {table.name} names")
    known = {entry.file for entry in zoo.manifest.shards}
    for file, row in places:
        if file in readable or file not in known:
            yield Problem(file=table, text=f"it names row {row} of {file}, which does not exist")
    counts = Counter(zoo.snapshots["member"].to_pylist())
    for member in members:
        if counts[member["id"]] != member["snapshots"]:
            text = f"member {member['id']} has {counts[member['id']]} rows"
            yield Problem(file=zoo.folder / SNAPSHOTS_FILE, text=text)


def _wrong_sources(zoo: Zoo) -> Iterator[Problem]:
    """Members of a merged zoo that are not of the source they name, or that another one is already."""
    sources = zoo.manifest.sources
    if not sources:
        return
    seen = set()
    for row in zoo.members.select(["id", *SOURCE_COLUMNS]).to_pylist():
        number, member = place = row["source.number"], row["source.id"]
        told = row["source.seed"], row["source.backend"], row["source.precision"]
        source = sources[number] if number in range(len(sources)) else None
        if (
            source is None
            or member not in range(source.models)
            or told != (source.seed, source.backend, source.precision)
            or place in seen
        ):
            text = f"member {row['id']} is not a member of the source that it names"
            yield Problem(file=zoo.folder / MEMBERS_FILE, text=text)
        seen.add(place)
