"""Tasks are given to workers that die and repeat themselves; no member is lost, and none comes twice."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.scale import RayCluster, executor_for
from wse.engine.scale import dispatch as dispatching
from wse.engine.scale.dispatch import TRIES, Ended, dispatch
from wse.engine.scale.pulse import Listening, Pulse
from wse.engine.scale.tasks import Job, Task, cut, train
from wse.engine.train import Checkpoints, Memo, Options, Report, Run, Work


def result(member: int):
    return SimpleNamespace(id=member)


class Asked:
    """A run that may be asked to stop."""

    is_stopping = False


class Workers:
    """A team of one worker that says what a script makes of each task: a function of (members, attempt)."""

    def __init__(self, script, room: int = 2) -> None:
        self._script, self._room = script, room
        self._said: list[tuple[Task, object]] = []
        self.begun: list[list[int]] = []
        self.told = self.closed = False

    @property
    def room(self) -> int:
        return self._room - len({id(task) for task, _ in self._said})

    @property
    def is_busy(self) -> bool:
        return bool(self._said)

    def begin(self, tasks) -> None:
        for task in tasks:
            self.begun.append(list(task.left))
            said = self._script(list(task.left), len(self.begun))
            self._said += [(task, Report(result=result(m)) if isinstance(m, int) else m) for m in said]

    def messages(self):
        """One message at a time, of the first task."""
        yield self._said.pop(0)

    def stop(self) -> None:
        self.told = True

    def close(self) -> None:
        self.closed = True


def came_back(team: Workers, *tasks: list[int], run=None) -> list[int]:
    reports = dispatch(run or Asked(), [Task(left=list(task)) for task in tasks], team)
    return [report.result.id for report in reports if report.result is not None]


def test_every_member_comes_once_whatever_the_workers_do() -> None:
    """Workers repeat members, leave some out, and mix them up, as lost and requeued ones may."""
    for seed in range(50):
        dice = random.Random(seed)

        def script(members: list[int], attempt: int, dice=dice) -> list:
            said = dice.sample(members, dice.randint(1, len(members)))
            return [*said, *dice.choices(range(20), k=2), Ended("signal 9")]

        team = Workers(script)
        assert Counter(came_back(team, [*range(8)], [*range(8, 20)])) == Counter(range(20))
        assert team.closed


def test_what_a_dead_worker_left_is_given_to_another(capsys) -> None:
    team = Workers(lambda members, attempt: [*members[: 3 - attempt], Ended("signal 9")])
    assert came_back(team, [4, 5, 6]) == [4, 5, 6]
    assert team.begun == [[4, 5, 6], [6]]
    assert "a worker ended (signal 9); models 6 are given to another" in capsys.readouterr().err


def test_workers_that_bring_nothing_are_given_up() -> None:
    team = Workers(lambda members, attempt: [Ended("signal 9")])
    with pytest.raises(WseError, match=rf"workers ended {TRIES} times over models 1, 2 \(signal 9\): .*--resume"):
        came_back(team, [1, 2])
    assert len(team.begun) == TRIES
    assert team.closed


def test_workers_that_bring_something_may_die_often() -> None:
    team = Workers(lambda members, attempt: [*members[:1], Ended("signal 9")] if attempt % 2 else [Ended("again")])
    assert came_back(team, [*range(2 * TRIES)]) == [*range(2 * TRIES)]


def test_an_error_of_a_worker_is_raised() -> None:
    team = Workers(lambda members, attempt: [members[0], WseError("the disk is full")])
    with pytest.raises(WseError, match="the disk is full"):
        came_back(team, [1, 2])
    assert team.closed


def test_a_run_that_stops_begins_nothing_and_takes_what_still_comes() -> None:
    run = Asked()

    def script(members: list[int], attempt: int) -> list:
        run.is_stopping = True
        return [members[0], Ended("it was told to stop")]

    team = Workers(script, room=1)
    assert came_back(team, [1, 2], [3], run=run) == [1]
    assert team.told
    assert team.closed


def test_workers_that_do_not_stop_are_not_waited_for_for_ever(monkeypatch) -> None:
    run, clock = Asked(), iter(range(0, 10**6, 10))
    monkeypatch.setattr(dispatching.time, "monotonic", lambda: next(clock))

    class Deaf(Workers):
        def messages(self):
            run.is_stopping = True
            return []

    team = Deaf(lambda members, attempt: members)
    assert came_back(team, [1], run=run) == []
    assert team.closed


def test_work_and_events_pass_through() -> None:
    done = Report(work=Work(training_images=5), events=(("resumed", {"id": 1}),))
    team = Workers(lambda members, attempt: [done, *members, Ended("")])
    reports = list(dispatch(Asked(), [Task(left=[1])], team))
    assert reports[0] == done


def start(space, folder, **options) -> Run:
    return Run(Options(space=space, folder=folder, seed=7, **{"models": 40, "device": "reference", **options}))


@pytest.mark.parametrize("tasks", [1, 7, 1000])
def test_tasks_hold_every_member_once(tasks: int, tiny_space, tmp_path) -> None:
    made = cut(start(tiny_space(), tmp_path), range(3, 40), tasks)
    assert sorted(member for task in made for member in task.left) == list(range(3, 40))
    assert len(made) <= tasks


def test_tasks_of_packs_hold_one_architecture_and_as_many_as_train_together(tiny_space, tmp_path) -> None:
    run = start(tiny_space(), tmp_path, rows=4)
    run.backend.members_per_pack = None
    made = cut(run, range(40), 1000)
    assert sorted(member for task in made for member in task.left) == list(range(40))
    names = {member.id: member.architecture.name for member in run.members}
    assert all(len({names[member] for member in task.left}) == 1 for task in made)
    sizes = Counter(names.values())
    assert [len(task.left) for task in made].count(4) >= sum(size // 4 for size in sizes.values())


def test_a_worker_refuses_to_train_other_members(tiny_space, tmp_path) -> None:
    run = start(tiny_space(), tmp_path)
    job = Job.of(run, threads=1, sharing=2, seconds=1)
    prepared = job.run()
    assert prepared.manifest == run.manifest
    assert prepared.workers == 2
    other = msgspec.structs.replace(run.manifest, software={"torch": "1.0"})
    with pytest.raises(WseError, match=r"has other software .*\(.*, not .*1\.0.*same packages"):
        dataclasses.replace(job, manifest=other).run()
    away = dataclasses.replace(job, options=dataclasses.replace(job.options, folder=tmp_path / "away"))
    with pytest.raises(WseError, match=r"does not see .*away"):
        away.run()


def test_a_worker_that_fails_says_why(capsys) -> None:
    (error,) = train(b"no job", [1], lambda: True)
    assert isinstance(error, WseError)
    assert "failed: UnpicklingError" in str(error)
    assert "Traceback" in capsys.readouterr().err


def test_events_are_kept_until_they_are_taken() -> None:
    memo = Memo()
    memo.write("resumed", id=1)
    memo.write("note", text="damaged")
    assert memo.take() == (("resumed", {"id": 1}), ("note", {"text": "damaged"}))
    assert memo.take() == ()


def test_a_pulse_is_heard_until_it_ends_or_stays_the_same(tmp_path, monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pulse = Pulse(tmp_path)
    listening, other = Listening(pulse.path), Listening(pulse.path)
    for now in range(0, 1000, 7):  # noqa: B007 - the clock
        pulse.beat()
        assert listening()
    now += 119
    assert listening()
    now += 2
    assert not listening()
    pulse.beat()
    assert not listening(), "what has stopped does not begin again"
    other = Listening(pulse.path)
    assert other()
    pulse.end()
    pulse.beat()
    now += 2
    assert not other()
    assert not Listening(pulse.path)()


def test_a_run_clears_away_what_workers_of_another_left(tiny_space, tmp_path) -> None:
    run = start(tiny_space(), tmp_path)
    checkpoints: Checkpoints = run.checkpoints(Memo())
    checkpoints.start([1])
    before = Pulse(checkpoints.folder)
    (checkpoints.folder / "jobs" / "000000").mkdir(parents=True)
    checkpoints.path(1).touch()
    checkpoints.start([1])
    assert list(checkpoints.folder.iterdir()) == [checkpoints.path(1)]
    assert not Listening(before.path)()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cloud", {}, "must be threads, processes, ray or slurm"),
        ("threads", {"processes": 2}, "--processes goes with --executor processes, not with threads"),
        ("processes", {"processes": 0}, "must be at least 1"),
        ("processes", {"address": "auto"}, "--address goes with --executor ray, not with processes"),
        ("threads", {"slurm": ["a=1"]}, "--slurm goes with --executor slurm, not with threads"),
        ("slurm", {"slurm": ["partition"]}, "'partition' must be key=value"),
    ],
)
def test_what_does_not_go_together(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        executor_for(name, **options)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named(name: str, package: str, monkeypatch) -> None:
    monkeypatch.setattr(f"wse.engine.scale.{name}.find_spec", lambda wanted: None)
    with pytest.raises(UsageError, match=f"`pip install {package}`"):
        executor_for(name)


def test_a_job_knows_where_home_is(tiny_space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers would look for ``~`` in the folder where the run was started."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    options = Options(space=tiny_space(), models=2, folder=tmp_path / "zoo", data_dir=Path("~/data"))
    job = Job.of(Run(options), threads=1, sharing=1, seconds=1.0)
    assert job.options.data_dir == tmp_path / "data"


@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
def test_a_cluster_that_has_just_lost_its_nodes_is_waited_for(
    tiny_space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 1.0}}]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr(RayCluster, "_connect", lambda self: None)
    monkeypatch.setattr("wse.engine.scale.ray._Team", lambda *given: Workers(lambda members, attempt: members))
    run = Run(Options(space=tiny_space(), models=3, folder=tmp_path, threads=1), executor=RayCluster())
    checkpoints = run.checkpoints(Memo())
    checkpoints.start([])
    nodes.clear()
    reports = run.executor.reports(run, range(3), checkpoints)
    assert sorted(report.result.id for report in islice(reports, 3)) == [0, 1, 2]
