"""Tiny zoos with random weights and two architectures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from wse.engine.nets import Activate, Architecture, BatchNorm, Conv, Flatten, Input, Layout, Linear, MaxPool
from wse.engine.zoo import (
    Manifest,
    MemberResult,
    ShardPlan,
    Snapshot,
    Zoo,
    ZooWriter,
    plan_shards,
)

from ...zoos import TIMING, manifest_of

SMALL_INPUT = Input(size=5, color="grey")
LAYOUTS = {
    "norm": Layout(
        Architecture(
            name="norm",
            input=SMALL_INPUT,
            layers=(Conv(channels=3, kernel=3), BatchNorm(), Activate(), MaxPool(), Flatten(), Linear(features=2)),
        )
    ),
    "plain": Layout(
        Architecture(
            name="plain",
            input=SMALL_INPUT,
            layers=(Conv(channels=2, kernel=2), Activate(), Flatten(), Linear(features=3)),
        )
    ),
}


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here survives a power cut anyway, and hundreds of fsyncs are slow."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def member_result(member: int, *, seed: int = 0) -> MemberResult:
    """Every third member is plain; member 4 diverged after its first snapshot, 5 before it."""
    name = "plain" if member % 3 == 2 else "norm"
    rng = np.random.default_rng([seed, member])
    diverged = member in (4, 5)
    count = {4: 1, 5: 0}.get(member, 3)
    size = LAYOUTS[name].size
    return MemberResult(
        id=member,
        architecture=name,
        status="diverged" if diverged else "dead" if member == 1 else "ok",
        config={
            "optimizer": ("sgd", "adam", "rmsprop")[member % 3],
            "activation": "relu",
            "batch_size": 32 << (member % 2),
            "learning_rate": 0.1 / (member + 1),
            "momentum": None if member % 2 else 0.9,
            "augmented": member % 2 == 0,
        },
        epochs=2 * count,
        steps=20 * count,
        predicted_classes=1 + member % 2,
        samples_trained=100 + member,
        samples_evaluated=10,
        seconds=0.25 * member,
        snapshots=tuple(
            Snapshot(
                epoch=2 * index,
                step=20 * index,
                weights=rng.standard_normal(size).astype(np.float32),
                train_loss=float("nan") if diverged else rng.random(),
                train_accuracy=rng.random(),
                validation_loss=float("inf") if diverged else rng.random(),
                validation_accuracy=rng.random(),
                test_loss=rng.random(),
                test_accuracy=rng.random(),
            )
            for index in range(count)
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Maker:
    """What one tiny run needs; ``shard_members`` sets how many members go into a shard."""

    models: int = 8
    shard_members: int = 2
    manifest: Manifest = field(
        default_factory=lambda: manifest_of(
            LAYOUTS,
            software={"numpy": "2.4.6", "torch": "2.13.0"},
            seed=7,
            models=8,
            space={"name": "tiny", "epochs": 2, "optimizers": ["sgd", "adam", "rmsprop"], "rate": {"low": 1e-5}},
            config_types={
                "optimizer": "string",
                "activation": "string",
                "batch_size": "int64",
                "learning_rate": "double",
                "momentum": "double",
                "augmented": "bool",
            },
        )
    )

    def having(self, **changes: object) -> Maker:
        """The same with other entries of the manifest."""
        return replace(self, manifest=msgspec.structs.replace(self.manifest, **changes))

    @property
    def plans(self) -> list[ShardPlan]:
        members = [(member, member_result(member).architecture) for member in range(self.models)]
        return plan_shards(members, dict.fromkeys(LAYOUTS, 1), target_bytes=self.shard_members)

    def create(self, folder: Path) -> ZooWriter:
        return ZooWriter.create(folder, self.manifest, self.plans)

    def resume(self, folder: Path) -> ZooWriter:
        return ZooWriter.resume(folder, self.manifest, self.plans)

    def complete(self, writer: ZooWriter) -> Path:
        """Add what is missing and finish."""
        for member in range(self.models):
            if member not in writer.finished:
                writer.add(member_result(member))
        return writer.finish(TIMING)

    def make(self, folder: Path) -> Zoo:
        return Zoo.open(self.complete(self.create(folder)))


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def zoo(maker: Maker, tmp_path: Path) -> Zoo:
    return maker.make(tmp_path / "zoo")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def name_other_members(shard: Path) -> None:
    """Let the header of the shard of members 6 and 7 name 0 and 1."""
    content = shard.read_bytes()
    assert content.count(b"[6,7]") == 1
    shard.write_bytes(content.replace(b"[6,7]", b"[0,1]"))


@pytest.fixture
def expected(maker: Maker, tmp_path: Path) -> dict[str, bytes]:
    return contents(maker.complete(maker.create(tmp_path / "undisturbed")))
