"""The plan of a run: which members train together, in which order, and what that will cost."""

from __future__ import annotations

import heapq
import operator
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..nets import Architecture, Layout, forward_macs, training_flops
from ..space import Member
from .backend import Context
from .schedule import snapshot_count, steps_per_epoch
from .split import PARTS

BYTES_PER_VALUE = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class PackPlan:
    """Members of one architecture, in the order in which they get a row of a pack.

    Attributes:
        architecture: the architecture.
        members: the members.
        images: that each is trained on if it uses all its epochs.
    """

    architecture: Architecture
    members: tuple[Member, ...]
    images: tuple[int, ...]

    def executed_images(self, rows: int) -> int:
        """Room for images in all steps that a pack of so many rows takes, rows without a member included."""
        ends = [0] * rows
        for images in self.images:  # the row that is free first gets the next member
            heapq.heapreplace(ends, ends[0] + images)
        return rows * max(ends)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitecturePlan:
    """What the members of one architecture cost.

    Attributes:
        architecture: the architecture.
        members: how many.
        values: D, the length of one snapshot.
        training_images: images to train on, all members and epochs.
        training_flops: of training on them.
        evaluation_flops: of measuring snapshots and, where members may stop early, every epoch.
        snapshots: to be stored.
        bytes: weights to be stored.
    """

    architecture: Architecture
    members: int
    values: int
    training_images: int
    training_flops: int
    evaluation_flops: int
    snapshots: int
    bytes: int

    @property
    def flops(self) -> int:
        """FLOPs of training and evaluation."""
        return self.training_flops + self.evaluation_flops


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run before it starts.

    Where members may stop early, costs are those of members that use every epoch they have.

    Attributes:
        packs: what to train, in order.
        architectures: cost by architecture, the dearest first.
        may_stop_early: whether costs are upper bounds.
    """

    packs: tuple[PackPlan, ...]
    architectures: tuple[ArchitecturePlan, ...]
    may_stop_early: bool

    def total(self, quantity: str) -> int:
        """The sum of an attribute of ``ArchitecturePlan`` over all architectures."""
        return sum(getattr(part, quantity) for part in self.architectures)


def make_plan(
    members: Sequence[Member],
    context: Context,
    *,
    members_per_pack: int | None,
    dtype: str = "float32",
    faithful: bool = False,
) -> Plan:
    """Plan the training of members.

    Architectures with the most work come first, and in each the members with the most work, so that what is
    left at the end is small.

    Args:
        members: to be trained.
        context: settings and image sets.
        members_per_pack: how many members a pack gets in all (they need not all have a row at once); None: all
            of an architecture.
        dtype: of the stored weights.
        faithful: measure snapshots twice.
    """
    groups: dict[Architecture, list[Member]] = defaultdict(list)
    for member in members:
        groups[member.architecture].append(member)
    parts, packs = [], []
    for architecture, group in groups.items():
        values = Layout(architecture).size
        trained, measured = training_flops(architecture), 2 * forward_macs(architecture)
        images = [_training_images(member, context) for member in group]
        training = [count * trained for count in images]  # not in NumPy: FLOPs may go beyond 64 bits
        evaluation = [_evaluation_images(member, context, faithful) * measured for member in group]
        snapshots = sum(snapshot_count(context.settings.snapshots, member.setup.epochs) for member in group)
        parts.append(
            ArchitecturePlan(
                architecture=architecture,
                members=len(group),
                values=values,
                training_images=sum(images),
                training_flops=sum(training),
                evaluation_flops=sum(evaluation),
                snapshots=snapshots,
                bytes=snapshots * values * BYTES_PER_VALUE[dtype],
            )
        )
        work = list(map(operator.add, training, evaluation))
        order = sorted(range(len(group)), key=work.__getitem__, reverse=True)
        size = members_per_pack or len(group)
        packs += [
            PackPlan(
                architecture=architecture,
                members=tuple(group[index] for index in chosen),
                images=tuple(images[index] for index in chosen),
            )
            for chosen in (order[first : first + size] for first in range(0, len(group), size))
        ]
    cost = {part.architecture: part.flops for part in parts}
    return Plan(
        packs=tuple(sorted(packs, key=lambda pack: (-cost[pack.architecture], pack.architecture.name))),
        architectures=tuple(sorted(parts, key=lambda part: -part.flops)),
        may_stop_early=any(_may_stop(member, context) for group in groups.values() for member in group),
    )


def _may_stop(member: Member, context: Context) -> bool:
    return context.settings.early_stopping and member.setup.epochs > context.settings.min_epochs


def _training_images(member: Member, context: Context) -> int:
    setup = member.setup
    epoch = context.splits[setup.dataset].epoch_size(member, limit=setup.images_per_epoch)
    trained = min(steps_per_epoch(epoch, setup.batch_size) * setup.batch_size, epoch)
    return trained * setup.epochs


def _evaluation_images(member: Member, context: Context, faithful: bool) -> int:
    """Images measured for a member that uses all its epochs."""
    split, settings, epochs = context.splits[member.setup.dataset], context.settings, member.setup.epochs
    a_snapshot = sum(split.evaluated_size(member, part, settings) for part in PARTS)
    checks = (epochs - 1) * len(split.validation) if settings.early_stopping else 0
    return checks + a_snapshot * snapshot_count(settings.snapshots, epochs) * (2 if faithful else 1)
