"""Small nets, and zoos with a signal planted into random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from wse.engine.nets import Activate, Architecture, BatchNorm, Conv, Flatten, Input, Layout, Linear
from wse.engine.zoo import MemberResult, Snapshot, Zoo, ZooWriter, plan_shards

from ....zoos import TIMING, manifest_of


def tiny_net(source: Any, outputs: int) -> nn.Module:
    """A perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(source.length, 32), nn.ReLU(), nn.Linear(32, outputs))


def _architecture(name: str, channels: int) -> Architecture:
    layers = (Conv(channels=channels, kernel=3), BatchNorm(), Activate(), Flatten(), Linear(features=10))
    return Architecture(name=name, input=Input(size=6, color="grey"), layers=layers)


LAYOUTS = {name: Layout(_architecture(name, channels)) for name, channels in (("narrow", 2), ("wide", 4))}

# Gives the weights of a member from (its number, its layout, random numbers of its own).
Plant = Callable[[int, Layout, np.random.Generator], NDArray[np.float32]]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Zoo]:
    """Makes a zoo of two snapshots a member, whose weights a function gives."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)

    def make(plant: Plant, models: int, architectures: tuple[str, ...] = ("narrow", "wide")) -> Zoo:
        layouts = {name: LAYOUTS[name] for name in architectures}
        manifest = manifest_of(layouts, seed=1, models=models, config_types={"number": "int64"})
        names = [architectures[member % len(architectures)] for member in range(models)]
        writer = ZooWriter.create(
            tmp_path / "zoo", manifest, plan_shards(list(enumerate(names)), dict.fromkeys(architectures, 1))
        )
        for member, name in enumerate(names):
            writer.add(_result(member, name, plant))
        return Zoo.open(writer.finish(TIMING))

    return make


def _result(member: int, name: str, plant: Plant) -> MemberResult:
    parts, figures = ("train", "validation", "test"), ("loss", "accuracy")
    return MemberResult(
        id=member,
        architecture=name,
        status="ok",
        config={"number": member},
        epochs=1,
        steps=1,
        predicted_classes=10,
        samples_trained=1,
        samples_evaluated=1,
        seconds=0.1,
        snapshots=tuple(
            Snapshot(
                epoch=index,
                step=index,
                weights=plant(member, LAYOUTS[name], np.random.default_rng([member, index])).astype(np.float32),
                **{f"{part}_{figure}": 0.5 for part in parts for figure in figures},
            )
            for index in range(2)
        ),
    )
