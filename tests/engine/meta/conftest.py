"""Synthetic zoos: random weights, in which a test may plant what a model is to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wse.engine.nets import Activate, Architecture, BatchNorm, Conv, Flatten, Input, Layout, Linear, MaxPool
from wse.engine.zoo import MemberResult, Snapshot, Zoo, ZooWriter, plan_shards

from ...zoos import TIMING, manifest_of

SNAPSHOTS = 3
OPTIMIZERS = ("adam", "rmsprop", "sgd")
RATES = tuple(np.geomspace(1e-4, 1e-1, 29).tolist())

LAYOUTS = {
    name: Layout(
        Architecture(
            name=name,
            input=Input(size=8, color="grey"),
            layers=(
                Conv(channels=4, kernel=3),
                BatchNorm(),
                Activate(),
                MaxPool(),
                Conv(channels=channels, kernel=3),
                Activate(),
                Flatten(),
                Linear(features=6),
            ),
        )
    )
    for name, channels in (("small", 5), ("wide", 7))
}

# (weights [D] to be changed in place, layout, optimizer's index, learning rate, snapshot, generator)
Plant = Callable[[np.ndarray, Layout, int, float, int, np.random.Generator], None]


def nothing(weights: np.ndarray, layout: Layout, optimizer: int, rate: float, snapshot: int, rng: object) -> None:
    """A plant that plants nothing."""


def set_up(member: int) -> tuple[int, float]:
    """The optimizer's index and the learning rate of a member: independent of each other."""
    rng = np.random.default_rng([5, member])
    return int(rng.integers(3)), RATES[int(rng.integers(len(RATES)))]


@pytest.fixture
def make_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Zoo]:
    """Makes a zoo of random weights, ``plant`` having written into them; every seventh member is dead.

    With ``ended`` only so many members have ended, and the zoo is unfinished. Members have one of ``counts``
    snapshots, in turn.
    """
    monkeypatch.setattr("os.fsync", lambda descriptor: None)

    def make(
        plant: Plant = nothing,
        *,
        models: int = 90,
        ended: int | None = None,
        architectures: tuple[str, ...] = ("small",),
        counts: tuple[int, ...] = (SNAPSHOTS,),
        seed: int = 0,
    ) -> Zoo:
        folder = tmp_path / f"zoo-{len(list(tmp_path.iterdir()))}"
        names = [architectures[member % len(architectures)] for member in range(models)]
        manifest = manifest_of(
            {name: LAYOUTS[name] for name in architectures},
            seed=seed,
            models=models,
            space={"optimizer": list(OPTIMIZERS), "learning_rate": {"log_uniform": [1e-4, 1e-1]}},
            config_types={
                "dataset": "string",
                "optimizer": "string",
                "learning_rate": "double",
                "init_std": "double",
                "activation": "string",
                "augmentation": "bool",
            },
        )
        plans = plan_shards(list(enumerate(names)), dict.fromkeys(architectures, 10_000))
        writer = ZooWriter.create(folder, manifest, plans)
        for member, name in list(enumerate(names))[:ended]:
            writer.add(_member(member, name, plant, seed, counts[member % len(counts)]))
        if ended is not None:
            return Zoo.open(folder, unfinished=True)
        return Zoo.open(writer.finish(TIMING))

    return make


def _member(member: int, name: str, plant: Plant, seed: int, count: int) -> MemberResult:
    optimizer, rate = set_up(member)
    rng = np.random.default_rng([seed, member])
    snapshots = []
    for index in range(count):
        weights = rng.standard_normal(LAYOUTS[name].size).astype(np.float32)
        plant(weights, LAYOUTS[name], optimizer, rate, index, rng)
        accuracies = {f"{part}_accuracy": float(rng.uniform(0.1, 0.9)) for part in ("train", "validation", "test")}
        losses = {f"{part}_loss": 1.0 for part in ("train", "validation", "test")}
        snapshots.append(Snapshot(epoch=2 * index, step=20 * index, weights=weights, **accuracies, **losses))
    return MemberResult(
        id=member,
        architecture=name,
        status="dead" if member % 7 == 3 else "ok",
        config={
            "dataset": "digits",
            "optimizer": OPTIMIZERS[optimizer],
            "learning_rate": rate,
            "init_std": (1.0 if member % 16 == 13 else 0.5) if member % 2 else None,
            "activation": "relu",
            "augmentation": member % 4 < 2,
        },
        epochs=2 * (count - 1),
        steps=20 * (count - 1),
        predicted_classes=4,
        samples_trained=100,
        samples_evaluated=10,
        seconds=0.1,
        snapshots=tuple(snapshots),
    )
