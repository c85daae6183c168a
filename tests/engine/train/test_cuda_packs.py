"""Packs of several architectures at the same time: threads share a device, one of them at a time launches.

Without a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter, jit

from wse.engine.nets import initial_weights
from wse.engine.nets.layout import Layout
from wse.engine.scale.tasks import cut
from wse.engine.train import EvaluationRequest, Options, ReferenceBackend, Run
from wse.engine.train.cuda import CudaBackend
from wse.engine.train.cuda_device import Device, Fetched
from wse.engine.train.estimate import measure_speed
from wse.engine.zoo import Zoo

# NumPy warns of exponentials in the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TWO = {
    "width_conv": [2, 3],
    "depth_conv": 2,
    "batch_size": 2,
    "images_per_epoch": 3,
    "epochs": 2,
    "snapshots": 2,
    "training_images": 2,
    "validation_images": 2,
    "test_images": 2,
    "early_stopping": True,
    "min_epochs": 1,
    "stop_worse": 1,
}
SEED, MODELS = 3, 3  # of both architectures
PATIENCE = 60.0  # seconds, far more than it takes


def two(tiny_space, folder, backend, models=MODELS, **options):
    space = tiny_space("small-cnn", **TWO)
    return Run(Options(space=space, models=models, folder=folder, seed=SEED, **options), backend)


class Meeting(CudaBackend):
    """Its packs begin to train when all of them are open."""

    def __init__(self, packs, **options):
        super().__init__("fp32", evaluation_images=4, **options)
        self._all_there = threading.Barrier(packs, timeout=PATIENCE)

    def open(self, architecture, rows, context):
        pack = super().open(architecture, rows, context)
        advance, waited = pack.advance, []

        def advance_together():
            if not waited:
                waited.append(True)
                self._all_there.wait()
            return advance()

        pack.advance = advance_together
        return pack


def test_packs_train_at_the_same_time_and_alone_to_the_same_bits(device, tiny_space, tmp_path):
    together = two(tiny_space, tmp_path / "together", Meeting(2, device=device))
    assert together.workers == 2  # no more than there are packs
    assert together.execute()
    alone = two(tiny_space, tmp_path / "alone", CudaBackend("fp32", device=device, evaluation_images=4), threads=1)
    assert alone.workers == 1
    assert alone.execute()
    first, second = Zoo.open(tmp_path / "together"), Zoo.open(tmp_path / "alone")
    assert len(set(first.members["architecture"].to_pylist())) == 2
    for member in range(MODELS):
        np.testing.assert_array_equal(first[member].weights(), second[member].weights())
    for column in ("epochs", "train_loss", "validation_loss", "test_loss", "test_accuracy"):
        assert first.members[column].to_pylist() == second.members[column].to_pylist()


class Refusing(TorchDispatchMode):
    """Lets PyTorch do nothing when it is no thread's turn."""

    def __init__(self, has_turn):
        super().__init__()
        self.has_turn, self.done = has_turn, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.overloadpacket.__name__ not in ("detach", "alias"):  # what NumPy reads
            assert self.has_turn(), f"{operation} when it is nobody's turn"
            assert not _waits(operation, *args, **kwargs or {}), f"{operation} waits for the device"
            self.done += 1
        return operation(*args, **(kwargs or {}))


def _waits(operation, *args, non_blocking=False, **_):
    """Whether it is a copy from the host to a GPU behind which PyTorch waits."""
    if operation is not torch.ops.aten.copy_.default:
        return False
    to, of, *last = args
    return to.is_cuda and not of.is_cuda and not (non_blocking or any(last))


def test_all_that_the_device_does_is_begun_in_a_turn(device, tiny_space, context_of, monkeypatch):
    context = context_of(tiny_space("small-cnn", **TWO), seed=SEED)
    member = tiny_space("small-cnn", **TWO).members(SEED, [0])[0]
    backend = CudaBackend("fp32", device=device, evaluation_images=4)
    inside, launches = [], []

    turn = backend._device.turn

    @contextmanager
    def watched_turn():
        with turn():
            inside.append(True)
            yield
            inside.pop()

    monkeypatch.setattr(backend._device, "turn", watched_turn)
    kind, name = (jit.JITFunction, "run") if torch.cuda.is_available() else (interpreter.GridExecutor, "__call__")
    launch = getattr(kind, name)

    def watched_launch(self, *args, **kwargs):
        assert inside, "a launch when it is nobody's turn"
        launches.append(self)
        with torch.utils._python_dispatch._disable_current_modes():  # the interpreter's own copies
            return launch(self, *args, **kwargs)

    monkeypatch.setattr(kind, name, watched_launch)
    weights = initial_weights(Layout(member.architecture), "glorot_uniform", seed=SEED, member=0)
    request = EvaluationRequest(member=member, weights=weights, part="test")
    with Refusing(lambda: bool(inside)) as done:
        pack = backend.open(member.architecture, 2, context)
        pack.place(0, member, weights)
        pack.evaluate([request])  # in memory of its own
        pack.advance()
        pack.weights(0)
        state = pack.state(0)
        pack.weights(0)
        pack.restore(1, member, state)
        pack.evaluate([request])
        pack.advance()
        pack.release(0)
    assert done.done > 50
    assert len(launches) > 50


def test_turns_do_not_overlap(device):
    shared, busy, most = Device(device), [], []

    def work():
        for _ in range(20):
            with shared.turn():
                busy.append(True)
                time.sleep(0.001)
                most.append(len(busy))
                busy.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert set(most) == {1}


def test_a_turn_ends_with_an_error(device):
    shared = Device(device)
    with pytest.raises(ValueError, match="why not"), shared.turn():
        raise ValueError("why not")
    with shared.turn():
        fetched = Fetched(torch.arange(3, device=device), torch.ones(2, 2, device=device))
    numbers, ones = fetched.wait()
    np.testing.assert_array_equal(numbers, [0, 1, 2])
    np.testing.assert_array_equal(ones, np.ones((2, 2)))


def test_what_was_fetched_stays(device):
    shared = Device(device)
    with shared.turn():
        tensor = torch.arange(3, device=device)
        fetched = Fetched(tensor)
        tensor.zero_()
    np.testing.assert_array_equal(fetched.wait()[0], [0, 1, 2])


class Sharing(ReferenceBackend):
    """Has packs of all members of an architecture, and is told how many of them share the device."""

    workers = 16
    members_per_pack = None

    def __init__(self):
        super().__init__()
        self.told = set()

    def rows(self, architecture, members, packs=1):
        self.told.add(packs)
        return 1


@pytest.mark.parametrize(("threads", "at_a_time"), [(None, 2), (1, 1)])
def test_packs_share_the_memory(threads, at_a_time, tiny_space, tmp_path):
    backend = Sharing()
    run = two(tiny_space, tmp_path / "zoo", backend, threads=threads)
    assert run.workers == at_a_time
    assert run.execute()
    assert backend.told == {at_a_time}


def test_a_pack_alone_has_all_the_memory(tiny_space, tmp_path):
    backend = Sharing()
    (pack, *_) = two(tiny_space, tmp_path / "zoo", backend, models=1).plan.packs
    assert two(tiny_space, tmp_path / "zoo", backend, models=1).wanted_rows(pack) == 1
    assert backend.told == {1}


def test_an_estimate_counts_a_shared_device_once(tiny_space, tmp_path):
    run = two(tiny_space, tmp_path / "zoo", Sharing())
    assert run.workers == 2
    assert measure_speed(run).workers == 1


def test_a_worker_is_given_several_small_packs(tiny_space, tmp_path):
    run = two(tiny_space, tmp_path / "zoo", Sharing(), models=40)
    whole, parts = cut(run, range(40), 1), cut(run, range(40), 6)
    assert [sorted(task.left) for task in whole] == [list(range(40))]
    assert sorted(member for task in parts for member in task.left) == list(range(40))
    assert max(len(task.left) for task in parts) == 7
    assert len(parts) <= 6 + 2
