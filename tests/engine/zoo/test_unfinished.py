"""Zoos whose run has not ended: what there is of them, and what a run at work does to those who look."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.zoo import DamagedError, UnfinishedZoo, Zoo, ZooWriter, plan_shards
from wse.engine.zoo.journal import Journal, ShardLine

from ...zoos import flip_bit
from .conftest import LAYOUTS, Maker, member_result


@pytest.fixture
def writer(maker: Maker, tmp_path: Path) -> ZooWriter:
    """A run at work, in the folder ``zoo``: members 2 and 3 wait for their shards, 0 and 1 do not."""
    writer = maker.create(tmp_path / "zoo")
    for member in (3, 0, 1, 2):
        writer.add(member_result(member))
    return writer


def opened(writer: ZooWriter) -> Zoo:
    return Zoo.open(writer.folder, unfinished=True)


def check_members(zoo: Zoo, members: tuple[int, ...]) -> None:
    """It has these members and no others."""
    assert list(zoo) == sorted(members)
    assert len(zoo) == len(members)
    check_weights(zoo, members)


def check_weights(zoo: Zoo, members: tuple[int, ...]) -> None:
    for member in members:
        made, found = member_result(member), zoo[member]
        assert (found.config, found.status, found.architecture) == (made.config, made.status, made.architecture)
        assert [row["test_accuracy"] for row in found.snapshots] == [s.test_accuracy for s in made.snapshots]
        np.testing.assert_array_equal(found.weights(), [snapshot.weights for snapshot in made.snapshots])


def test_members_in_pieces_and_in_shards(writer: ZooWriter) -> None:
    assert {path.name for path in (writer.folder / "journal").glob("*.safetensors")} == {
        "000002.safetensors",
        "000003.safetensors",
    }
    zoo = opened(writer)
    check_members(zoo, (0, 1, 2, 3))
    assert zoo.manifest.models == 8
    assert zoo.manifest.counts == {"ok": 3, "dead": 1, "diverged": 0}
    with pytest.raises(UsageError, match="no member 4: its 4 ids"):
        zoo[4]


def test_it_is_what_the_complete_zoo_will_be(maker: Maker, writer: ZooWriter) -> None:
    zoo = opened(writer)
    complete = Zoo.open(maker.complete(writer))
    place = {"shard", "row"}
    for name, columns in (("members", set(zoo.members.column_names) - place), ("snapshots", None)):
        there, later = getattr(zoo, name), getattr(complete, name)
        chosen = sorted(columns or there.column_names)
        owner = "id" if name == "members" else "member"
        rows = [row for row in later.select(chosen).to_pylist() if row[owner] in set(zoo)]
        assert there.select(chosen).to_pylist() == rows


def test_slices_are_read_from_pieces_too(writer: ZooWriter) -> None:
    data = opened(writer).slices("all", 4, target="optimizer", snapshots="all")
    expected = np.concatenate(
        [np.stack([s.weights for s in member_result(member).snapshots])[:, :1] for member in (0, 1, 2, 3)]
    )
    first = np.array([data.items.weights(index)[0] for index in range(len(data))])
    np.testing.assert_array_equal(first, expected[:, 0])
    assert data[len(data) - 1][0].shape == (4,)
    assert {data.items.path(index).parent.name for index in range(len(data))} == {"shards", "journal"}


def test_members_that_end_later_are_not_seen(writer: ZooWriter) -> None:
    zoo = opened(writer)
    writer.add(member_result(6))
    check_members(zoo, (0, 1, 2, 3))
    check_members(opened(writer), (0, 1, 2, 3, 6))


def test_a_piece_that_has_moved_is_told(writer: ZooWriter) -> None:
    zoo = opened(writer)
    writer.add(member_result(4))  # with which the shard of member 3 is full
    with pytest.raises(WseError, match=r"000003.safetensors has become part of a shard since .*zoo was opened"):
        zoo[3].weights()
    check_weights(zoo, (0, 1, 2))  # which are where they were
    check_members(opened(writer), (0, 1, 2, 3, 4))


def test_a_copy_has_the_same_members(writer: ZooWriter) -> None:
    zoo = opened(writer)
    writer.add(member_result(6))
    check_members(pickle.loads(pickle.dumps(zoo)), (0, 1, 2, 3))


def test_a_zoo_that_grows(maker: Maker, tmp_path: Path) -> None:
    few = Maker(models=4).having(models=4)
    folder = few.complete(few.create(tmp_path / "zoo"))
    more = maker.having(grown_from=(4,))
    new = [(member, member_result(member).architecture) for member in range(4, 8)]
    plans = plan_shards(new, dict.fromkeys(LAYOUTS, 1), target_bytes=2, after=few.plans)
    writer = ZooWriter.resume(folder, more.manifest, [*few.plans, *plans])
    writer.add(member_result(7))
    check_members(opened(writer), (0, 1, 2, 3, 7))


def test_nothing_there_yet(maker: Maker, tmp_path: Path) -> None:
    maker.create(tmp_path / "zoo")
    with pytest.raises(WseError, match=r"none of its 8 members has ended yet; .*--resume --out .*zoo`"):
        Zoo.open(tmp_path / "zoo", unfinished=True)
    maker.create(tmp_path / "my zoo")
    for unfinished in (False, True):
        with pytest.raises(WseError, match=r"`wse generate --resume --out '/[^ ]*/my zoo'`"):
            Zoo.open(tmp_path / "my zoo", unfinished=unfinished)
    (tmp_path / "zoo" / "journal" / "journal.jsonl").unlink()  # as in the moment before it is made
    with pytest.raises(WseError, match="none of its 8 members has ended yet"):
        Zoo.open(tmp_path / "zoo", unfinished=True)


def test_a_zoo_that_is_completed_meanwhile(maker: Maker, writer: ZooWriter) -> None:
    before = writer.manifest
    maker.complete(writer)
    zoo = UnfinishedZoo.read(writer.folder, before)
    assert type(zoo) is Zoo
    assert len(zoo) == 8


def test_a_complete_zoo_is_opened_as_ever(zoo: Zoo) -> None:
    assert type(Zoo.open(zoo.folder, unfinished=True)) is Zoo


def test_a_damaged_piece_is_refused(writer: ZooWriter) -> None:
    piece = writer.folder / "journal" / "000003.safetensors"
    flip_bit(piece, piece.stat().st_size - 1)
    zoo = opened(writer)
    with pytest.raises(DamagedError, match=r"000003.safetensors is damaged: snapshot 2 of member 3"):
        zoo[3].weights()
    check_weights(zoo, (0, 1, 2))


def test_members_whose_record_is_lost_are_left_out(writer: ZooWriter) -> None:
    journal = Journal(writer.folder)
    journal.rewrite(line for line in journal.read() if isinstance(line, ShardLine) or line.record.id != 1)
    check_members(opened(writer), (0, 2, 3))
