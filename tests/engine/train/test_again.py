"""Members trained again: right ones have the same bits, whatever made them, and every difference is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.train import Run, again, regeneration_problems, trainer
from wse.engine.zoo import Zoo

from .conftest import make


@pytest.mark.parametrize("changes", [{}, {"device": "cpu"}, {"dtype": "bfloat16"}, {"faithful": True}], ids=str)
def test_right_members_pass(changes: dict[str, object], tiny_space, tmp_path: Path) -> None:
    zoo = make(tiny_space(learning_rate=[0.01, 1e20]), tmp_path / "zoo", **changes)
    assert regeneration_problems(zoo, 4) == []


def test_other_weights_are_told(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.initial_weights
    monkeypatch.setattr(trainer, "initial_weights", lambda *a, **k: np.nextafter(real(*a, **k), np.float32(9)))
    problems = regeneration_problems(zoo, 1, seed=3)
    assert problems[0].text.startswith(f"member {next(iter_ids(problems))}: snapshot 0 trained again differs in ")
    assert problems[0].file.suffix == ".safetensors"


def iter_ids(problems):
    return (int(problem.text.split()[1].rstrip(":")) for problem in problems)


@pytest.mark.parametrize("column", ["test_loss", "steps", "config.learning_rate", "status"])
def test_another_value_in_a_table_is_told(zoo: Zoo, column: str) -> None:
    table = zoo.members
    values = table[column].to_pylist()
    values[2] = "dead!" if column == "status" else values[2] * 2
    index = table.schema.get_field_index(column)
    zoo.members = table.set_column(index, table.schema.field(index), pa.array(values, table[column].type))
    (problem,) = regeneration_problems(zoo, 6)
    assert problem.file.name == "members.parquet"
    assert problem.text.startswith(f"member 2: {column} is {values[2]}, trained again ")


def test_another_snapshot_is_told(zoo: Zoo) -> None:
    table = zoo.snapshots
    values = table["train_loss"].to_pylist()
    values[4] += 1e-12
    index = table.schema.get_field_index("train_loss")
    zoo.snapshots = table.set_column(index, table.schema.field(index), pa.array(values))
    (problem,) = regeneration_problems(zoo, 6)
    assert problem.text == "member 1: snapshot 1 differs in train_loss"


def test_the_choice_is_random(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def execute(run: Run) -> bool:
        seen.update(member.id for member in run.members)
        assert len(run.members) == 2
        return False  # as if interrupted

    for seed in range(20):
        assert regeneration_problems(zoo, 2, seed=seed, execute=execute) is None
    assert seen == set(range(6))


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"backend": "cuda"}, "trained on a GPU"), ({"wse_version": "0.0.9"}, "made by wse 0.0.9")],
    ids=str,
)
def test_what_cannot_be_trained_again(zoo: Zoo, changes: dict[str, str], told: str) -> None:
    zoo.manifest = msgspec.structs.replace(zoo.manifest, **changes)
    with pytest.raises(WseError, match=told):
        regeneration_problems(zoo, 1)


def test_at_least_one(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match=r"`regenerate` \(=0\)"):
        regeneration_problems(zoo, 0)


def test_other_software_is_named(zoo: Zoo) -> None:
    assert again.other_software(zoo.manifest) == ""
    other = msgspec.structs.replace(zoo.manifest, software={**zoo.manifest.software, "torch": "1.0"})
    assert again.other_software(other).startswith(" (made with torch 1.0, here ")
