"""The same zoo wherever its members train, and whatever dies meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.scale import Processes, cut, executor_for
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

BASE = {"threads": 1, "seed": 7, "device": "reference", "models": 6}


def start(space, folder: Path, **options) -> Run:
    return Run(Options(**{"space": space, "folder": folder, **BASE, **options}))


def identity(folder: Path) -> dict[str, object]:
    """Everything in a zoo but times."""
    zoo = Zoo.open(folder)
    described = json.loads((folder / "zoo.json").read_text())
    for name in ("timing", "checksum", "tables"):
        del described[name]
    return {
        "zoo.json": described,
        "members": zoo.members.drop_columns(["seconds"]).to_pylist(),
        "snapshots": (folder / "snapshots.parquet").read_bytes(),
        **{path.name: path.read_bytes() for path in (folder / "shards").iterdir()},
    }


def kill_a_worker() -> None:
    """The first worker process, killed as the kernel does when memory is short."""
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def alone(tiny_space, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "zoo"
    assert start(tiny_space(), folder).execute()
    return folder


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_make_the_same_zoo(processes: int, alone: Path, tiny_space, tmp_path: Path) -> None:
    run = start(tiny_space(), tmp_path / "zoo")
    assert run.execute(Processes(processes))
    assert identity(tmp_path / "zoo") == identity(alone)
    assert run.workers == processes
    assert run.work().training_images == run.plan.total("training_images")
    assert run.work().training_seconds > 0
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_replaced(alone: Path, tiny_space, tmp_path: Path, monkeypatch, capfd) -> None:
    run = start(tiny_space(), tmp_path / "zoo")
    store, stored = run._store, []

    def store_and_kill(result, writer, log) -> None:
        store(result, writer, log)
        stored.append(result.id)
        if len(stored) == 2:
            kill_a_worker()

    monkeypatch.setattr(run, "_store", store_and_kill)
    assert run.execute(Processes(2))
    assert sorted(stored) == list(range(6))
    assert "a worker ended (signal 9)" in capfd.readouterr().err
    assert identity(tmp_path / "zoo") == identity(alone)


def test_workers_that_always_die_end_the_run(tiny_space, tmp_path: Path) -> None:
    run = start(tiny_space(epochs=200, images_per_epoch=None), tmp_path / "zoo", models=1)
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.2):
            for child in multiprocessing.active_children():
                child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(
            WseError, match=r"workers ended 3 times while they trained members 0 of .* \(signal 9\)"
        ):
            run.execute(Processes(1))
    finally:
        over.set()
        killer.join()


def test_resumed_by_another_executor(alone: Path, tiny_space, tmp_path: Path, monkeypatch) -> None:
    run = start(tiny_space(), tmp_path / "zoo")
    store = run._store

    def store_and_stop(result, writer, log) -> None:
        store(result, writer, log)
        run.stop()

    monkeypatch.setattr(run, "_store", store_and_stop)
    assert not run.execute(Processes(2))
    assert not multiprocessing.active_children()
    assert 1 <= run.progress().members < 6
    assert start(tiny_space(), tmp_path / "zoo", resume=True).execute()
    assert identity(tmp_path / "zoo") == identity(alone)


def test_tasks_hold_every_member_once(tiny_space, tmp_path: Path) -> None:
    run = start(tiny_space(), tmp_path / "zoo", models=40)
    wanted = range(3, 40)
    tasks = cut(run, wanted, 2)
    assert sorted(member for task in tasks for member in task.members) == list(wanted)
    names = {member.id: member.architecture.name for member in run.members}
    assert all(len({names[member] for member in task.members}) == 1 for task in tasks)


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit")
def test_a_slurm_array_makes_the_same_zoo(alone: Path, tiny_space, tmp_path: Path) -> None:
    array = executor_for("slurm", slurm=["cluster=local", "at_a_time=2", "timeout_min=5"])
    assert start(tiny_space(), tmp_path / "zoo").execute(array)
    assert identity(tmp_path / "zoo") == identity(alone)
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]


@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
def test_a_ray_cluster_loses_a_node(alone: Path, tiny_space, tmp_path: Path, monkeypatch) -> None:
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(**node) for _ in range(2)]
        run = start(tiny_space(), tmp_path / "zoo")
        store, killed = run._store, []

        def store_and_kill(result, writer, log) -> None:
            store(result, writer, log)
            if not killed:
                killed.append(nodes[0])
                cluster.remove_node(nodes[0], allow_graceful=False)

        monkeypatch.setattr(run, "_store", store_and_kill)
        assert run.execute(executor_for("ray", ray_address=cluster.address))
    finally:
        cluster.shutdown()
    assert run.workers == 3
    assert killed
    assert identity(tmp_path / "zoo") == identity(alone)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cloud", {}, "must be local, processes, ray or slurm"),
        ("local", {"processes": 2}, "--processes goes with --executor processes"),
        ("processes", {"processes": 0}, "must be at least 1"),
        ("ray", {"slurm": ["a=1"]}, "--slurm goes with --executor slurm"),
    ],
)
def test_what_does_not_go_together(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        executor_for(name, **options)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_said(name: str, package: str, monkeypatch) -> None:
    monkeypatch.setattr(f"wse.engine.scale.{name}.find_spec", lambda wanted: None)
    with pytest.raises(UsageError, match=f"pip install {package}`"):
        executor_for(name)
