"""A zoo gets more members, or fewer: what it has stays, and it becomes what it would have been at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.train import Run
from wse.engine.zoo import Zoo, merge_zoos, read_manifest, writer

from ...zoos import flip_bit
from .conftest import run_of

SEED = 7


def run(space, folder: Path, models: int, **options) -> Run:
    return run_of(space, folder, **{"models": models, "seed": SEED, **options})


def assert_same_members(zoo: Zoo, other: Zoo) -> None:
    places = ["shard", "row", "seconds"]
    assert zoo.members.drop_columns(places).equals(other.members.drop_columns(places))
    assert zoo.snapshots.equals(other.snapshots)
    for member in other:
        np.testing.assert_array_equal(zoo[member].weights(), other[member].weights())
    assert zoo.manifest.counts == other.manifest.counts
    assert zoo.manifest.cost == other.manifest.cost
    assert zoo.manifest.architectures == other.manifest.architectures


@pytest.fixture(scope="module")
def at_once(tiny_space, tmp_path_factory) -> Zoo:
    folder = tmp_path_factory.mktemp("at-once") / "zoo"
    assert run(tiny_space(), folder, 6).execute()
    return Zoo.open(folder)


@pytest.fixture(scope="module")
def four(tiny_space, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("four") / "zoo"
    assert run(tiny_space(), folder, 4).execute()
    return folder


@pytest.fixture
def small(four: Path, tmp_path: Path) -> Path:
    """A zoo of four that may be changed."""
    return shutil.copytree(four, tmp_path / "zoo")


def test_a_grown_zoo_has_the_members_of_one_made_at_once(at_once: Zoo, small: Path, tiny_space) -> None:
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in (small / "shards").iterdir()}
    for models in (5, 6):
        growing = run(tiny_space(), small, models, resume=True)
        assert growing.execute()
        assert len(growing.progress().accuracies) == 1
    zoo = Zoo.open(small)
    assert zoo.verify() == []
    assert_same_members(zoo, at_once)
    assert zoo.manifest.grown_from == (4, 5)
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in before} == before
    assert run(tiny_space(), small, 6, resume=True).execute()
    assert_same_members(Zoo.open(small), at_once)


def test_a_grown_zoo_is_merged_like_one_made_at_once(
    at_once: Zoo, small: Path, tiny_space, tmp_path: Path
) -> None:
    assert run(tiny_space(), small, 6, resume=True).execute()
    other = tmp_path / "other"
    assert run(tiny_space(), other, 1, seed=SEED + 1).execute()
    merge_zoos([small, other], tmp_path / "merged")
    merged = Zoo.open(tmp_path / "merged")
    assert merged.verify() == []
    assert [entry.models for entry in merged.manifest.sources] == [6, 1]
    for member in at_once:
        np.testing.assert_array_equal(merged[member].weights(), at_once[member].weights())
        assert merged[member].config == at_once[member].config


def test_a_run_that_has_not_ended_can_grow(at_once: Zoo, tiny_space, tmp_path: Path) -> None:
    begun = run(tiny_space(), tmp_path / "zoo", 4)
    kept = begun._store

    def store_and_stop(*given) -> None:
        kept(*given)
        begun.stop()

    begun._store = store_and_stop
    assert not begun.execute()
    assert run(tiny_space(), tmp_path / "zoo", 6, resume=True).execute()
    assert_same_members(Zoo.open(tmp_path / "zoo"), at_once)


def test_growing_that_is_stopped_goes_on(at_once: Zoo, small: Path, tiny_space) -> None:
    stopped = run(tiny_space(), small, 6, resume=True)
    stopped.stop()
    assert not stopped.execute()
    assert stopped.progress().members == 4
    with pytest.raises(WseError, match=r"4 of 6.*--resume"):
        Zoo.open(small)
    assert run(tiny_space(), small, 6, resume=True).execute()
    assert_same_members(Zoo.open(small), at_once)


def test_a_crash_before_growing_leaves_the_zoo_complete(
    at_once: Zoo, small: Path, tiny_space, monkeypatch
) -> None:
    def crash(*given) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as broken:
        broken.setattr(writer, "write_manifest", crash)
        with pytest.raises(OSError, match="power"):
            run(tiny_space(), small, 6, resume=True).execute()
    assert len(Zoo.open(small)) == 4
    assert run(tiny_space(), small, 6, resume=True).execute()
    assert_same_members(Zoo.open(small), at_once)


def test_a_damaged_shard_is_made_again_while_growing(at_once: Zoo, small: Path, tiny_space) -> None:
    shard = min((small / "shards").iterdir())
    flip_bit(shard)
    assert run(tiny_space(), small, 6, resume=True).execute()
    assert_same_members(Zoo.open(small), at_once)


def files(folder: Path) -> dict[str, bytes]:
    """All but what has times in it."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name not in ("log.jsonl", "zoo.json")}


def test_members_that_were_asked_for_are_taken_back(small: Path, tiny_space) -> None:
    before, made = files(small), read_manifest(small)
    grown = run(tiny_space(), small, 6, resume=True, checkpoint_seconds=0)

    keep = grown.checkpoints

    def checkpoints(log):
        kept = keep(log)
        save = kept.save

        def save_and_stop(checkpoint) -> None:
            save(checkpoint)
            grown.stop()

        kept.save = save_and_stop
        return kept

    grown.checkpoints = checkpoints
    assert not grown.execute()
    assert any((small / "checkpoints").iterdir())
    again = run(tiny_space(), small, 4, resume=True)
    assert again.look() == 4
    assert again.taken_back == 2
    assert again.execute()
    assert files(small) == before
    shrunk = read_manifest(small)
    assert msgspec.structs.replace(shrunk, timing=None) == msgspec.structs.replace(made, timing=None)
    assert Zoo.open(small).verify() == []


def test_members_are_taken_back_to_a_size_between(at_once: Zoo, small: Path, tiny_space) -> None:
    for models in (5, 9, 7):
        stopped = run(tiny_space(), small, models, resume=True)
        if models > 5:
            stopped.stop()
        assert stopped.execute() is (models == 5)
    assert read_manifest(small).grown_from == (4, 5)
    assert run(tiny_space(), small, 6, resume=True).execute()
    assert_same_members(Zoo.open(small), at_once)
    assert Zoo.open(small).verify() == []


def test_two_runs_that_were_made_before_either_began_do_not_both_grow_a_zoo(small: Path, tiny_space) -> None:
    first, second = run(tiny_space(), small, 6, resume=True), run(tiny_space(), small, 5, resume=True)
    assert second.execute()
    before = files(small)
    with pytest.raises(UsageError, match="other members than a moment ago"):
        first.execute()
    assert files(small) == before
    assert Zoo.open(small).verify() == []


def test_what_is_stored_is_not_taken_back(small: Path, tiny_space) -> None:
    grown = run(tiny_space(), small, 9, resume=True)
    kept = grown._store

    def store_and_stop(*given) -> None:
        kept(*given)
        grown.stop()

    grown._store = store_and_stop
    assert not grown.execute()
    before = files(small)
    with pytest.raises(UsageError, match=r"has 5 of 9 models stored, and 1 of these would be lost with only 4"):
        run(tiny_space(), small, 4, resume=True).execute()
    assert files(small) == before
    assert read_manifest(small).models == 9


def test_more_than_fits_leaves_the_zoo_complete(small: Path, tiny_space, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    with pytest.raises(WseError, match="what is to be trained needs"):
        run(tiny_space(), small, 6, resume=True).execute()
    assert len(Zoo.open(small)) == 4


def test_what_cannot_grow_is_refused(small: Path, tiny_space) -> None:
    with pytest.raises(UsageError, match=r"4 of 4 models stored, and 1 of these .* only 3: ask for 4 or more"):
        run(tiny_space(), small, 3, resume=True).execute()
    with pytest.raises(UsageError, match=r"space\.epochs"):
        run(tiny_space(epochs=3), small, 6, resume=True).execute()
    (small / "snapshots.parquet").write_bytes(b"nothing")
    with pytest.raises(WseError, match=r"snapshots\.parquet"):
        run(tiny_space(), small, 6, resume=True).execute()
    assert read_manifest(small).status == "complete"
