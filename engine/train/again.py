"""Train members of a complete zoo again, from the space, the seed and their ids, with the backend that made them.

On the processor that gives the same bits. What a member's bits depend on with a GPU is also its pack, so such zoos
are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..data import ImageSet, load
from ..data.search import DataDir
from ..errors import UsageError, WseError
from ..space import Member, Space
from ..zoo import Manifest, Problem, ShardPlan, Zoo, ZooMember, plan_checksum
from ..zoo.tables import MEMBERS_FILE, SNAPSHOTS_FILE
from .manifest import shard_plans
from .options import Options, backend_for
from .run import Run

Execute = Callable[[Run], bool]
AGAIN = "trained again"  # as an error says it


@dataclass(frozen=True, kw_only=True)
class Population:
    """What a zoo says it was made of.

    Attributes:
        members: all of them, drawn again.
        shards: which of them is in which row of which shard.
    """

    members: tuple[Member, ...]
    shards: tuple[ShardPlan, ...]

    @classmethod
    def of(cls, zoo: Zoo) -> Population:
        """Draw the members of a zoo again.

        Raises:
            UsageError: the zoo was merged.
            WseError: another version of wse made the zoo, or they would not go into the same shards.
        """
        manifest = zoo.manifest
        check_version(manifest)
        run = manifest.the_run(zoo.folder, AGAIN)
        space = Space.from_config(run.space)
        members = space.members(run.seed, range(run.models))
        shards = shard_plans(members, space.settings, manifest.dtype, grown_from=manifest.grown_from)
        if plan_checksum(shards) != manifest.plan:
            raise WseError("the members that space and seed give would not go into the shards that zoo.json names")
        return cls(members=tuple(members), shards=tuple(shards))


def check_version(manifest: Manifest) -> None:
    """Refuse a zoo that another version of wse made: it may train in another way.

    Raises:
        WseError: it is one.
    """
    if manifest.wse_version != version("wse"):
        raise WseError(
            f"the zoo was made by wse {manifest.wse_version}, this is {version('wse')}: install that version to "
            "train its members again"
        )


def load_images(name: str, manifest: Manifest, data_dir: DataDir) -> ImageSet:
    """An image set, if it is the one a zoo was made with.

    Raises:
        UsageError: it is not here.
        WseError: it is damaged, or another one.
    """
    images = load(name, data_dir=data_dir)
    if name not in manifest.image_sets or images.sha256 != manifest.image_sets[name].sha256:
        raise WseError(f"the image set {name} is not the one the zoo was made with: give the other by --data-dir")
    return images


def other_software(manifest: Manifest) -> str:
    """What is not of the version that the zoo was made with, in brackets, or nothing."""
    found = {name: version(name) for name in manifest.software if name != "python"}
    unlike = [f"{name} {there}, here {found[name]}" for name, there in manifest.software.items()
              if name in found and found[name] != there]  # fmt: skip
    return f" (made with {'; '.join(unlike)})" if unlike else ""


def run_again(
    zoo: Zoo,
    shards: Sequence[ShardPlan],
    folder: Path,
    *,
    data_dir: Path | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Run:
    """A run that makes a zoo of some members of another.

    Args:
        zoo: whose members.
        shards: that the new zoo has.
        folder: of the new zoo.
        data_dir: as for ``load``.
        resume: go on with an unfinished run there.
        tell: as for ``backend_for``.

    Raises:
        UsageError: the zoo was merged, a GPU made it, or an image set is not here.
        WseError: another version of wse made it, or an image set is another one.
    """
    manifest = zoo.manifest
    made = manifest.the_run(zoo.folder, AGAIN)
    if made.backend == "cuda":
        raise UsageError(
            f"{zoo.folder} was trained on a GPU, where the bits of a member depend on its pack: "
            "its members cannot be trained again to the same bits"
        )
    check_version(manifest)
    options = Options(
        space=Space.from_config(made.space),
        models=made.models,
        folder=folder,
        seed=made.seed,
        data_dir=data_dir,
        dtype=manifest.dtype,
        faithful=manifest.labels == "faithful",
        device=made.backend,
        precision=made.precision,
        resume=resume,
    )
    run = Run(options, backend_for(options.device, tell, precision=options.precision), shards=shards)
    for name in run.image_sets:
        load_images(name, manifest, data_dir)
    return run


def regeneration_problems(
    zoo: Zoo,
    count: int,
    *,
    seed: int | None = None,
    data_dir: Path | None = None,
    execute: Execute = Run.execute,
    tell: Callable[[str], None] | None = None,
) -> list[Problem] | None:
    """Train random members again, and compare all weights and all that the tables say of them, bit for bit.

    Args:
        zoo: whose members.
        count: how many; all, if there are fewer.
        seed: of the choice; another one each time if None.
        data_dir: as for ``load``.
        execute: runs a run.
        tell: as for ``backend_for``.

    Returns:
        A problem for each difference, or None if the run was interrupted.

    Raises:
        UsageError: ``count`` is below 1, and as for ``run_again``.
        WseError: as for ``run_again``.
    """
    if count < 1:
        raise UsageError(f"`regenerate` (={count}) must be at least 1")
    ids = np.random.default_rng(seed).permutation(zoo.ids)[:count].tolist()
    made = zoo.manifest.the_run(zoo.folder, AGAIN)
    space = Space.from_config(made.space)
    shards = shard_plans(space.members(made.seed, ids), space.settings, zoo.manifest.dtype)
    with TemporaryDirectory() as name:
        folder = Path(name) / "zoo"
        if not execute(run_again(zoo, shards, folder, data_dir=data_dir, tell=tell)):
            return None
        again = Zoo.open(folder)
        return [problem for member in again for problem in _differences(zoo[member], again[member], zoo)]


def _differences(there: ZooMember, made: ZooMember, zoo: Zoo) -> Iterator[Problem]:
    note = other_software(zoo.manifest)
    for text in _weight_differences(there, made):
        path = zoo.shard(there.record["shard"]).path
        yield Problem(file=path, text=f"member {there.id}: {text}{note}")
    places = {"shard", "row", "seconds"}
    for name in there.record.keys() - places:
        before, now = there.record[name], made.record[name]
        if repr(before) != repr(now):  # of doubles all digits, and NaN is like NaN
            text = f"member {there.id}: {name} is {before}, trained again {now}{note}"
            yield Problem(file=zoo.folder / MEMBERS_FILE, text=text)
    for before, now in zip(there.snapshots, made.snapshots, strict=False):
        unlike = sorted(name for name in before if repr(before[name]) != repr(now[name]))
        if unlike:
            text = f"member {there.id}: snapshot {before['snapshot']} differs in {', '.join(unlike)}{note}"
            yield Problem(file=zoo.folder / SNAPSHOTS_FILE, text=text)


def _weight_differences(there: ZooMember, made: ZooMember) -> Iterator[str]:
    if there.record["snapshots"] != made.record["snapshots"] or there.architecture != made.architecture:
        return  # the tables tell
    for index, (before, now) in enumerate(zip(there.weights(), made.weights(), strict=True)):
        values = np.count_nonzero(before.view(np.uint32) != now.view(np.uint32))
        if values:
            with np.errstate(invalid="ignore"):
                most = np.abs(before - now).max()
            share = f"{values:,} of {len(now):,} values"
            yield f"snapshot {index} trained again differs in {share}, by up to {most:.2g}"
