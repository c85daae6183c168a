"""Labels measured again: right ones pass, whatever backend made them, and wrong ones are told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from wse.engine.data import load
from wse.engine.errors import UsageError, WseError
from wse.engine.train import again, health, label_problems
from wse.engine.zoo import Zoo, merge_zoos

from .conftest import make


def change(zoo: Zoo, column: str, member: int, value: object) -> None:
    """What the table says of a member, changed in memory."""
    table = zoo.members
    values = table[column].to_pylist()
    values[member] = value
    index = table.schema.get_field_index(column)
    zoo.members = table.set_column(
        index, table.schema.field(index), pa.array(values, table.schema.field(index).type)
    )


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("preset", ["nws-main", "small-cnn"])
def test_right_labels_pass(device: str, preset: str, tiny_space, tmp_path: Path) -> None:
    zoo = make(tiny_space(preset), tmp_path / "zoo", device=device, models=12)
    assert label_problems(zoo, 12) == []


@pytest.mark.parametrize(
    ("column", "factor", "told"),
    [
        ("test_loss", 1.01, "test loss"),
        ("test_loss", float("nan"), "test loss"),
        ("config.learning_rate", 2.0, "its set-up is not the one"),
    ],
)
def test_wrong_labels_are_told(zoo: Zoo, column: str, factor: float, told: str) -> None:
    change(zoo, column, 3, zoo.members[column].to_pylist()[3] * factor)
    (problem,) = label_problems(zoo, 6)
    assert problem.file == zoo.folder / "members.parquet"
    assert problem.text.startswith("member 3: ")
    assert told in problem.text


@pytest.mark.parametrize("images", [-1, 1])
def test_one_image_more_or_less_is_told(zoo: Zoo, images: int) -> None:
    accuracy = zoo.members["test_accuracy"].to_pylist()[4]
    change(zoo, "test_accuracy", 4, accuracy + images / 50)
    (problem,) = label_problems(zoo, 6)
    assert problem.text == (
        f"member 4: its weights have test accuracy {accuracy:.4f}, the table says {accuracy + images / 50:.4f}"
    )


def test_the_choice_is_random_and_without_repeats(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(health, "_differences", lambda stored, *_: iter([seen.append(stored.id) or "wrong"]))
    for seed in range(20):
        assert len(label_problems(zoo, 2, seed=seed)) == 2
        assert seen[-1] > seen[-2]
    assert set(seen) == set(range(6))
    assert len(label_problems(zoo, 100)) == 6


def test_a_damaged_shard_is_a_problem(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wse.engine.zoo.shards.zlib", SimpleNamespace(crc32=lambda _: 0))
    problems = label_problems(zoo, 6)
    assert len(problems) == 6
    assert all(problem.file.suffix == ".safetensors" for problem in problems)


def test_other_images_are_refused(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = dataclasses.replace(load("digits"), sha256="00" * 32)
    monkeypatch.setattr(again, "load", lambda name, data_dir: other)
    with pytest.raises(WseError, match="the image set digits is not the one"):
        label_problems(zoo, 1)


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"precision": "bf16"}], ids=str)
def test_rounded_zoos_are_refused(zoo: Zoo, changes: dict[str, str]) -> None:
    zoo.manifest = msgspec.structs.replace(zoo.manifest, **changes)
    with pytest.raises(UsageError, match="cannot be measured again"):
        label_problems(zoo, 1)


def test_at_least_one(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match=r"`labels` \(=0\)"):
        label_problems(zoo, 0)


def test_outputs_that_overflow_are_not_judged_by_chance(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest finite weights: the outputs are infinite or NaN, as the loss in the table may be."""
    real = type(zoo[0]).weights
    monkeypatch.setattr(type(zoo[0]), "_read", lambda self, _: np.full(self.layout.size, 3e38, np.float32))
    assert real(zoo[2]).max() > 1e38
    change(zoo, "test_loss", 2, float("inf"))
    texts = [problem.text for problem in label_problems(zoo, 6)]
    assert len(texts) == 5
    assert all("test loss nan, the table says" in text for text in texts)
    assert not any("member 2" in text for text in texts)


@pytest.fixture
def merged(folder: Path, tiny_space, tmp_path: Path) -> Zoo:
    """With another zoo, of another seed and other measurements."""
    make(tiny_space(batch_size=16, test_images=30), tmp_path / "other", seed=8, device="cpu")
    merge_zoos([folder, tmp_path / "other"], tmp_path / "merged")
    return Zoo.open(tmp_path / "merged")


def test_right_labels_of_a_merged_zoo_pass(merged: Zoo) -> None:
    assert label_problems(merged, 12) == []


@pytest.mark.parametrize("member", [3, 9])
def test_wrong_labels_of_a_merged_zoo_are_told(member: int, merged: Zoo) -> None:
    change(merged, "test_loss", member, 7.0)
    (problem,) = label_problems(merged, 12)
    assert problem.text.startswith(f"member {member}: its weights have test loss ")


def test_a_source_in_rounded_arithmetic_is_refused(merged: Zoo) -> None:
    one, two = merged.manifest.sources
    sources = (one, msgspec.structs.replace(two, precision="bf16"))
    merged.manifest = msgspec.structs.replace(merged.manifest, sources=sources)
    with pytest.raises(UsageError, match="arithmetic in bf16 and fp32"):
        label_problems(merged, 1)


def test_outputs_close_to_zero_are_no_false_alarm(tiny_space, tmp_path: Path) -> None:
    """Their loss is ln 10 but for the last bits of single precision."""
    space = tiny_space("small-cnn", initialization="normal", init_std=1e-6, l2=0.0, epochs=1, learning_rate=1e-9)
    zoo = make(space, tmp_path / "zoo", models=1)
    loss = zoo.members["test_loss"].to_pylist()[0]
    assert abs(loss - np.log(10)) < 1e-6
    for factor in (1 - 4e-7, 1, 1 + 4e-7):
        change(zoo, "test_loss", 0, np.log(10) * factor)
        assert label_problems(zoo, 1) == []
    change(zoo, "test_loss", 0, np.log(10) * (1 + 1e-5))
    assert len(label_problems(zoo, 1)) == 1
