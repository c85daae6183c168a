"""A zoo whose run is killed, or whose disk is full, at any step; resuming ends in the same zoo."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.zoo import ZooWriter, plan_shards

from ...zoos import TIMING, flip_bit
from .conftest import LAYOUTS, Maker, contents, member_result


class Killed(BaseException):
    """The process ends here: nothing after this changes the disk."""


class Killer:
    """Counts the calls that change the disk for good and ends the process before the n-th."""

    names = ("fsync", "replace", "unlink", "rmdir", "mkdir")

    def __init__(self, patch: pytest.MonkeyPatch, at: int | None = None, error: BaseException | None = None):
        self.calls = 0
        for name in self.names:
            patch.setattr(os, name, self._wrap(getattr(os, name), at, error))

    def _wrap(self, call, at, error):
        def wrapped(*args, **kwargs):
            self.calls += 1
            if at is not None and error is None and self.calls >= at:
                raise Killed
            if self.calls == at:
                raise error
            return call(*args, **kwargs)

        return wrapped


def test_killed_at_every_step(maker: Maker, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """Whatever call is the last one: resuming ends in the same zoo and trains nothing again that was told
    to be stored."""
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch)
        maker.complete(maker.create(tmp_path / "counted"))
    assert killer.calls > 60

    def run(folder: Path, told: list[int]) -> None:
        writer = maker.create(folder)
        for member in range(maker.models):
            writer.add(member_result(member))
            told.append(member)
        writer.finish(TIMING)

    for at in range(1, killer.calls + 1):
        folder = tmp_path / f"killed-{at}"
        told: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, at)
            with pytest.raises(Killed):
                run(folder, told)
        if (folder / "zoo.json").exists():
            writer = maker.resume(folder)
            assert writer.finished >= set(told)
        else:
            writer = maker.create(folder)
        assert writer.notes == []
        assert contents(maker.complete(writer)) == expected, f"killed at call {at}"


def test_killed_again_while_resuming(maker: Maker, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """Every resume is itself killed one call later than the one before, until one gets through."""
    folder = tmp_path / "zoo"
    writer = maker.create(folder)
    for member in (7, 5, 0, 2):
        writer.add(member_result(member))
    writer.close()
    for at in range(1, 1000):
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, at)
            try:
                maker.complete(maker.resume(folder))
                break
            except Killed:
                pass
    assert at > 10
    assert contents(folder) == expected


def test_killed_while_members_are_taken_back(maker: Maker, tmp_path: Path) -> None:
    """Whatever call is the last one, the zoo comes out that there was before more were asked for."""
    few = Maker(models=4).having(models=4)
    more = maker.having(grown_from=(4,))
    new = [(member, member_result(member).architecture) for member in range(4, 8)]
    plans = [*few.plans, *plan_shards(new, dict.fromkeys(LAYOUTS, 1), target_bytes=2, after=few.plans)]
    few.complete(few.create(tmp_path / "few"))
    complete = contents(tmp_path / "few")

    def grown(name: str) -> Path:
        folder = shutil.copytree(tmp_path / "few", tmp_path / name)
        ZooWriter.resume(folder, more.manifest, plans).close()
        (folder / "journal" / "000006.safetensors").write_bytes(b"not in the journal yet")
        return folder

    counted = grown("counted")
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch)
        few.complete(few.resume(counted))
    assert contents(counted) == complete
    for at in range(1, killer.calls + 1):
        folder = grown(f"killed-{at}")
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, at)
            with pytest.raises(Killed):
                few.complete(few.resume(folder))
        assert contents(few.complete(few.resume(folder))) == complete, f"killed at call {at}"


def test_members_in_shards_of_another_plan_are_not_taken_back(maker: Maker, tmp_path: Path) -> None:
    writer = maker.create(tmp_path / "zoo")
    for member in (0, 1):
        writer.add(member_result(member))
    writer.close()
    fewer = Maker(models=6, shard_members=3).having(models=6)
    before = contents(tmp_path / "zoo")
    with pytest.raises(UsageError, match=r"norm-0000.safetensors, which 6 would fill otherwise"):
        fewer.resume(tmp_path / "zoo")
    assert contents(tmp_path / "zoo") == before
    (tmp_path / "zoo" / "shards" / "norm-0000.safetensors").unlink()
    assert fewer.resume(tmp_path / "zoo").finished == frozenset()


def test_members_are_taken_back_where_nothing_has_begun(maker: Maker, tmp_path: Path) -> None:
    maker.create(tmp_path / "zoo").close()
    (tmp_path / "zoo" / "journal" / "journal.jsonl").unlink()
    fewer = Maker(models=6).having(models=6)
    fewer.complete(fewer.resume(tmp_path / "zoo"))
    assert contents(tmp_path / "zoo") == contents(fewer.complete(fewer.create(tmp_path / "six")))


def test_full_disk_at_every_step(maker: Maker, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """Every failing call gives one line that names a file, and leaves a zoo that can be gone on with."""
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch)
        maker.complete(maker.create(tmp_path / "counted"))
    for at in range(1, killer.calls + 1, 2):
        folder = tmp_path / f"full-{at}"
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, at, OSError(errno.ENOSPC, "No space left on device"))
            told = pytest.raises(WseError, match=r"cannot write .*: No space left on device")
            with told as caught, closing(maker.create(folder)) as writer:
                maker.complete(writer)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
        writer = maker.resume(folder) if (folder / "zoo.json").exists() else maker.create(folder)
        assert contents(maker.complete(writer)) == expected, f"full at call {at}"


def test_goes_on_in_the_same_process_after_a_failure(
    maker: Maker, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    writer = maker.create(tmp_path / "zoo")
    for member in range(maker.models):
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, 4, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(WseError, match="No space left"):
                writer.add(member_result(member))
        assert member not in writer.finished
        writer.add(member_result(member))
    assert contents(writer.finish(TIMING)) == expected


def test_a_shard_is_made_again_from_its_pieces(maker: Maker, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """Killed between the line of the shard and the removal of its pieces, and then the shard is damaged."""
    folder = tmp_path / "zoo"
    writer = maker.create(folder)
    writer.add(member_result(0))
    with pytest.MonkeyPatch.context() as patch:
        Killer(patch, 9, OSError(errno.EIO, "Input/output error"))
        with pytest.raises(WseError, match="Input/output error"):
            writer.add(member_result(1))
    writer.close()
    shard = folder / "shards/norm-0000.safetensors"
    assert shard.exists()
    assert (folder / "journal/000000.safetensors").exists()
    flip_bit(shard, 500)
    writer = maker.resume(folder)
    assert writer.finished == {0, 1}
    assert contents(maker.complete(writer)) == expected
