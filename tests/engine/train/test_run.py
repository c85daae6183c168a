"""Whole runs on tiny spaces: exactness whatever the company, resuming, labels, and what cannot be done."""

from __future__ import annotations

import shutil
import threading
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from zoo_content import but_times, content

from wse.engine.data import load
from wse.engine.errors import UsageError, WseError
from wse.engine.nets import Layout, initial_weights
from wse.engine.train import Memo, Options, ReferenceBackend, Run, Threads, resolve_options
from wse.engine.train.log import LOGGED, Log, logged_facts
from wse.engine.train.threads import _Worker
from wse.engine.zoo import TARGET_BYTES, Zoo

from ...zoos import events, flip_bit
from .conftest import make, run_of


@pytest.fixture(scope="module")
def alone(tiny_space, tmp_path_factory) -> Path:
    """Six members over several architectures, trained one after the other."""
    folder = tmp_path_factory.mktemp("alone") / "zoo"
    make(tiny_space(), folder)
    return folder


@pytest.mark.parametrize("company", [{}, {"threads": 2}, {"rows": 2}, {"rows": 6, "threads": 3}], ids=str)
def test_company_does_not_matter(company: dict[str, int], alone: Path, tiny_space, tmp_path: Path) -> None:
    make(tiny_space(), tmp_path / "zoo", **company)
    assert but_times(tmp_path / "zoo") == but_times(alone)


def test_rows_are_refilled(tiny_space, tmp_path: Path) -> None:
    space = tiny_space("small-cnn", epochs=[1, 2, 3], batch_size=16)
    make(space, tmp_path / "packed", models=7, rows=2)
    make(space, tmp_path / "alone", models=7)
    assert but_times(tmp_path / "packed") == but_times(tmp_path / "alone")


class Preparing(ReferenceBackend):
    """Prepares until it is asked to stop."""

    def prepare(self, architectures, context):
        deadline = time.monotonic() + 60
        while not context.should_stop():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_whoever_takes_the_reports_can_stop_a_run_that_prepares(tiny_space, tmp_path: Path) -> None:
    options = Options(space=tiny_space(), folder=tmp_path / "zoo", models=6, device="reference")
    run = Run(options, Preparing())
    reports = Threads().reports(run, range(6), run.checkpoints(Memo()))
    assert next(reports).result is None
    run.stop()
    assert all(report.result is None for report in reports)


def test_order_does_not_matter(alone: Path, tiny_space, tmp_path: Path, monkeypatch) -> None:
    run = run_of(tiny_space(), tmp_path / "zoo")
    plan = run.plan
    reversed_plan = type(plan)(
        packs=plan.packs[::-1], architectures=plan.architectures, may_stop_early=plan.may_stop_early
    )
    monkeypatch.setattr(run, "plan_of", lambda members: reversed_plan)
    assert run.execute()
    assert but_times(tmp_path / "zoo") == but_times(alone)


def test_a_larger_population_begins_with_the_smaller(alone: Path, tiny_space, tmp_path: Path) -> None:
    larger = make(tiny_space(), tmp_path / "zoo", models=8)
    smaller = Zoo.open(alone)
    for member in smaller:
        np.testing.assert_array_equal(larger[member].weights(), smaller[member].weights())
        assert larger[member].config == smaller[member].config


def test_the_first_snapshot_is_the_initialisation(alone: Path, tiny_space) -> None:
    zoo, space = Zoo.open(alone), tiny_space()
    for member in space.members(7, range(6)):
        expected = initial_weights(
            Layout(member.architecture),
            member.setup.initialization,
            seed=7,
            member=member.id,
            std=member.setup.init_std or 1.0,
            constant=space.settings.init_constant,
            gamma_std=space.settings.gamma_std,
        )
        np.testing.assert_array_equal(zoo[member.id].weights()[0], expected)
        epochs = [snapshot["epoch"] for snapshot in zoo[member.id].snapshots]
        assert epochs == [0, 1, 2]


def test_a_module_has_exactly_the_recorded_test_accuracy(tiny_space, tmp_path: Path) -> None:
    zoo = make(tiny_space(test_images="all"), tmp_path / "zoo")
    digits = load("digits")
    images = torch.from_numpy(np.array(digits.test_images)).permute(0, 3, 1, 2) / 255
    for member in zoo:
        for index, snapshot in enumerate(zoo[member].snapshots):
            with torch.no_grad():
                predicted = zoo[member].module(index)(images).argmax(dim=1).numpy()
            assert (predicted == digits.test_labels).mean() == snapshot["test_accuracy"]
        assert zoo[member].record["test_accuracy"] == snapshot["test_accuracy"]


class Stopping:
    """Asks a run to stop when it has stored a number of members."""

    def __init__(self, run: Run, after: int) -> None:
        self._store, self._run, self._left = run._store, run, after
        run._store = self  # type: ignore[method-assign]

    def __call__(self, *arguments) -> None:
        self._store(*arguments)
        self._left -= 1
        if self._left == 0:
            self._run.stop()


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_stopped_run_resumes_to_the_same_zoo(after: int, alone: Path, tiny_space, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    run = run_of(tiny_space(), folder)
    Stopping(run, after)
    assert not run.execute()
    assert run.progress().members >= after
    with pytest.raises(WseError, match=f"{run.progress().members} of 6.*--resume"):
        Zoo.open(folder)
    resumed = run_of(tiny_space(), folder, resume=True)
    assert resumed.execute()
    assert resumed.progress().members == 6
    assert len(resumed.progress().accuracies) == 6 - run.progress().members
    assert but_times(folder) == but_times(alone)
    told = [event["event"] for event in events(folder)]
    assert told.count("start") == 2
    assert told.count("member") == 6
    assert told[-1] == "end"


def test_resuming_a_complete_zoo_changes_nothing(alone: Path, tiny_space) -> None:
    before = content(alone)
    assert run_of(tiny_space(), alone, resume=True).execute()
    assert content(alone) == before


def test_resuming_another_run_is_refused(alone: Path, tiny_space) -> None:
    for change in ({"seed": 8}, {"models": 5}, {"space": tiny_space(epochs=3)}):
        with pytest.raises(UsageError, match=next(iter(change))):
            run_of(**{"space": tiny_space(), "folder": alone, "resume": True, **change}).execute()


def test_a_folder_that_is_taken_is_refused(alone: Path, tiny_space, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        make(tiny_space(), alone)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(UsageError, match="letters"):
            make(tiny_space(), tmp_path / "letters", **options)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"


def test_overwrite_replaces_a_zoo(tiny_space, tmp_path: Path) -> None:
    make(tiny_space(), tmp_path / "zoo", models=3)
    assert len(make(tiny_space(), tmp_path / "zoo", models=2, overwrite=True)) == 2


def test_early_stopping_ends_members_at_different_times(tiny_space, tmp_path: Path) -> None:
    space = tiny_space(epochs=30, early_stopping=True, min_epochs=3, stop_worse=2, stop_flat=3, stop_below=3)
    zoo = make(space, tmp_path / "zoo", models=8)
    epochs = zoo.members["epochs"].to_pylist()
    assert all(3 <= count <= 30 for count in epochs)
    assert len(set(epochs)) > 1
    for member in zoo:
        assert [s["epoch"] for s in zoo[member].snapshots] == [
            0,
            round(zoo[member].record["epochs"] / 2),
            epochs[member],
        ]


def test_a_diverged_member_is_kept_and_flagged(tiny_space, tmp_path: Path) -> None:
    space = tiny_space("small-cnn", learning_rate=[1e-3, 1e30], optimizer="sgd", batch_size=16, activation="relu")
    zoo = make(space, tmp_path / "zoo", models=8)
    rates = zoo.members["config.learning_rate"].to_pylist()
    statuses = zoo.members["status"].to_pylist()
    assert {status == "diverged" for rate, status in zip(rates, statuses, strict=True) if rate > 1} == {True}
    assert "diverged" not in {status for rate, status in zip(rates, statuses, strict=True) if rate < 1}
    lost = zoo[statuses.index("diverged")]
    assert [snapshot["epoch"] for snapshot in lost.snapshots] == [0]
    assert np.isfinite(lost.weights()).all()


def test_a_network_that_answers_one_class_is_dead(tiny_space, tmp_path: Path) -> None:
    zoo = make(tiny_space("small-cnn", learning_rate=1e-9, batch_size=16, init_std=1e-9, initialization="normal"),
               tmp_path / "zoo", models=2)  # fmt: skip
    assert zoo.members["predicted_classes"].to_pylist() == [1, 1]
    assert zoo.members["status"].to_pylist() == ["dead", "dead"]


def test_faithful_labels_stand_beside_the_right_ones(alone: Path, tiny_space, tmp_path: Path) -> None:
    zoo = make(tiny_space(), tmp_path / "zoo", faithful=True)
    plain = Zoo.open(alone)
    for member in zoo:
        np.testing.assert_array_equal(zoo[member].weights(), plain[member].weights())
    table = zoo.snapshots
    assert table["test_accuracy"] == plain.snapshots["test_accuracy"]
    assert table["faithful_test_loss"].null_count == 0
    assert table["faithful_test_loss"] != table["test_loss"]


def test_a_full_disk_is_seen_before_training(tiny_space, tmp_path: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(WseError, match=r"has 1\.0 kB free: make room, or take fewer --models, fewer snapshots"):
        Run(Options(space=tiny_space(), models=6, folder=tmp_path / "zoo")).execute()
    assert not (tmp_path / "zoo").exists()


def test_what_is_settled_is_no_advice_on_a_full_disk(tiny_space, tmp_path: Path, monkeypatch) -> None:
    make(tiny_space(), tmp_path / "zoo", models=1)
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(WseError, match=r"free: make room, or take fewer --models$"):
        run_of(tiny_space(), tmp_path / "zoo", models=2, resume=True).execute()


def test_a_run_killed_between_storing_and_telling_tells_later(tiny_space, tmp_path: Path, monkeypatch) -> None:
    """Else the members table could not be made again, should it be lost."""

    def killed(_log: Log, _member: object) -> None:
        raise KeyboardInterrupt

    run = run_of(tiny_space(), tmp_path / "zoo", models=3)
    with monkeypatch.context() as patch:
        patch.setattr(Log, "write_member", killed)
        with pytest.raises(KeyboardInterrupt):
            run.execute()
    assert events(tmp_path / "zoo", "member") == []
    zoo = make(tiny_space(), tmp_path / "zoo", models=3, resume=True)
    told = events(tmp_path / "zoo", "member")
    assert sorted(event["id"] for event in told) == [0, 1, 2]
    table = zoo.members.select(["id", *LOGGED]).to_pylist()
    assert logged_facts(zoo.folder) == {row.pop("id"): row for row in table}


def test_what_is_trained_again_is_told_again(tiny_space, tmp_path: Path, monkeypatch) -> None:
    """The log may tell of a member that is lost, and the run be killed before it tells of the new one."""
    folder = tmp_path / "zoo"
    run = run_of(tiny_space(), folder, models=3)
    store = run._store
    monkeypatch.setattr(run, "_store", lambda *given: (store(*given), run.stop()))
    assert not run.execute()
    assert len(events(folder, "member")) == 1
    (stored,) = [*(folder / "journal").glob("*.safetensors"), *(folder / "shards").iterdir()]
    flip_bit(stored)

    def killed(_log: Log, _member: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Log, "write_member", killed)
        with pytest.raises(KeyboardInterrupt):
            run_of(tiny_space(), folder, models=3, resume=True).execute()
    zoo = make(tiny_space(), folder, models=3, resume=True)
    table = zoo.members.select(["id", *LOGGED]).to_pylist()
    assert logged_facts(folder) == {row.pop("id"): row for row in table}


def test_a_run_that_goes_on_is_told_to_have_its_own_images_again(tiny_space, tmp_path: Path) -> None:
    """Other image sets would make another zoo of it."""
    labels, images = np.arange(48) % 12, np.zeros((48, 4, 4), np.uint8)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/hours.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    make(tiny_space(dataset="hours"), tmp_path / "zoo", models=1, data_dir=tmp_path / "data")
    told = r"of this run are not here \(hours\): see `wse data` .*; if hours is of your own, name the folder"
    with pytest.raises(UsageError, match=told):
        resolve_options(models=2, folder=tmp_path / "zoo", resume=True)
    with pytest.raises(UsageError, match=r"--datasets .* name the folder of hours\.npz by --data-dir or WSE_DATA"):
        resolve_options(models=2, folder=tmp_path / "new", overrides=["dataset=hours"])


def test_classes_need_outputs(tiny_space, tmp_path: Path) -> None:
    labels = np.arange(48) % 12
    images = np.zeros((48, 4, 4), np.uint8)
    np.savez(tmp_path / "hours.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    given = {"data_dir": tmp_path, "models": 2}
    assert run_of(tiny_space(dataset="hours"), tmp_path / "zoo", **given).execute()
    assert Zoo.open(tmp_path / "zoo").manifest.image_sets["hours"].classes == 12
    with pytest.raises(UsageError, match="'hours' has 12 classes, and these networks tell 10 apart at most"):
        run_of(tiny_space("small-cnn", dataset="hours"), tmp_path / "small", **given)


def test_the_disk_that_counts_is_the_folder_s_own(tiny_space, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=1000 if path == folder else 10**12)
    )
    with pytest.raises(WseError, match=f"{folder} has 1.0 kB free"):
        run_of(tiny_space(), folder).check_resources()


def test_a_shard_needs_room_beside_the_pieces_it_is_made_of(tiny_space, tmp_path: Path, monkeypatch) -> None:
    run = run_of(tiny_space(width_fc=4096, snapshots=2), tmp_path / "zoo", models=12)
    assert run.plan.total("bytes") > TARGET_BYTES
    free = run.plan.total("bytes") + run._training_bytes() + TARGET_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(WseError, match="what is to be trained needs"):
        run.check_resources()
    free += TARGET_BYTES
    run.check_resources()


def test_an_error_in_a_worker_ends_the_run(tiny_space, tmp_path: Path, monkeypatch) -> None:
    run = Run(Options(space=tiny_space(), models=6, folder=tmp_path / "zoo", threads=3))

    def fail(*arguments, **named):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("wse.engine.train.trainer.initial_weights", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        run.execute()


@pytest.mark.parametrize("stopped", [False, True])
def test_no_worker_outlives_the_run(stopped: bool, tiny_space, tmp_path: Path, monkeypatch) -> None:
    work = _Worker.run

    def lingering(worker: _Worker) -> None:
        work(worker)
        time.sleep(0.2)

    monkeypatch.setattr(_Worker, "run", lingering)
    run = Run(Options(space=tiny_space(), models=2, folder=tmp_path / "zoo", threads=2))
    if stopped:
        run.stop()
    assert run.execute() is not stopped
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker-")]


def test_seconds_add_up(alone: Path) -> None:
    seconds = Zoo.open(alone).manifest.timing.seconds
    stages = seconds["training"] + seconds["evaluation"]
    assert 0 < stages <= seconds["total"] * seconds["workers"]
    assert seconds["overhead"] == pytest.approx(1 - stages / (seconds["total"] * seconds["workers"]), abs=1e-3)
