from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest

from wse.engine.errors import WseError
from wse.engine.zoo import ShardEntry
from wse.engine.zoo.journal import Journal, MemberLine, ShardLine

from ...zoos import flip_bit
from .conftest import member_result

PIECE = ShardEntry(file="000001.safetensors", architecture="norm", members=1, snapshots=3, bytes=9, sha256="00")
LINES = [MemberLine(record=member_result(member).record(), piece=PIECE) for member in (1, 4, 3)]
LINES.append(ShardLine(shard=PIECE))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    journal.start()
    for line in LINES:
        journal.append(line)
    return journal


def test_round_trip(journal: Journal) -> None:
    found = list(journal.read())
    assert [found[0], *found[2:]] == [LINES[0], *LINES[2:]]
    diverged = found[1].record.snapshots[0]
    assert math.isnan(diverged.train_loss)
    assert diverged.validation_loss == math.inf
    assert journal.finished() == {1, 3, 4}


def test_lines_are_json(journal: Journal) -> None:
    entries = [json.loads(line)["entry"] for line in journal.path.read_text().splitlines()]
    assert [entry["type"] for entry in entries] == ["member", "member", "member", "shard"]


def test_no_journal_has_no_members(tmp_path: Path) -> None:
    assert Journal(tmp_path).finished() == frozenset()


def test_torn_last_line_is_ignored_and_cut_off(journal: Journal) -> None:
    content = journal.path.read_bytes()
    last = content.rstrip(b"\n").rindex(b"\n") + 1
    for length in range(last, len(content)):
        journal.path.write_bytes(content[:length])
        notes: list[str] = []
        assert len(list(journal.read(notes))) == 3
        assert not notes
    journal.rewrite(journal.read())
    assert journal.path.read_bytes() == content[:last]
    journal.append(LINES[3])
    assert journal.path.read_bytes() == content


def test_damaged_line_is_left_out_with_a_note(journal: Journal) -> None:
    content = journal.path.read_bytes()
    second = content.index(b"\n") + 1
    third = content.index(b"\n", second) + 1
    for position in range(second, third - 1, 5):
        flip_bit(journal.path, position, bit=4)
        notes: list[str] = []
        assert [line for line in journal.read(notes) if line == LINES[2]] == [LINES[2]]
        assert len(notes) >= 1
        assert f"{journal.path}: line 2 is damaged" in notes[0]
        journal.path.write_bytes(content)


def test_failed_append_leaves_no_trace(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    content = journal.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(WseError, match="No space left"):
            journal.append(LINES[0])
    journal.append(ShardLine(shard=PIECE))
    assert journal.path.read_bytes() == content + content.splitlines(keepends=True)[-1]
