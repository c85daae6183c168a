"""Random damage is noticed: `benchmarks/flip_bits.py` does the same a thousand times, on trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flip_bits import Trial, trials

from wse.engine.zoo import Zoo, integrity, shards, verify
from wse.engine.zoo.shards import Shard

from .conftest import Maker, contents


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_damage_is_noticed_and_never_read(tmp_path: Path, dtype: str) -> None:
    zoo = Maker().having(dtype=dtype).make(tmp_path / "zoo")
    before = contents(zoo.folder)
    done = list(trials(zoo.folder, 120, seed=3))
    assert [trial for trial in done if not trial.passed] == []
    assert {trial.kind for trial in done} == {"zoo.json", "members.parquet", "snapshots.parquet", "shard"}
    assert all(trial.found for trial in done)
    assert contents(zoo.folder) == before
    assert zoo.verify() == []


def unchecked(self: Shard, row: int, snapshot: int) -> np.ndarray[Any, Any]:
    return self._numbers[row, snapshot]


def test_what_would_be_read_is_told(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checksums of snapshots, and with a verify that looks at nothing, trials fail."""
    monkeypatch.setattr(shards.Shard, "stored", unchecked)
    monkeypatch.setattr(verify, "file_problem", lambda *_: None)
    failed = [trial for trial in trials(zoo.folder, 60, seed=3) if not trial.passed]
    assert {trial.kind for trial in failed} == {"shard"}
    assert any(trial.misread for trial in failed)


def test_a_crash_is_told(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity.hashlib, "file_digest", lambda *_: 1 / 0)
    (trial,) = trials(zoo.folder, 1, seed=0)
    assert trial.crash == "ZeroDivisionError: division by zero"
    assert not trial.passed


def test_what_nobody_notices_does_not_pass() -> None:
    assert not Trial(kind="shard", how="", refused=False, found=False, misread=(), crash=None).passed
    assert Trial(kind="shard", how="", refused=False, found=True, misread=(), crash=None).passed
