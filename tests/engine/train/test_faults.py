"""A disk that fails at any call: told in one line, nothing stored is lost, and the same zoo in the end.

`benchmarks/fault_test.py` takes every call in every way.
"""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from fault_test import trials
from faults import Faults, failing

from wse.engine.zoo import journal, recovery


@pytest.mark.parametrize("of", ["generate", "repair"])
def test_a_failing_disk_is_told_and_harms_nothing(of: str, tmp_path: Path) -> None:
    found = trials(tmp_path, of, "reference", step=13)
    assert [trial for trial in found if not trial.passed] == []
    assert len([trial for trial in found if trial.ended == "told"]) > 8


def test_a_crash_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "saving", lambda path: nullcontext())
    failed = [trial for trial in trials(tmp_path, "generate", "reference", step=29) if not trial.passed]
    assert failed
    assert all(trial.ended.startswith("OSError") for trial in failed)


def test_what_is_trained_twice_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on and finds nothing of what was stored."""
    real = recovery.file_problem

    def problem(path: Path, *rest) -> str | None:
        return "lost" if path.parent.name == "journal" else real(path, *rest)

    monkeypatch.setattr(recovery, "file_problem", problem)
    found = trials(tmp_path, "generate", "reference", step=29)
    assert any(trial.lost for trial in found)
    assert not any(trial.passed for trial in found if trial.lost)


def test_a_call_fails_in_its_folder_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "zoo", tmp_path / "other"
    inside.mkdir()
    outside.mkdir()
    faults = Faults(folder=inside, at=1, kind="short")
    with failing(faults):
        (outside / "file").write_bytes(b"1234")
        with (inside / "file").open("wb") as file, pytest.raises(OSError, match="No space left") as caught:
            file.write(b"1234")
        assert caught.value.errno == errno.ENOSPC
    assert faults.failed
    assert faults.calls == ["open file", "write file"]
    assert (inside / "file").read_bytes() == b"12"
    assert os.fsync.__module__ != failing.__module__
