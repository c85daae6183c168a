"""What is measured of a member's snapshots, and how it becomes their rows in the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..space import Member
from ..zoo import Snapshot
from .backend import Evaluation, EvaluationRequest, Weights
from .split import PARTS


def measurements(member: Member, chosen: Mapping[int, Weights], *, faithful: bool) -> list[EvaluationRequest]:
    """All that is measured of snapshots.

    Args:
        member: whose.
        chosen: epoch -> weights float32 [D].
        faithful: also as the original study did.
    """
    return [
        EvaluationRequest(member=member, weights=weights, part=part, faithful=mode)
        for weights in chosen.values()
        for mode in _modes(faithful)
        for part in PARTS
    ]


def measured_snapshots(
    chosen: Mapping[int, Weights], evaluations: Iterable[Evaluation], *, steps_per_epoch: int, faithful: bool
) -> tuple[tuple[Snapshot, ...], int]:
    """Snapshots with what was measured of them.

    Args:
        chosen: as for ``measurements``.
        evaluations: of its requests, in their order.
        steps_per_epoch: of the member.
        faithful: as for ``measurements``.

    Returns:
        The snapshots, and how many classes the last one ever predicts on the test images.
    """
    following = iter(evaluations)
    snapshots = []
    predicted_classes = 0
    for epoch, weights in chosen.items():
        measured = {}
        for mode in _modes(faithful):
            for part in PARTS:
                evaluation = next(following)
                name = f"{'faithful_' if mode else ''}{'train' if part == 'training' else part}"
                measured[f"{name}_loss"] = evaluation.loss
                measured[f"{name}_accuracy"] = evaluation.accuracy
                if part == "test" and not mode:
                    predicted_classes = int(np.count_nonzero(evaluation.predicted))
        snapshots.append(Snapshot(epoch=epoch, step=epoch * steps_per_epoch, weights=weights, **measured))
    return tuple(snapshots), predicted_classes


def _modes(faithful: bool) -> tuple[bool, ...]:
    return (False, True) if faithful else (False,)
