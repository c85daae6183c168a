"""Zoos with random weights, for benchmarks of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..nets import Layout
from ..zoo import (
    ArchitectureEntry,
    Manifest,
    MemberResult,
    Snapshot,
    Timing,
    ZooWriter,
    plan_shards,
)


def make_random_zoo(folder: Path, layout: Layout, *, members: int, snapshots: int) -> None:
    """Write a zoo of one architecture, float32, through ``ZooWriter``.

    Args:
        folder: missing or empty.
        layout: of all members.
        members: how many.
        snapshots: of each of them.

    Raises:
        UsageError: the folder has something in it.
        WseError: a file cannot be written.
    """
    name = layout.architecture.name
    manifest = Manifest(
        wse_version="benchmark",
        software={},
        seed=0,
        models=members,
        space={},
        labels="eval",
        backend="none",
        precision="fp32",
        dtype="float32",
        image_sets={},
        architectures={name: ArchitectureEntry.of(layout)},
        config_types={"optimizer": "string", "learning_rate": "double"},
    )
    plans = plan_shards(((id_, name) for id_ in range(members)), {name: 4 * layout.size * snapshots})
    writer = ZooWriter.create(folder, manifest, plans)
    rng = np.random.default_rng(0)
    measured = dict.fromkeys(
        ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "test_loss"), 0.5
    )
    for member in range(members):
        weights = rng.standard_normal((snapshots, layout.size), np.float32)
        writer.add(
            MemberResult(
                id=member,
                architecture=name,
                status="ok",
                config={"optimizer": ("sgd", "adam")[member % 2], "learning_rate": rng.random()},
                epochs=snapshots,
                steps=snapshots,
                predicted_classes=10,
                samples_trained=0,
                samples_evaluated=0,
                seconds=1.0,
                snapshots=tuple(
                    Snapshot(epoch=index, step=index, weights=row, test_accuracy=rng.random(), **measured)
                    for index, row in enumerate(weights)
                ),
            )
        )
    writer.finish(Timing(started="", finished="", seconds={}))
