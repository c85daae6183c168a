"""How long a run would take on this machine, from a few seconds of the same work."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ..nets import Layout, forward_macs, initial_weights, training_flops
from ..space import Member
from .backend import Backend, Context, EvaluationRequest
from .plan import Plan
from .run import Run
from .threads import Threads

_SAMPLED_PACKS = 3
_CALIBRATION_STEPS = 8
_CALIBRATION_IMAGES = 1000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan takes on this machine.

    Attributes:
        seconds: if every member uses all its epochs.
        least_seconds: if every member stops as early as it may; None where members cannot stop early.
    """

    seconds: float
    least_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What this machine does a second.

    Attributes:
        training: FLOP/s of one worker that trains.
        evaluation: FLOP/s of one worker that evaluates.
        workers: at the same time, of those that share a device one. They are taken to be as fast together as one
            is alone, so on a busy machine, or one whose cores share their units, a run takes longer.
    """

    training: float
    evaluation: float
    workers: int

    def seconds(self, plan: Plan) -> float:
        """Of a plan of which every member uses all its epochs."""
        busy = plan.total("training_flops") / self.training + plan.total("evaluation_flops") / self.evaluation
        return busy / self.workers

    def estimate(self, run: Run) -> Estimate:
        """What the plan of a run takes."""
        seconds, least = self.seconds(run.plan), None
        if run.plan.may_stop_early:
            longest = max(member.setup.epochs for member in run.members)
            least = seconds * run.options.space.settings.min_epochs / longest
        return Estimate(seconds=seconds, least_seconds=least)


def measure_speed(run: Run) -> Speed:
    """Train and evaluate a few batches of up to three packs of a plan.

    Raises:
        Interrupted: the run was asked to stop.
    """
    packs = run.plan.packs
    chosen = dict.fromkeys(packs[len(packs) * index // _SAMPLED_PACKS] for index in range(_SAMPLED_PACKS))
    run.backend.prepare({pack.architecture for pack in chosen}, run.context)
    samples = [_calibrate(run.backend, pack.members[: run.rows(pack)], run.context) for pack in chosen]
    training = sum(sample.training_flops for sample in samples) / sum(s.training_seconds for s in samples)
    evaluation = sum(s.evaluation_flops for s in samples) / sum(s.evaluation_seconds for s in samples)
    sharing = Threads().workers(run) if run.backend.workers else 1
    return Speed(training=training, evaluation=evaluation, workers=-(-run.workers // sharing))


@dataclass(frozen=True, kw_only=True)
class _Sample:
    training_flops: int
    training_seconds: float
    evaluation_flops: int
    evaluation_seconds: float


def _calibrate(backend: Backend, members: Sequence[Member], context: Context) -> _Sample:
    """Time members that train side by side."""
    architecture = members[0].architecture
    members = [_shortened(member) for member in members]
    splits = {
        name: dataclasses.replace(context.splits[name], test=context.splits[name].test[:_CALIBRATION_IMAGES])
        for name in {member.setup.dataset for member in members}
    }
    pack = backend.open(architecture, len(members), dataclasses.replace(context, splits=splits))
    layout, requests = Layout(architecture), []
    for row, member in enumerate(members):
        weights = initial_weights(layout, "glorot_uniform", seed=member.seed, member=member.id)
        pack.place(row, member, weights)
        requests.append(EvaluationRequest(member=member, weights=weights, part="test"))
    pack.advance()  # the first epoch warms caches and allocators
    started = time.perf_counter()
    images = sum(end.images for end in pack.advance())
    trained = time.perf_counter()
    measured = sum(evaluation.images for evaluation in pack.evaluate(requests))
    evaluated = time.perf_counter()
    return _Sample(
        training_flops=images * training_flops(architecture),
        training_seconds=trained - started,
        evaluation_flops=measured * 2 * forward_macs(architecture),
        evaluation_seconds=evaluated - trained,
    )


def _shortened(member: Member) -> Member:
    """The member with epochs of a few steps."""
    setup = member.setup
    images = _CALIBRATION_STEPS * setup.batch_size
    short = msgspec.structs.replace(setup, images_per_epoch=images, learning_rate_schedule="constant")
    return dataclasses.replace(member, setup=short)
