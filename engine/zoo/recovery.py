"""Find out what an interrupted run has safely stored, and clear away the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import UsageError, WseError
from ..files import is_temporary
from .format import SHARD_FOLDER, Manifest, ShardEntry, canonical_json, read_manifest
from .integrity import file_problem, saving
from .journal import Journal, Line, MemberLine, ShardLine
from .plan import ShardPlan
from .shards import Shard

# What decides the bits of the members; the rest of a manifest follows from it or is filled in at the end.
_DECISIVE = ("space", "seed", "wse_version", "image_sets", "labels", "backend", "precision", "dtype")
# What decides where they stand: it is another one when more members are asked for.
_SIZE = ("models", "grown_from", "plan")


@dataclass(kw_only=True, slots=True)
class Recovered:
    """What is safely stored: shards by file name, ids of the members; and what had to be given up."""

    shards: dict[str, ShardEntry]
    finished: set[int]
    notes: list[str]


def growth(folder: Path, models: int) -> tuple[int, ...]:
    """``grown_from`` of a zoo when so many members are asked for, be they more or fewer than before.

    Raises:
        UsageError: the folder is not a zoo.
        WseError: ``zoo.json`` is damaged.
    """
    there = read_manifest(folder)
    before = tuple(size for size in there.grown_from if size < models)
    return (*before, there.models) if models > there.models else before


def check_growth(folder: Path, asked: Manifest) -> None:
    """Refuse to change how many members a zoo has where somebody has since the run was made.

    Raises:
        UsageError: somebody has.
    """
    if asked.grown_from != growth(folder, asked.models):
        raise UsageError(f"{folder} has other members than a moment ago: another run added some; try again")


def check_same_run(folder: Path, there: Manifest, asked: Manifest) -> None:
    """Refuse to resume a run with another set-up; more members of the same are welcome, and fewer.

    Raises:
        UsageError: names the first differences, with both values; or the zoo was merged.
    """
    there.the_run(folder, "gone on with")
    before, now = (msgspec.json.decode(canonical_json(manifest)) for manifest in (there, asked))
    decisive: tuple[str, ...] = (*_DECISIVE, *_SIZE)
    if asked.models != there.models:
        decisive = _DECISIVE
        common = before["image_sets"].keys() & now["image_sets"].keys()  # more members may have more of the space
        for manifest in (before, now):
            manifest["image_sets"] = {name: manifest["image_sets"][name] for name in common}
    found = [text for name in decisive for text in _differences(name, before[name], now[name])]
    torch = (software.get("torch", _ABSENT) for software in (before["software"], now["software"]))
    found += _differences("torch", *torch)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(
            f"{folder} was begun with another set-up ({'; '.join(found[:3])}{more}): "
            "ask for the same again, use another folder, or start afresh with --overwrite"
        )


def check_nothing_lost(folder: Path, there: Manifest, plans: Sequence[ShardPlan]) -> None:
    """Refuse to go on with fewer members than a zoo was to have, if that costs any that is stored.

    Args:
        folder: of the zoo.
        there: its manifest.
        plans: of the members that are left.

    Raises:
        UsageError: stored members are not among them, or would stand in another shard than they do.
        WseError: the journal cannot be read.
    """
    planned = {plan.file: plan.members for plan in plans}
    left = frozenset(member for members in planned.values() for member in members)
    stored = stored_members(folder, there)
    lost = len(stored - left)
    if lost:
        raise UsageError(
            f"{folder} has {len(stored):,} of {there.models:,} models stored, and {lost:,} of these would be lost "
            f"with only {len(left):,}: ask for {max(stored) + 1:,} or more, or use another folder"
        )
    for line in Journal(folder).read() if stored else ():
        if isinstance(line, ShardLine) and _other_members(folder / SHARD_FOLDER / line.shard.file, planned):
            raise UsageError(
                f"{folder} has stored models in {line.shard.file}, which {len(left):,} would fill otherwise: "
                f"ask for {there.models:,}, or use another folder"
            )


def _other_members(shard: Path, planned: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a shard has other members than it is to have; not if it must be made again anyway."""
    try:
        return Shard(shard).members != planned.get(shard.name)
    except WseError:
        return False


def stored_members(folder: Path, there: Manifest) -> frozenset[int]:
    """Ids of the members that a zoo says are stored; nothing of it is checked.

    Raises:
        WseError: the journal cannot be read.
    """
    return frozenset(range(there.models)) if there.status == "complete" else Journal(folder).finished()


def recover(folder: Path, plans: Sequence[ShardPlan], journal: Journal) -> Recovered:
    """Check every shard and piece an unfinished zoo holds against the journal.

    Files that are damaged, or that no line of the journal names, are removed, and so are the lines of members
    whose weights are lost. Nothing is left but complete shards, and pieces of members that wait for theirs.

    Args:
        folder: of the zoo.
        plans: which member goes where.
        journal: of the zoo, started.

    Raises:
        WseError: a file cannot be read, written or removed.
    """
    notes: list[str] = []
    shards: dict[str, ShardEntry] = {}
    pieces: dict[int, ShardEntry | None] = {}
    for line in journal.read(notes):
        if isinstance(line, MemberLine):
            pieces[line.record.id] = line.piece
        else:
            shards[line.shard.file] = line.shard

    finished: set[int] = set()
    for plan in plans:
        entry = shards.get(plan.file)
        if entry is not None:
            path = folder / SHARD_FOLDER / plan.file
            problem = file_problem(path, entry.bytes, entry.sha256)
            if problem is None and not pieces.keys() >= set(plan.members):
                problem = "the journal has lost records of its members"
            if problem is None:
                finished.update(plan.members)
                continue
            notes.append(f"{path}: {problem}; members whose weights are lost with it are trained again")
            del shards[plan.file]
        for member in plan.members:
            if member not in pieces:
                continue
            piece = pieces[member]
            if piece is None:
                continue
            problem = file_problem(journal.piece(member), piece.bytes, piece.sha256)
            if problem is None:
                finished.add(member)
            elif entry is None:
                notes.append(f"{journal.piece(member)}: {problem}; member {member} is trained again")

    def keep(line: Line) -> bool:
        if isinstance(line, MemberLine):
            return line.record.id in finished
        return line.shard.file in shards

    journal.rewrite(line for line in journal.read() if keep(line))
    waiting = {
        journal.piece(member)
        for plan in plans
        if plan.file not in shards
        for member in plan.members
        if member in finished
    }
    complete = {folder / SHARD_FOLDER / file for file in shards}
    _remove_all_but(journal.folder, {journal.path, *waiting})
    _remove_all_but(folder / SHARD_FOLDER, complete)
    return Recovered(shards=shards, finished=finished, notes=notes)


def _remove_all_but(folder: Path, keep: set[Path]) -> None:
    """Remove a run's files; what file servers put into folders (``.nfs...``, ``@eaDir``) is left alone."""
    for path in sorted(folder.iterdir()):
        is_ours = path.is_file() and (is_temporary(path) or not path.name.startswith("."))
        if is_ours and path not in keep:
            with saving(path):
                path.unlink()


def _differences(name: str, there: Any, asked: Any) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in sorted({*there, *asked}):
            yield from _differences(f"{name}.{key}", there.get(key, _ABSENT), asked.get(key, _ABSENT))
    elif there != asked or type(there) is not type(asked):
        yield f"{name}: {_text(there)} there, {_text(asked)} asked"


_ABSENT = object()


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = msgspec.json.encode(value, order="sorted").decode()
    return text if len(text) <= 60 else text[:57] + "..."
