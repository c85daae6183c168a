"""Two runs on one zoo: real processes, and one of them killed."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.zoo import Zoo, lock, remove_zoo
from wse.engine.zoo.lock import Lock

from ...zoos import TIMING
from .conftest import Maker, contents, member_result

HOLD = """
import sys
from pathlib import Path
from wse.engine.zoo.lock import Lock
held = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
held.release()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_run_is_refused(maker: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    writer = maker.create(folder)
    writer.add(member_result(0))
    writer.close()
    before = contents(folder)
    assert "zoo.lock" not in before
    with another_process(folder) as process:
        for begin in (maker.resume, maker.create, remove_zoo):
            with pytest.raises(UsageError) as refused:
                begin(folder)
            assert str(refused.value) == (
                f"{folder} is being written by process {process.pid} on {platform.node()}: "
                "wait until it ends, stop it, or name another folder"
            )
        process.stdin.close()
        process.wait(timeout=60)
        assert contents(folder) == before
    assert maker.resume(folder).finished == {0}


def test_a_killed_run_lets_the_next_one_in(maker: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    writer = maker.create(folder)
    writer.add(member_result(0))
    writer.close()
    with another_process(folder) as process:
        process.kill()
        process.wait(timeout=60)
    assert (folder / "zoo.lock").exists()
    writer = maker.resume(folder)
    assert writer.finished == {0}
    assert (folder / "zoo.lock").read_text() == f"process {os.getpid()} on {platform.node()}"
    assert Zoo.open(maker.complete(writer)).verify() == []
    assert not (folder / "zoo.lock").exists()


def test_a_killed_run_that_had_written_nothing_leaves_the_folder_free(maker: Maker, tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.kill()
        process.wait(timeout=60)
    maker.complete(maker.create(tmp_path))
    assert not (tmp_path / "zoo.lock").exists()


def test_what_fails_lets_go(maker: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    with pytest.raises(UsageError, match="is not empty"):
        maker.create(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    with pytest.raises(WseError, match=r"cannot write .*zoo\.lock: No such file"):
        Lock(tmp_path / "missing")


def test_two_runs_in_one_process(maker: Maker, tmp_path: Path) -> None:
    writer = maker.create(tmp_path / "zoo")
    with pytest.raises(UsageError, match=f"written by process {os.getpid()} on"):
        maker.resume(tmp_path / "zoo")
    maker.complete(writer)
    assert maker.resume(tmp_path / "zoo").finish(TIMING) == tmp_path / "zoo"


def test_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run ends between the opening of the file and the locking of it."""
    path = tmp_path / "zoo.lock"
    path.touch()
    real = lock.fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if path.exists() and path.stat().st_size == 0 and os.fstat(descriptor).st_ino == first:
            path.unlink()
        real(descriptor, how)

    first = path.stat().st_ino
    with path.open():  # its number cannot be given to the next file
        monkeypatch.setattr(lock.fcntl, "flock", flock)
        held = Lock(tmp_path)
        assert path.stat().st_ino != first
        with pytest.raises(UsageError, match="being written"):
            Lock(tmp_path)
    held.release()
    held.release()
    assert not path.exists()


def test_without_locks_the_file_itself_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    held = Lock(tmp_path)
    with pytest.raises(UsageError, match=r"process \d+ on .*if it has already ended, remove .*zoo\.lock"):
        Lock(tmp_path)
    held.release()
    Lock(tmp_path).release()
    monkeypatch.setattr(lock, "fcntl", None)
    held = Lock(tmp_path)
    with pytest.raises(UsageError, match="remove"):
        Lock(tmp_path)
    held.release()
