"""Checkpoints: a run that is stopped or killed inside members ends in the same zoo, and wrong files are found."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from zoo_content import but_times

from wse.engine.errors import UsageError, WseError
from wse.engine.files import atomic_write
from wse.engine.nets import Layout, initial_weights
from wse.engine.train import Interrupted, ReferenceBackend, Run
from wse.engine.train.backend import RowState
from wse.engine.train.checkpoints import Checkpoint, Checkpoints, Counters, Due
from wse.engine.train.cpu import CpuBackend
from wse.engine.train.cuda import CudaBackend
from wse.engine.train.log import Log
from wse.engine.train.schedule import SnapshotKeeper, StoppingCounters
from wse.engine.zoo import Zoo
from wse.kernels.optim import STATE_SLOTS

from ...zoos import events
from .conftest import run_of as any_run
from .test_cuda_run import small_run

# Early stopping at different epochs, and a stride of held snapshots that doubles before.
WATCHED = {
    "epochs": 24,
    "early_stopping": True,
    "min_epochs": 8,
    "stop_worse": 3,
    "stop_flat": 3,
    "stop_below": 5,
    "images_per_epoch": 48,
}


@pytest.fixture(autouse=True)
def _asked_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wse.engine.train.cpu.CHUNK_SECONDS", 0.0)


run_of = partial(any_run, models=5, device="auto", checkpoint_seconds=0)


def stop_at(run: Run, question: int) -> None:
    """Make the run stop when it asks for the n-th time whether to: between two batches trained on or measured."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        if asked >= question:
            run.stop()
        return run.is_stopping

    run.context = dataclasses.replace(run.context, should_stop=should_stop)


def in_sittings(space, folder: Path, question: int, **options) -> None:
    """Run to the end, stopping each sitting at its n-th question."""
    complete = False
    while not complete:
        run = run_of(space, folder, **options, resume=folder.exists())
        stop_at(run, question)
        complete = run.execute()
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("company", [{}, {"rows": 3}], ids=str)
def test_a_run_of_many_sittings_makes_the_same_zoo(device: str, company, tiny_space, tmp_path: Path) -> None:
    space = tiny_space(optimizer=["adam", "rmsprop", "momentum", "sgd"], epochs=3, dropout=0.3)
    assert run_of(space, tmp_path / "alone", device=device).execute()
    in_sittings(space, tmp_path / "zoo", 17, device=device, **company)
    assert but_times(tmp_path / "zoo") == but_times(tmp_path / "alone")
    assert len(events(tmp_path / "zoo", "resumed")) > 5
    assert {event["epochs"] for event in events(tmp_path / "zoo", "resumed")} >= {1, 2}
    assert not events(tmp_path / "zoo", "note")


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("form", ["tf1", "torch"])
def test_early_stopping_and_held_snapshots_go_on(
    device: str, form: str, tiny_space, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("wse.engine.train.schedule.HELD_SNAPSHOTS", 4)
    space = tiny_space(**WATCHED, optimizer_form=form)
    assert run_of(space, tmp_path / "alone", device=device).execute()
    in_sittings(space, tmp_path / "zoo", 23, device=device)
    assert but_times(tmp_path / "zoo") == but_times(tmp_path / "alone")
    epochs = [event["epochs"] for event in events(tmp_path / "alone", "member")]
    assert len(set(epochs)) > 1
    assert max(epochs) > 12, "no stride has doubled twice"


def test_a_diverged_member_goes_on_to_its_end(tiny_space, tmp_path: Path) -> None:
    space = tiny_space("small-cnn", learning_rate=1e30, optimizer="sgd", batch_size=16, activation="relu")
    assert run_of(space, tmp_path / "alone", device="reference", models=2).execute()
    in_sittings(space, tmp_path / "zoo", 5, device="reference", models=2)
    assert but_times(tmp_path / "zoo") == but_times(tmp_path / "alone")
    assert {event["status"] for event in events(tmp_path / "zoo", "member")} == {"diverged"}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of exponentials in Triton's interpreter
def test_packs_that_step_together_go_on(device: str, tiny_space, tmp_path: Path, monkeypatch) -> None:
    """Members of two and of four steps an epoch side by side: one is inside an epoch when the other ends it."""
    monkeypatch.setattr("wse.engine.train.cuda_pack.STEPS_AT_A_TIME", 1)

    def run(folder: Path) -> Run:
        backend = CudaBackend("fp32", device=device, evaluation_images=20)
        return small_run(tiny_space, folder, backend, batch_size=[2, 4], images_per_epoch=8, depth_conv=1)

    assert run(tmp_path / "alone").execute()
    sittings, complete = 0, False
    while not complete:
        again = run(tmp_path / "zoo")
        again.options = dataclasses.replace(again.options, resume=sittings > 0)
        stop_at(again, 11)
        complete = again.execute()
        sittings += 1
    assert sittings > 2
    assert len(events(tmp_path / "zoo", "resumed")) > 2
    assert but_times(tmp_path / "zoo") == but_times(tmp_path / "alone")


class Killed(Exception):  # noqa: N818 - what ends the run is not its error
    """Stands for the end of the process."""


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_killed_run_goes_on_from_its_last_checkpoints(
    device: str, tiny_space, tmp_path: Path, monkeypatch
) -> None:
    space, folder = tiny_space(epochs=4), tmp_path / "zoo"
    assert run_of(space, tmp_path / "alone", device=device).execute()
    with monkeypatch.context() as patch:
        run = run_of(space, folder, device=device)
        opened = run.backend.open

        def opening(*arguments):
            pack = opened(*arguments)
            advance, advanced = pack.advance, 0

            def advance_or_die():
                nonlocal advanced
                advanced += 1
                if advanced == 4:
                    raise Killed
                return advance()

            patch.setattr(pack, "advance", advance_or_die)
            return pack

        patch.setattr(run.backend, "open", opening)
        with pytest.raises(Killed):
            run.execute()
    assert [path.name for path in (folder / "checkpoints").iterdir()] != []
    resumed = run_of(space, folder, device=device, resume=True)
    assert resumed.execute()
    assert [event["epochs"] for event in events(folder, "resumed")] == [3]
    assert but_times(folder) == but_times(tmp_path / "alone")
    assert resumed.progress().flops == resumed.progress().planned_flops, "what was done before is not planned"


def test_damaged_and_foreign_checkpoints_are_never_used(tiny_space, tmp_path: Path) -> None:
    space, folder = tiny_space(), tmp_path / "zoo"
    assert run_of(space, tmp_path / "alone", device="reference").execute()
    run = run_of(space, folder, device="reference")
    stop_at(run, 3)
    assert not run.execute()
    [path] = (folder / "checkpoints").iterdir()
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (folder / "checkpoints" / ".000001.safetensors.0123.tmp").write_bytes(b"half")
    (folder / "checkpoints" / "999999.safetensors").write_bytes(good)
    others = {int(path.stem), 999_999}
    other = next(member for member in range(5) if member not in others)
    (folder / "checkpoints" / f"{other:06d}.safetensors").write_bytes(good)
    assert run_of(space, folder, device="reference", resume=True).execute()
    notes = [event["text"] for event in events(folder, "note")]
    assert len(notes) == 2
    assert any("is damaged" in note and f"member {int(path.stem)} begins anew" in note for note in notes)
    assert any("is of another run" in note and f"member {other} begins anew" in note for note in notes)
    assert not events(folder, "resumed")
    assert but_times(folder) == but_times(tmp_path / "alone")


def test_a_checkpoint_of_another_seed_is_of_another_run(tiny_space, tmp_path: Path) -> None:
    for seed in (7, 8):
        run = run_of(tiny_space(), tmp_path / str(seed), device="reference", seed=seed)
        stop_at(run, 3)
        assert not run.execute()
    [there] = (tmp_path / "7" / "checkpoints").iterdir()
    shutil.copy(there, tmp_path / "8" / "checkpoints")
    assert run_of(tiny_space(), tmp_path / "8", device="reference", seed=8, resume=True).execute()
    assert any(f"{there.name}: it is of another run" in event["text"] for event in events(tmp_path / "8", "note"))


@pytest.mark.parametrize("backend", [ReferenceBackend(), CpuBackend()], ids=lambda backend: backend.name)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop", "adam"])
def test_a_state_goes_back_into_another_row(backend, optimizer: str, tiny_space, context_of) -> None:
    space = tiny_space(optimizer=optimizer, batch_size=16)
    [member], context = space.members(0, [0]), context_of(space)
    layout = Layout(member.architecture)
    pack = backend.open(member.architecture, 2, context)
    pack.place(0, member, initial_weights(layout, "glorot_uniform", seed=0, member=0))
    pack.advance()
    asked: list[bool] = []
    pack._context = pack._rows[0]._context = dataclasses.replace(  # stop after the second step of four
        context, should_stop=lambda: asked.append(True) or len(asked) > 2
    )
    with pytest.raises(Interrupted):
        pack.advance()
    state = pack.state(0)
    assert (state.epoch, len(state.losses)) == (2, 2)
    assert state.optimizer.shape == (STATE_SLOTS[optimizer], layout.size)
    np.testing.assert_array_equal(state.weights, pack.weights(0))
    pack.restore(1, member, state)
    again = pack.state(1)
    for name in ("weights", "optimizer", "losses"):
        assert getattr(again, name).tobytes() == getattr(state, name).tobytes()
    assert again.epoch == state.epoch


def test_overwriting_removes_checkpoints(tiny_space, tmp_path: Path) -> None:
    run = run_of(tiny_space(), tmp_path / "zoo", device="reference")
    stop_at(run, 3)
    assert not run.execute()
    assert any((tmp_path / "zoo" / "checkpoints").iterdir())
    assert run_of(tiny_space(), tmp_path / "zoo", device="reference", overwrite=True).execute()
    assert events(tmp_path / "zoo", "resumed") == []
    assert Zoo.open(tmp_path / "zoo").verify() == []


def test_a_full_disk_ends_the_run_with_one_line(tiny_space, tmp_path: Path, monkeypatch) -> None:
    space, folder = tiny_space(epochs=4), tmp_path / "zoo"
    assert run_of(space, tmp_path / "alone", device="reference").execute()
    written = 0

    @contextmanager
    def filling(path: Path):
        nonlocal written
        written += 1
        with atomic_write(path) as file:
            yield file
            if written >= 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("wse.engine.train.checkpoints.atomic_write", filling)
        with pytest.raises(WseError, match=r"cannot write .*checkpoints.*No space left.*--resume"):
            run_of(space, folder, device="reference").execute()
    assert run_of(space, folder, device="reference", resume=True).execute()
    assert [event["epochs"] for event in events(folder, "resumed")] == [2]
    assert but_times(folder) == but_times(tmp_path / "alone")


@pytest.fixture
def kept(tiny_space, tmp_path: Path) -> tuple[Checkpoints, Checkpoint]:
    """A place for checkpoints, and a checkpoint that has everything."""
    run = run_of(tiny_space(), tmp_path, device="reference")
    checkpoints = Checkpoints(tmp_path, run.manifest, seconds=300, log=Log(tmp_path))
    checkpoints.start({3})
    values = np.random.default_rng(0).normal(size=(6, 11)).astype(np.float32)
    values[0, 0] = np.nan
    return checkpoints, Checkpoint(
        member=3,
        row=RowState(weights=values[0], optimizer=values[1:3], epoch=5, losses=np.array([0.5, np.inf])),
        counters=Counters(epochs=4, steps_per_epoch=9, samples_trained=10**12, seconds=0.1 + 0.2),
        stopping=StoppingCounters(epochs=4, worse=1, last=1 / 3, average=2 / 3),
        last=values[3],
        held={0: values[4], 2: values[5]},
        stride=2,
    )


def test_what_is_read_is_what_was_saved(kept: tuple[Checkpoints, Checkpoint]) -> None:
    checkpoints, checkpoint = kept
    checkpoints.save(checkpoint)
    found = checkpoints.load(3)
    assert found is not None
    for name in ("member", "counters", "stopping", "stride"):
        assert getattr(found, name) == getattr(checkpoint, name)
    assert (found.row.epoch, list(found.held)) == (5, [0, 2])
    for ours, theirs in [
        (found.row.weights, checkpoint.row.weights),
        (found.row.optimizer, checkpoint.row.optimizer),
        (found.row.losses, checkpoint.row.losses),
        (found.last, checkpoint.last),
        *zip(found.held.values(), checkpoint.held.values(), strict=True),
    ]:
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()
    assert checkpoints.load(4) is None


def test_every_damage_is_seen(kept: tuple[Checkpoints, Checkpoint]) -> None:
    checkpoints, checkpoint = kept
    checkpoints.save(checkpoint)
    path = checkpoints.path(3)
    good = path.read_bytes()
    damages = [good[:length] for length in range(0, len(good), 37)] + [good + b"\0"]
    for bit in range(8 * len(good)):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        damages.append(bytes(flipped))
    for content in damages:
        path.write_bytes(content)
        assert checkpoints.load(3) is None
        assert not path.exists()
    path.write_bytes(good)
    assert checkpoints.load(3) is not None


def test_nothing_is_saved_after_closing(kept: tuple[Checkpoints, Checkpoint]) -> None:
    checkpoints, checkpoint = kept
    checkpoints.close()
    checkpoints.save(checkpoint)
    assert checkpoints.load(3) is None


def test_checkpoints_are_due_by_a_monotonic_clock(kept: tuple[Checkpoints, Checkpoint], monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.time", lambda: 0.0)
    due = Due(kept[0])
    seen = []
    for took in (1.0, 10.0):  # the second time is so long that the pause is too
        began = now
        while not due:
            now += 1
        seen.append(now - began)
        began, now = now, now + took
        due.taken(began)
    began = now
    while not due:
        now += 1
    assert [*seen, now - began] == [300, 300, 1000]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_impossible_intervals_are_refused(seconds: float, tiny_space, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="checkpoint_seconds"):
        run_of(tiny_space(), tmp_path / "zoo", checkpoint_seconds=seconds)


def test_held_snapshots_of_a_known_number_of_epochs_need_no_stride() -> None:
    keeper = SnapshotKeeper(3, epochs=4, may_stop=False)
    for epoch in range(5):
        keeper.keep(epoch, np.zeros(1, np.float32))
    assert (list(keeper.held), keeper.stride) == ([0, 2, 4], 1)
