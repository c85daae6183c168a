"""A damaged zoo is mended to the same bits, whatever is damaged and whenever the repair is killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from zoo_content import content

from wse.engine.errors import UsageError, WseError
from wse.engine.space import Space
from wse.engine.train import Run, plan_repair, repair, trainer
from wse.engine.zoo import Lock, Zoo, find_problems
from wse.engine.zoo.format import write_manifest

from ...zoos import flip_bit
from .conftest import make, run_of

SHARD = "shards"


@pytest.fixture(scope="module")
def whole(tiny_space, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight members of several architectures, some of which stop early."""
    space = tiny_space(epochs=4, early_stopping=True, min_epochs=2, stop_worse=1, depth_conv=[3, 4], depth_fc=3)
    return make(space, tmp_path_factory.mktemp("repair") / "zoo", models=8).folder


@pytest.fixture
def zoo(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "zoo"))


def shards(folder: Path) -> list[Path]:
    return sorted((folder / SHARD).iterdir())


def mend(folder: Path, **options) -> bool:
    opened = Zoo.open(folder)
    return repair(opened, plan_repair(opened, find_problems(opened)), **options)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit of a shard": lambda zoo: flip_bit(shards(zoo)[0]),
    "a header": lambda zoo: flip_bit(shards(zoo)[1], 20),
    "a shard is cut": lambda zoo: shards(zoo)[0].write_bytes(b"short"),
    "a shard is missing": lambda zoo: shards(zoo)[-1].unlink(),
    "all shards are missing": lambda zoo: shutil.rmtree(zoo / SHARD),
    "members": lambda zoo: flip_bit(zoo / "members.parquet"),
    "snapshots": lambda zoo: (zoo / "snapshots.parquet").unlink(),
    "leftovers": lambda zoo: ((zoo / "journal").mkdir(), (zoo / ".zoo.json.00ff00ff.tmp").write_text("x")),
    "all": lambda zoo: (
        shutil.rmtree(zoo / SHARD),
        flip_bit(zoo / "members.parquet"),
        flip_bit(zoo / "snapshots.parquet"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_mended_zoo_is_the_same_zoo(damage: Callable[[Path], None], whole: Path, zoo: Path) -> None:
    damage(zoo)
    assert Zoo.open(zoo).verify() != []
    assert mend(zoo)
    assert content(zoo) == content(whole)
    assert Zoo.open(zoo).verify() == []


@pytest.mark.parametrize(
    "changes",
    [{"device": "cpu"}, {"dtype": "float16"}, {"faithful": True}],
    ids=str,
)
def test_zoos_of_every_kind(changes: dict[str, object], tiny_space, tmp_path: Path) -> None:
    folder = make(tiny_space("small-cnn"), tmp_path / "zoo", models=3, **changes).folder
    before = content(folder)
    flip_bit(shards(folder)[0])
    (folder / "members.parquet").unlink()
    if changes.get("dtype") is None:
        (folder / "snapshots.parquet").unlink()
    assert mend(folder)
    assert content(folder) == before


def test_a_member_that_diverged(tiny_space, tmp_path: Path) -> None:
    """Its snapshots end early, and it counts an epoch that none of them shows."""
    space = tiny_space("small-cnn", learning_rate=[1e-3, 1e30], optimizer="sgd", batch_size=16, activation="relu")
    folder = make(space, tmp_path / "zoo", models=8).folder
    before = content(folder)
    assert Zoo.open(folder).manifest.counts["diverged"] > 0
    for name in ("members.parquet", "snapshots.parquet"):
        (folder / name).unlink()
    assert mend(folder)
    assert content(folder) == before


def test_only_what_is_damaged_is_trained_and_written(zoo: Path) -> None:
    damaged, *others = shards(zoo)
    flip_bit(damaged)
    before = {path: path.stat().st_mtime_ns for path in (*others, *zoo.glob("*.parquet"), zoo / "zoo.json")}
    trained = []

    def execute(run: Run) -> bool:
        trained.extend(member.id for member in run.members)
        return run.execute()

    members = Zoo.open(zoo).members.to_pylist()
    assert mend(zoo, execute=execute)
    assert trained == [member["id"] for member in members if member["shard"] == damaged.name]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_zoo_that_a_run_has_changed_since_it_was_looked_at_is_left_alone(zoo: Path) -> None:
    """Looking takes long; to the zoo of before, the journal of a run that was begun and stopped is a leftover."""
    opened = Zoo.open(zoo)
    grown = {"space": Space.from_config(opened.manifest.space), "folder": zoo, "models": 9, "resume": True}
    stopped = run_of(**grown)
    stopped.stop()
    assert not stopped.execute()
    plan = plan_repair(opened, find_problems(opened))
    assert zoo / "journal" in plan.leftovers
    with pytest.raises(UsageError, match="has changed"):
        repair(opened, plan)
    rest = run_of(**grown)
    assert rest.execute()
    assert len(rest.progress().accuracies) == 1


class Killed(BaseException):
    """The process ends here: nothing after this changes the disk."""


def kill_at(patch: pytest.MonkeyPatch, at: int | None) -> list[str]:
    """Ends the process at the n-th call that changes the disk; the calls so far."""
    calls: list[str] = []

    def wrap(name: str, call: Callable):
        def wrapped(*args, **kwargs):
            if at is not None and len(calls) >= at:
                raise Killed
            calls.append(name)
            return call(*args, **kwargs)

        patch.setattr(os, name, wrapped)

    for name in ("fsync", "replace", "unlink", "rmdir", "mkdir"):
        wrap(name, getattr(os, name))
    return calls


def readable(folder: Path) -> set[object]:
    """What can be read: tables, and members by id."""
    opened = Zoo.open(folder)
    found: set[object] = set()
    for name, read in (("members", lambda: opened.members), ("snapshots", lambda: opened.snapshots)):
        try:
            read()
            found.add(name)
        except WseError:
            pass
    for member in range(8) if "members" in found else ():
        try:
            opened[member].weights()
            found.add(member)
        except WseError:
            pass
    return found


def test_killed_at_every_step(whole: Path, zoo: Path, tmp_path: Path) -> None:
    """A killed repair leaves the zoo as readable as it was, and the next one ends it."""
    expected = content(whole)
    for path in shards(zoo)[:2]:
        flip_bit(path)
    flip_bit(zoo / "snapshots.parquet")
    before = readable(zoo)
    assert "members" in before
    assert "snapshots" not in before
    counted = Path(shutil.copytree(zoo, tmp_path / "counted"))
    with pytest.MonkeyPatch.context() as patch:
        calls = kill_at(patch, None)
        assert mend(counted)
    assert len(calls) > 40
    for at in (*range(0, len(calls) - 12, 11), *range(len(calls) - 12, len(calls), 3)):
        folder = Path(shutil.copytree(zoo, tmp_path / f"killed-{at}"))
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, at)
            with pytest.raises(Killed):
                mend(folder)
        assert readable(folder) >= before, f"killed at call {at}, {calls[at]}"
        (folder / "zoo.lock").unlink(missing_ok=True)  # which the next run may take over, and need not
        assert mend(folder)
        assert content(folder) == expected, f"killed at call {at}, {calls[at]}"


def test_an_interrupted_repair_goes_on(whole: Path, zoo: Path) -> None:
    flip_bit(shards(zoo)[0])
    before = content(zoo)

    def stop_soon(run: Run) -> bool:
        run.stop()
        return run.execute()

    assert not mend(zoo, execute=stop_soon)
    assert {name: stored for name, stored in content(zoo).items() if not name.startswith("repair/")} == before
    assert [p.text for p in find_problems(Zoo.open(zoo)) if p.file == zoo / "repair"] == [
        "it was left by a run or a repair that was killed"
    ]
    assert mend(zoo)
    assert content(zoo) == content(whole)


def test_two_repairs_at_once(zoo: Path) -> None:
    flip_bit(shards(zoo)[0])
    lock = Lock(zoo)
    with pytest.raises(UsageError, match="is being written by process"):
        mend(zoo)
    lock.release()
    assert mend(zoo)


def test_other_bits_are_never_put_in_place(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that computes otherwise."""
    flip_bit(shards(zoo)[0])
    before = content(zoo)
    real = trainer.initial_weights
    monkeypatch.setattr(trainer, "initial_weights", lambda *a, **k: np.nextafter(real(*a, **k), np.float32(9)))
    with pytest.raises(WseError, match=r"safetensors stays damaged: trained again.*restore it from a copy"):
        mend(zoo)
    assert content(zoo) == before


def test_a_table_that_comes_out_otherwise_is_not_put_in_place(zoo: Path) -> None:
    (zoo / "members.parquet").unlink()
    log = zoo / "log.jsonl"
    log.write_text(log.read_text().replace('"samples_trained": ', '"samples_trained": 1'))
    with pytest.raises(WseError, match=r"members.parquet stays damaged: made again"):
        mend(zoo)
    assert not (zoo / "members.parquet").exists()


def beyond(folder: Path) -> dict[str, str]:
    opened = Zoo.open(folder)
    plan = plan_repair(opened, find_problems(opened))
    assert not plan
    return {problem.file.name: problem.text for problem in plan.beyond}


def test_a_log_that_tells_too_little(zoo: Path) -> None:
    for name in ("members.parquet", "snapshots.parquet"):
        (zoo / name).unlink()
    log = zoo / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(line for line in lines if '"id": 3' not in line))
    told = beyond(zoo)
    assert "is there for 7 of 8" in told["members.parquet"]
    assert "another file, which cannot be mended" in told["snapshots.parquet"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"backend": "cuda"}, "on a GPU"),
        ({"wse_version": "0.0.9"}, "only wse 0.0.9"),
        ({"dtype": "float16"}, None),
    ],
    ids=str,
)
def test_what_cannot_be_trained_again(zoo: Path, changes: dict[str, str], told: str | None) -> None:
    write_manifest(zoo, msgspec.structs.replace(Zoo.open(zoo).manifest, **changes))
    (zoo / "snapshots.parquet").unlink()
    if told is None:
        assert "before the weights were rounded" in beyond(zoo)["snapshots.parquet"]
        return
    flip_bit(shards(zoo)[0])
    assert told in beyond(zoo)[shards(zoo)[0].name]
    assert told in beyond(zoo)["snapshots.parquet"]


def test_files_of_others_are_left_alone(zoo: Path) -> None:
    (zoo / "notes.txt").write_text("mine")
    assert beyond(zoo) == {"notes.txt": "it is not of the zoo: move it elsewhere"}
    assert mend(zoo)
    assert (zoo / "notes.txt").read_text() == "mine"
