"""What the trainer hands over of a member, and the same without its weights.

Accuracies are fractions from 0 to 1, losses mean cross-entropies in nats; both may be NaN or infinite in a
member that diverged.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .format import Record

Status = Literal["ok", "dead", "diverged"]
STATUSES: tuple[Status, ...] = ("ok", "dead", "diverged")
Value = str | int | float | bool | None

METRICS = (
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "test_loss",
    "test_accuracy",
)
FAITHFUL_METRICS = tuple(f"faithful_{metric}" for metric in METRICS)


class SnapshotRecord(Record, frozen=True, kw_only=True):
    """What is known of a member at one time.

    Attributes:
        epoch: epochs trained before it.
        step: optimizer steps taken before it.
        train_loss, train_accuracy, validation_loss, validation_accuracy, test_loss, test_accuracy: measured
            with the weights of that time in eval mode on un-augmented images.
        faithful_train_loss, ...: the same six measured as in the "faithful" protocol; None where the run does
            not ask for them.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float
    faithful_train_loss: float | None = None
    faithful_train_accuracy: float | None = None
    faithful_validation_loss: float | None = None
    faithful_validation_accuracy: float | None = None
    faithful_test_loss: float | None = None
    faithful_test_accuracy: float | None = None

    @property
    def generalization_gap(self) -> float:
        """Training accuracy less test accuracy."""
        return self.train_accuracy - self.test_accuracy


class Snapshot(SnapshotRecord, frozen=True, kw_only=True):
    """A member at one time, with its weights.

    Attributes:
        weights: [D] float32.
    """

    weights: NDArray[np.float32]

    def record(self) -> SnapshotRecord:
        """Everything but the weights, in plain Python numbers."""
        return SnapshotRecord(
            epoch=int(self.epoch),
            step=int(self.step),
            **{metric: _plain(getattr(self, metric)) for metric in (*METRICS, *FAITHFUL_METRICS)},
        )


class MemberRecord(Record, frozen=True, kw_only=True):
    """What is known of a member that has been trained.

    Attributes:
        id: of the member.
        architecture: name of its architecture.
        status: "ok", "dead" (it never learned) or "diverged" (its weights stopped being finite).
        config: its set-up: property -> value; None where a property does not apply.
        epochs: epochs trained.
        steps: optimizer steps taken.
        predicted_classes: how many classes its last weights ever predict on the test images.
        samples_trained: images it was trained on, counted each time.
        samples_evaluated: images it was measured on, counted each time.
        seconds: time its training and measuring took.
        snapshots: in the order of time; the last one's metrics are the member's final metrics.
    """

    id: int
    architecture: str
    status: Status
    config: dict[str, Value]
    epochs: int
    steps: int
    predicted_classes: int
    samples_trained: int
    samples_evaluated: int
    seconds: float
    snapshots: tuple[SnapshotRecord, ...]


class MemberResult(MemberRecord, frozen=True, kw_only=True):
    """A member that has been trained, with its weights."""

    snapshots: tuple[Snapshot, ...]

    def record(self) -> MemberRecord:
        """Everything but the weights, in plain Python numbers."""
        return MemberRecord(
            id=int(self.id),
            architecture=self.architecture,
            status=self.status,
            config=dict(self.config),
            epochs=int(self.epochs),
            steps=int(self.steps),
            predicted_classes=int(self.predicted_classes),
            samples_trained=int(self.samples_trained),
            samples_evaluated=int(self.samples_evaluated),
            seconds=float(self.seconds),
            snapshots=tuple(snapshot.record() for snapshot in self.snapshots),
        )


def _plain(metric: float | None) -> Any:
    return None if metric is None else float(metric)
