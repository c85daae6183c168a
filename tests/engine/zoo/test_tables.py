from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wse.engine.errors import WseError
from wse.engine.zoo import Zoo
from wse.engine.zoo.tables import (
    members_schema,
    members_table,
    read_table,
    snapshots_schema,
    snapshots_table,
    write_table,
)

from ...zoos import flip_bit
from .conftest import Maker, member_result


def test_members_table(zoo: Zoo) -> None:
    table = zoo.members
    assert table["id"].to_pylist() == list(range(8))
    assert table["status"].to_pylist() == ["ok", "dead", "ok", "ok", "diverged", "diverged", "ok", "ok"]
    assert table["config.momentum"].to_pylist() == [0.9, None] * 4
    assert table.schema.field("config.batch_size").type == pa.int64()
    assert table.schema.field("config.augmented").type == pa.bool_()
    for member in (0, 1, 7):
        result, row = member_result(member), table.slice(member, 1).to_pylist()[0]
        last = result.snapshots[-1]
        assert row["test_accuracy"] == last.test_accuracy
        assert row["generalization_gap"] == last.train_accuracy - last.test_accuracy
        assert row["config.learning_rate"] == result.config["learning_rate"]
        assert (row["snapshots"], row["epochs"], row["steps"]) == (3, 6, 60)


def test_metrics_of_diverged_members(zoo: Zoo) -> None:
    after_one, after_none = zoo.members.slice(4, 2).to_pylist()
    assert math.isnan(after_one["train_loss"])
    assert after_one["validation_loss"] == math.inf
    assert after_none["train_loss"] is None
    assert after_none["snapshots"] == 0


def test_snapshots_table(zoo: Zoo) -> None:
    table = zoo.snapshots
    assert table["member"].to_pylist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] + [6] * 3 + [7] * 3
    assert table["epoch"].to_pylist()[:4] == [0, 2, 4, 0]
    assert table["test_loss"].to_pylist()[16] == member_result(7).snapshots[0].test_loss


def test_same_rows_same_bytes(maker: Maker, tmp_path: Path) -> None:
    records = [member_result(member).record() for member in range(4)]
    places = {member: ("a.safetensors", member) for member in range(4)}
    types = dict(reversed(maker.manifest.config_types.items()))
    first = write_table(tmp_path / "a", members_table(records, places, maker.manifest.config_types, "eval"))
    second = write_table(tmp_path / "b", members_table(records, places, types, "eval"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert first == second


def test_only_seconds_differ_between_runs(maker: Maker, tmp_path: Path) -> None:
    records = [member_result(member).record() for member in range(4)]
    slower = [msgspec.structs.replace(record, seconds=record.seconds + 1) for record in records]
    places = {member: ("a.safetensors", member) for member in range(4)}
    for name, rows in (("a", records), ("b", slower)):
        table = members_table(rows, places, maker.manifest.config_types, "eval")
        write_table(tmp_path / name, table)
    first, second = (pq.read_table(tmp_path / name) for name in "ab")
    assert first != second
    assert first.drop_columns("seconds") == second.drop_columns("seconds")


def test_empty_table(maker: Maker, tmp_path: Path) -> None:
    entry = write_table(tmp_path / "a", snapshots_table([], "eval"))
    assert read_table(tmp_path / "a", entry, snapshots_schema("eval")).num_rows == 0


def test_damage_is_refused(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    entry = write_table(path, snapshots_table([member_result(0).record()], "eval"))
    schema = snapshots_schema("eval")
    content = path.read_bytes()
    for position in range(0, len(content), 101):
        flip_bit(path, position)
        with pytest.raises(WseError, match=r"t\.parquet is damaged"):
            read_table(path, entry, schema)
        path.write_bytes(content)
    with pytest.raises(WseError, match="columns or rows"):
        read_table(path, entry, members_schema({}, "eval"))
    with pytest.raises(WseError, match="columns or rows"):
        read_table(path, msgspec.structs.replace(entry, rows=2), schema)
    path.unlink()
    with pytest.raises(WseError, match=r"cannot read .*t\.parquet"):
        read_table(path, entry, schema)
