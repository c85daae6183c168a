"""What the system cannot give is said before training begins; and no clock that is set does any harm."""

from __future__ import annotations

import datetime
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from wse.engine.errors import WseError
from wse.engine.train import Options, Run, log, run
from wse.engine.zoo import Zoo


@contextmanager
def open_files(most: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def options(space, folder: Path, **changes) -> Options:
    given = {"models": 3, "threads": 1, "device": "reference", **changes}
    return Options(space=space, folder=folder, **given)


def test_too_few_files(tiny_space, tmp_path: Path) -> None:
    waiting = Run(options(tiny_space(), tmp_path / "zoo"))  # the tests' own process has many open
    needed = r"of 1 threads needs 36 open files and the system allows 35"
    with open_files(35), pytest.raises(WseError, match=needed):
        waiting.execute()
    assert not (tmp_path / "zoo").exists()


def test_too_little_memory(tiny_space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one member at a time fits."""
    monkeypatch.setattr(run, "available_bytes", lambda: 1000)
    with pytest.raises(WseError, match=r"members in training need .* take fewer --threads"):
        Run(options(tiny_space(), tmp_path / "zoo")).execute()
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_cannot_be_written(tiny_space, tmp_path: Path, resume: bool) -> None:
    """A file stands where the folder, or that of the lock, should be."""
    folder = tmp_path / "zoo"
    if resume:
        Run(options(tiny_space(), folder)).execute()
        (folder / "zoo.lock").mkdir()
    else:
        (tmp_path / "file").touch()
        folder = tmp_path / "file" / "zoo"
    with pytest.raises(WseError, match=r"cannot write .*zoo") as caught:
        Run(options(tiny_space(), folder, resume=resume)).execute()
    assert "\n" not in str(caught.value)


def test_a_clock_that_jumps_does_no_harm(tiny_space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day goes back to 1971 and on to 2100 at every look; what is measured does not notice."""
    Run(options(tiny_space(), tmp_path / "calm")).execute()
    jumps = cycle([3e7, 4.1e9, -1e6, 1.8e9])

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(next(jumps), tz)

    monkeypatch.setattr(run, "datetime", Jumping)
    monkeypatch.setattr(log, "datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    began = time.monotonic()
    assert Run(options(tiny_space(), tmp_path / "zoo", checkpoint_seconds=0)).execute()
    took = time.monotonic() - began
    zoo, calm = Zoo.open(tmp_path / "zoo"), Zoo.open(tmp_path / "calm")
    assert zoo.snapshots.equals(calm.snapshots)
    assert zoo.manifest.timing is not None
    for seconds in (*zoo.members["seconds"].to_pylist(), zoo.manifest.timing.seconds["total"]):
        assert 0 < seconds <= took + 1
