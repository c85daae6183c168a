"""What is settled of a zoo before its run begins: what ``zoo.json`` says, and where each member goes."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise

from ..data import ImageSet
from ..nets import Layout
from ..space import Member, Settings, arrow_types
from ..zoo import ArchitectureEntry, ImageSetEntry, Manifest, ShardPlan, plan_shards
from .backend import Backend
from .options import Options
from .plan import BYTES_PER_VALUE
from .schedule import snapshot_count


def manifest_of(
    options: Options,
    backend: Backend,
    members: Sequence[Member],
    image_sets: Mapping[str, ImageSet],
    *,
    grown_from: tuple[int, ...] = (),
) -> Manifest:
    """The manifest of a zoo that is still to be made.

    Args:
        options: of the run.
        backend: that trains.
        members: the population.
        image_sets: those that occur in it, by name.
        grown_from: see ``Manifest``.
    """
    return Manifest(
        wse_version=version("wse"),
        software={
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "safetensors", "torch")},
        },
        seed=options.seed,
        models=len(members),
        grown_from=grown_from,
        space=options.space.to_config(),
        labels="faithful" if options.faithful else "eval",
        backend=backend.name,
        precision=backend.precision,
        dtype=options.dtype,
        image_sets={
            name: ImageSetEntry(
                sha256=images.sha256,
                train=len(images.train_labels),
                test=len(images.test_labels),
                classes=images.n_classes,
            )
            for name, images in image_sets.items()
        },
        architectures={
            architecture.name: ArchitectureEntry.of(Layout(architecture))
            for architecture in dict.fromkeys(member.architecture for member in members)
        },
        config_types=arrow_types(),
    )


def shard_plans(
    members: Sequence[Member], settings: Settings, dtype: str, *, grown_from: tuple[int, ...] = ()
) -> list[ShardPlan]:
    """Which member goes into which row of which shard.

    Args:
        members: the population, in the order of their ids.
        settings: of its space.
        dtype: of the stored weights.
        grown_from: how many there were each time that more were asked for: those that came later have shards of
            their own, so that finished ones are not written again.
    """
    plans: list[ShardPlan] = []
    for first, end in pairwise((0, *grown_from, len(members))):
        part = members[first:end]
        most_snapshots = max(
            snapshot_count(settings.snapshots, epochs) for epochs in {member.setup.epochs for member in part}
        )
        member_bytes = {
            architecture.name: most_snapshots * Layout(architecture).size * BYTES_PER_VALUE[dtype]
            for architecture in {member.architecture for member in part}
        }
        plans += plan_shards(((member.id, member.architecture.name) for member in part), member_bytes, after=plans)
    return plans
