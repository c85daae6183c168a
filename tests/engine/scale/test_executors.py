"""The same zoo wherever its members train, and whatever dies meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from zoo_content import but_times

from wse.engine.errors import UsageError
from wse.engine.scale import Processes, executor_for
from wse.engine.space import Space
from wse.engine.train import Executor, Options, Run
from wse.engine.zoo import Zoo

from ...zoos import events

# Long enough that workers can be stopped or killed before a member ends.
LONG = {"epochs": 60, "snapshots": 3, "images_per_epoch": 32}
BASE = {"models": 4, "threads": 1, "seed": 7, "device": "reference"}


def start(space, folder: Path, executor: Executor | None = None, **options) -> Run:
    return Run(Options(**{"space": space, "folder": folder, **BASE, **options}), executor=executor)


def on_store(run: Run, act) -> list[int]:
    """Have ``act`` called with the number of members stored, after each; returns their ids as they come."""
    store, stored = run._store, []

    def store_and_act(result, writer, log) -> None:
        store(result, writer, log)
        stored.append(result.id)
        act(len(stored))

    run._store = store_and_act  # type: ignore[method-assign]
    return stored


def wait_until(happens, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def space(tiny_space) -> Space:
    return tiny_space(**LONG)


@pytest.fixture(scope="module")
def alone(space: Space, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "zoo"
    assert start(space, folder).execute()
    return folder


def test_processes_make_the_same_zoo_with_compiled_kernels(tiny_space, tmp_path: Path) -> None:
    assert start(tiny_space(), tmp_path / "alone", device="cpu", models=12).execute()
    run = start(tiny_space(), tmp_path / "zoo", Processes(2), device="cpu", models=12, threads=2)
    assert run.workers == 4
    assert run.execute()
    assert but_times(tmp_path / "zoo") == but_times(tmp_path / "alone")
    progress = run.progress()
    assert progress.training_images == run.plan.total("training_images")
    assert progress.flops == progress.planned_flops
    assert Zoo.open(tmp_path / "zoo").manifest.timing.seconds["training"] > 0
    assert not multiprocessing.active_children()
    assert not (tmp_path / "zoo" / "checkpoints").exists()


def test_a_killed_process_is_replaced(alone: Path, space: Space, tmp_path: Path, capfd) -> None:
    run = start(space, tmp_path / "zoo", Processes(1))

    def kill(stored: int) -> None:
        if stored == 2:  # as the system does when memory is short
            (child,) = multiprocessing.active_children()
            child.kill()
            child.join()

    stored = on_store(run, kill)
    assert run.execute()
    assert sorted(stored) == list(range(4))
    assert "a worker ended (signal 9)" in capfd.readouterr().err
    assert [event["reason"] for event in events(tmp_path / "zoo", "lost")] == ["signal 9"]
    assert but_times(tmp_path / "zoo") == but_times(alone)


def is_alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_a_command_takes_its_processes_along_and_another_executor_goes_on(
    number: signal.Signals, alone: Path, space: Space, tmp_path: Path
) -> None:
    folder = tmp_path / "zoo"
    begun = start(space, folder)
    begun.stop()
    assert not begun.execute()  # so that the command takes the space from the zoo
    arguments = f"generate --resume --out {folder} --threads 1 --executor processes --processes 2"
    command = subprocess.Popen(
        [sys.executable, "-m", "wse.cli", *arguments.split(), "--checkpoint-interval", "0"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(list((folder / "checkpoints").glob("[0-9]*.safetensors"))) == 2)
    children = children_of(command.pid)
    if number == signal.SIGINT:
        os.killpg(command.pid, number)  # as a terminal does
    else:
        command.kill()
    _, said = command.communicate(timeout=60)
    assert command.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in said
    wait_until(lambda: not any(is_alive(child) for child in children), seconds=10)
    kept = list((folder / "checkpoints").glob("[0-9]*.safetensors"))
    assert kept
    assert start(space, folder, resume=True).execute()
    assert len(events(folder, "resumed")) == len(kept)
    assert but_times(folder) == but_times(alone)


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit")
def test_slurm_jobs_make_the_same_zoo(alone: Path, space: Space, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    jobs = executor_for("slurm", slurm=["cluster=local", "at_a_time=1", "time=5"])
    run = start(space, folder, jobs)

    def kill_until_one_is_lost() -> None:  # one that was about to leave is none
        while not events(folder, "lost"):
            for path in (folder / "checkpoints" / "jobs" / "log").glob("*_log.out"):
                with suppress(OSError):  # that one has ended
                    # The process that trains is a child of the one that stands for Slurm.
                    for child in children_of(int(path.name.split("_")[0])):
                        os.kill(child, signal.SIGKILL)
            time.sleep(2)

    killer = threading.Thread(target=kill_until_one_is_lost, daemon=True)
    stored = on_store(run, lambda stored: killer.start() if stored == 1 else None)
    assert run.execute()
    assert sorted(stored) == list(range(4))
    assert events(folder, "lost") != []
    assert but_times(folder) == but_times(alone)
    assert not (folder / "checkpoints").exists()


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit")
def test_options_that_sbatch_lacks_are_refused(tiny_space, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a number of jobs"):
        executor_for("slurm", slurm=["at_a_time=many"])
    jobs = executor_for("slurm", slurm=["cluster=local", "colour=red"])
    with pytest.raises(UsageError, match=r"--slurm: .*colour"):
        start(tiny_space(), tmp_path / "zoo", jobs)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
def test_a_ray_cluster_loses_a_node_at_work(alone: Path, space: Space, tmp_path: Path, monkeypatch) -> None:
    from ray._private.state import available_resources_per_node
    from ray.cluster_utils import Cluster

    monkeypatch.setattr("wse.engine.scale.ray._TASKS_PER_WORKER", 1)  # two members a task
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})

    def kill_one_at_work(stored: int) -> None:
        if stored == 1:  # at that moment, a member is still left in each task
            free = available_resources_per_node()
            busy = [node for node in nodes if free[node.node_id].get("CPU", 0) == 0]
            nodes.remove(busy[0])
            cluster.remove_node(busy[0], allow_graceful=False)

    nodes: list = []
    lost = False
    try:
        for attempt in range(4):  # a node may end its task in the moment before it is killed
            while len(nodes) < 3:
                nodes.append(cluster.add_node(**node))
            cluster.wait_for_nodes()
            folder = tmp_path / f"zoo-{attempt}"
            run = start(space, folder, executor_for("ray", address=cluster.address))
            assert run.workers == 3
            stored = on_store(run, kill_one_at_work)
            assert run.execute()
            assert sorted(stored) == list(range(4))
            assert but_times(folder) == but_times(alone)
            lost = events(folder, "lost") != []
            if lost:
                break
    finally:
        cluster.shutdown()
    assert lost
