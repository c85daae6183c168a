"""One zoo out of several: all their members under new ids, with the same weights and what makes them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from ..errors import UsageError
from .format import SHARD_FOLDER, Manifest, write_manifest
from .integrity import DamagedError, check_local, saving
from .joined import Part, joined_manifest, joined_members, joined_shards, joined_snapshots, parts_of
from .placing import check_place, taking_place
from .reader import Zoo
from .shards import copy_shard
from .tables import CONFIG, MEMBERS_FILE, SNAPSHOTS_FILE, write_table

# What must be the same in all, and what decides it.
_ALIKE = {
    "dtype": "number formats of their weights (--dtype)",
    "labels": "labels (--faithful)",
    "config_types": "properties (versions of wse)",
}


def merge_zoos(
    folders: Sequence[Path], out: Path, tell: Callable[[int, int], None] = lambda done, total: None
) -> Manifest:
    """Make one zoo out of several. The first one's members keep their ids, the others' follow in order.

    Args:
        folders: of two or more complete zoos; merged ones may be among them. They are only read.
        out: missing or empty.
        tell: told how many bytes of weights have been copied, and of how many.

    Returns:
        What the new ``zoo.json`` holds.

    Raises:
        UsageError: the folders are not zoos, do not go together, or have a network in common; ``out`` is taken.
        WseError: a zoo is unfinished or damaged, or the new one cannot be written. Nothing is left of it.
    """
    if len(folders) < 2:
        raise UsageError("name two zoos or more, for instance `wse merge zoo-1 zoo-2 --out zoo`")
    check_local(out)
    zoos = [Zoo.open(folder) for folder in folders]
    _check_alike(zoos)
    for zoo in zoos:
        if zoo.manifest.imported:
            raise UsageError(f"{zoo.folder} was imported: import all that it is to hold at once, by `wse import`")
        _check_members(zoo)
    _check_place(zoos, out)
    parts = parts_of(zoos)
    shards = list(joined_shards(parts))
    members = joined_members(parts, {(part.first, entry.file): file for part, entry, file in shards})
    _check_twins(parts, members)
    tables = {MEMBERS_FILE: members, SNAPSHOTS_FILE: joined_snapshots(parts)}
    total = sum(entry.bytes for _, entry, _ in shards)
    done = 0

    def copied(count: int) -> None:
        nonlocal done
        done += count
        tell(done, total)

    with taking_place(out, "merging") as folder:
        target = folder / SHARD_FOLDER
        with saving(target):
            target.mkdir()
        ids = {part.first: dict(zip(part.zoo, part.ids, strict=True)) for part in parts}
        entries = []
        for part, entry, file in shards:
            source = part.zoo.folder / SHARD_FOLDER / entry.file
            entries.append(copy_shard(source, entry, target / file, ids[part.first], copied))
        manifest = msgspec.structs.replace(
            joined_manifest(parts),
            shards=tuple(entries),
            tables={name: write_table(folder / name, table) for name, table in tables.items()},
        )
        write_manifest(folder, manifest)
    return manifest


def _check_members(zoo: Zoo) -> None:
    """What the tables are joined by; all else is compared with checksums."""
    files = {entry.file for entry in zoo.manifest.shards}
    if len(zoo.members) != zoo.manifest.models or not files >= set(zoo.members["shard"].to_pylist()):
        raise DamagedError(zoo.folder / MEMBERS_FILE, "its members are not those that zoo.json names")


def _check_alike(zoos: Sequence[Zoo]) -> None:
    """What a zoo has one of must be the same in all."""
    first, *others = zoos
    for other in others:
        for name, words in _ALIKE.items():
            if getattr(first.manifest, name) != getattr(other.manifest, name):
                raise UsageError(f"{first.folder} and {other.folder} differ in {words}: they cannot be merged")
    known: dict[str, tuple[Any, Zoo]] = {}
    for zoo in zoos:
        images, architectures = zoo.manifest.image_sets, zoo.manifest.architectures
        named: dict[str, Any] = {f"image set {name}": entry for name, entry in images.items()}
        named |= {f"architecture {name}": entry for name, entry in architectures.items()}
        for name, entry in named.items():
            there, before = known.setdefault(name, (entry, zoo))
            if there != entry:
                raise UsageError(
                    f"the {name} is not the same in {before.folder} and {zoo.folder}: they cannot be merged"
                )


def _check_place(zoos: Sequence[Zoo], out: Path) -> None:
    manifests = [zoo.manifest for zoo in zoos]
    needed = sum(entry.bytes for manifest in manifests for entry in manifest.shards)
    needed += sum(entry.bytes for manifest in manifests for entry in manifest.tables.values())
    check_place(out, needed)
    for zoo in zoos:
        if zoo.folder.resolve() in out.resolve().parents:
            raise UsageError(f"{out} lies in the zoo {zoo.folder}: name a folder elsewhere by --out")


def _check_twins(parts: Sequence[Part], members: pa.Table) -> None:
    """A network that is there twice could be learned from and tested on."""
    same = ["source.seed", "source.id", "architecture"]
    same += [name for name in members.column_names if name.startswith(CONFIG)]
    groups = members.group_by(same, use_threads=False).aggregate([("id", "min"), ("id", "max")])
    ends = zip(groups["id_min"].to_pylist(), groups["id_max"].to_pylist(), strict=True)
    twins = [pair for pair in ends if pair[0] < pair[1]]
    if twins:
        (one, first), (two, second) = (_before(parts, member) for member in min(twins))
        raise UsageError(
            f"{one} and {two} hold the same networks ({len(twins):,} in all): member {first} of the one is member "
            f"{second} of the other, with the same seed, id and set-up; leave a zoo out, or generate it with "
            "another --seed"
        )


def _before(parts: Sequence[Part], member: int) -> tuple[Path, int]:
    """The zoo that a member of the merged one comes from, and its id there."""
    return next((part.zoo.folder, list(part.zoo)[member - part.first]) for part in parts if member in part.ids)
