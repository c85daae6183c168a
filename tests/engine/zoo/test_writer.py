from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as changed

from wse.engine.errors import UsageError, WseError
from wse.engine.nets import forward_macs, training_flops
from wse.engine.zoo import Cost, ImageSetEntry, Timing, Zoo, ZooWriter, remove_zoo

from ...zoos import TIMING, flip_bit
from .conftest import LAYOUTS, Maker, contents, member_result


def test_files_of_a_zoo(expected: dict[str, bytes]) -> None:
    assert list(expected) == [
        "members.parquet",
        "shards/norm-0000.safetensors",
        "shards/norm-0001.safetensors",
        "shards/norm-0002.safetensors",
        "shards/plain-0000.safetensors",
        "snapshots.parquet",
        "zoo.json",
    ]


@pytest.mark.parametrize("seed", range(4))
def test_order_does_not_matter(maker: Maker, tmp_path: Path, expected: dict[str, bytes], seed: int) -> None:
    order = list(range(maker.models))
    random.Random(seed).shuffle(order)
    writer = maker.create(tmp_path / "zoo")
    for member in order:
        writer.add(member_result(member))
    assert contents(writer.finish(TIMING)) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_interruption_does_not_round_twice(tmp_path: Path, dtype: str) -> None:
    maker = Maker().having(dtype=dtype)
    maker.complete(maker.create(tmp_path / "a"))
    for member in reversed(range(maker.models)):
        writer = maker.resume(tmp_path / "b") if (tmp_path / "b").exists() else maker.create(tmp_path / "b")
        writer.add(member_result(member))
        writer.close()
    maker.complete(maker.resume(tmp_path / "b"))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_resuming_a_complete_zoo_changes_nothing(maker: Maker, tmp_path: Path, expected: dict[str, bytes]) -> None:
    writer = maker.resume(tmp_path / "undisturbed")
    assert writer.finished == set(range(maker.models))
    later = Timing(started="later", finished="later", seconds={})
    assert contents(writer.finish(later)) == expected


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_damaged_files_are_found_and_done_again(
    maker: Maker, tmp_path: Path, expected: dict[str, bytes], damage: str
) -> None:
    def spoil(path: Path) -> None:
        if damage == "missing":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            flip_bit(path, path.stat().st_size - 2)

    folder = tmp_path / "zoo"
    writer = maker.create(folder)
    for member in (0, 1, 2, 4, 6, 7):
        writer.add(member_result(member))
    assert sorted(path.name for path in (folder / "journal").glob("*.safetensors")) == [
        f"{member:06d}.safetensors" for member in (2, 4, 6, 7) if member in (2, 4)
    ]
    writer.close()
    spoil(folder / "journal/000002.safetensors")
    spoil(folder / "shards/norm-0000.safetensors")
    writer = maker.resume(folder)
    assert writer.finished == {4, 6, 7}
    assert len(writer.notes) == 2
    assert "shards/norm-0000.safetensors: it" in writer.notes[0]
    assert "member 2 is trained again" in writer.notes[1]
    assert contents(maker.complete(writer)) == expected


def test_lost_records_are_trained_again(maker: Maker, tmp_path: Path, expected: dict[str, bytes]) -> None:
    folder = tmp_path / "zoo"
    writer = maker.create(folder)
    for member in (0, 1, 2, 3):
        writer.add(member_result(member))
    writer.close()
    flip_bit(folder / "journal/journal.jsonl", 100)
    writer = maker.resume(folder)
    assert writer.finished == {2, 3}
    assert "line 1 is damaged" in writer.notes[0]
    assert "lost records" in writer.notes[1]
    assert contents(maker.complete(writer)) == expected


def test_what_file_servers_leave_in_folders_is_no_hindrance(maker: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    writer = maker.create(folder)
    writer.add(member_result(0))
    writer.close()
    foreign = [folder / parent / name for parent in ("journal", "shards") for name in ("@eaDir/x", ".nfs01")]
    ours = [folder / "journal/000009.safetensors", folder / "shards/.norm-0000.safetensors.00ff00ff.tmp"]
    for path in foreign + ours:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    writer = maker.resume(folder)
    assert writer.finished == {0}
    assert [path.exists() for path in foreign + ours] == [True] * 4 + [False] * 2
    maker.complete(writer)


def test_journal_that_is_gone_starts_afresh(maker: Maker, tmp_path: Path, expected: dict[str, bytes]) -> None:
    folder = tmp_path / "zoo"
    writer = maker.create(folder)
    for member in (0, 1, 2):
        writer.add(member_result(member))
    writer.close()
    (folder / "journal/journal.jsonl").unlink()
    writer = maker.resume(folder)
    assert writer.finished == frozenset()
    assert contents(maker.complete(writer)) == expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 8}, "seed: 7 there, 8 asked"),
        ({"dtype": "float16"}, 'dtype: "float32" there, "float16" asked'),
        ({"labels": "faithful"}, 'labels: "eval" there, "faithful" asked'),
        ({"backend": "cpu", "precision": "bf16"}, 'backend: "reference" there, "cpu" asked; precision: "fp32"'),
        ({"software": {"torch": "2.14.0"}}, 'torch: "2.13.0" there, "2.14.0" asked'),
        ({"wse_version": "0.2.0"}, 'wse_version: "0.1.0" there, "0.2.0" asked'),
        (
            {"space": {"epochs": 3}},
            "space.epochs: 2 there, 3 asked; space.name: .tiny. there, absent asked; .* and 1 more",
        ),
        (
            {"image_sets": {"digits": ImageSetEntry(sha256="cd", train=50, test=10, classes=10)}},
            'image_sets.digits.sha256: "abab.* there, "cd" asked',
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_another_set_up_is_refused(maker: Maker, tmp_path: Path, changes: dict[str, object], told: str) -> None:
    folder = tmp_path / "zoo"
    maker.create(folder).add(member_result(0))
    before = contents(folder)
    with pytest.raises(UsageError, match=told) as caught:
        maker.having(**changes).resume(folder)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


def test_another_plan_is_refused(maker: Maker, tmp_path: Path) -> None:
    maker.create(tmp_path / "zoo")
    with pytest.raises(UsageError, match=r"plan: .* there, .* asked"):
        replace(maker, shard_members=3).resume(tmp_path / "zoo")


def test_tuples_in_the_space_are_lists(maker: Maker, tmp_path: Path) -> None:
    maker.having(space={"optimizers": ("sgd", "adam")}).create(tmp_path / "zoo")
    maker.having(space={"optimizers": ["sgd", "adam"]}).resume(tmp_path / "zoo")


def test_other_libraries_may_be_newer(maker: Maker, tmp_path: Path) -> None:
    maker.create(tmp_path / "zoo")
    maker.having(software={"numpy": "2.5.0", "torch": "2.13.0"}).resume(tmp_path / "zoo")


def test_create_wants_an_empty_folder(maker: Maker, tmp_path: Path) -> None:
    maker.create(tmp_path / "zoo")
    with pytest.raises(UsageError, match=r"--resume.*--overwrite"):
        maker.create(tmp_path / "zoo")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        maker.create(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    maker.create(tmp_path / "empty")
    maker.create(tmp_path / "deep" / "below")


def test_resume_wants_a_zoo(maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        maker.resume(tmp_path / "missing")


def test_finish_wants_every_member(maker: Maker, tmp_path: Path) -> None:
    writer = maker.create(tmp_path / "zoo")
    writer.add(member_result(0))
    with pytest.raises(WseError, match=r"7 of 8 members are missing \(the first is 1\)"):
        writer.finish(TIMING)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"id": 99}, "member 99 is not planned"),
        ({"architecture": "plain"}, "planned as norm"),
        ({"status": "tired"}, "must be one of ok, dead, diverged"),
        ({"config": {"optimizer": "sgd"}}, "has or lacks activation, augmented"),
        ({"batch_size": 32.0}, "must be a int64"),
        ({"batch_size": True}, "must be a int64"),
        ({"augmented": 1}, "must be a bool"),
        ({"optimizer": 3}, "must be a string"),
        ({"weights": np.zeros(3, np.float32)}, r"have shape \[3\], not \[68\]"),
        ({"weights": np.zeros(68)}, "float64"),
        ({"faithful_test_loss": 0.5}, "do not go with 'eval'"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_results_that_do_not_fit(maker: Maker, tmp_path: Path, changes: dict[str, object], told: str) -> None:
    writer = maker.create(tmp_path / "zoo")
    result = member_result(0)
    (name,) = changes
    if name in result.config:
        changes = {"config": {**result.config, **changes}}
    elif hasattr(result.snapshots[0], name):
        changes = {"snapshots": (changed(result.snapshots[0], **changes),)}
    with pytest.raises(ValueError, match=told):
        writer.add(changed(result, **changes))
    assert writer.finished == frozenset()


def test_a_member_is_stored_once(maker: Maker, tmp_path: Path) -> None:
    writer = maker.create(tmp_path / "zoo")
    writer.add(member_result(0))
    with pytest.raises(ValueError, match="member 0 is already stored"):
        writer.add(member_result(0))


def test_manifest_must_fit_the_plan(maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 members are planned, but `models` is 9"):
        maker.having(models=9).create(tmp_path / "zoo")
    norm_only = {"norm": maker.manifest.architectures["norm"]}
    with pytest.raises(ValueError, match="lacks architectures that are planned: plain"):
        maker.having(architectures=norm_only).create(tmp_path / "zoo")


def test_faithful_labels_have_columns_of_their_own(tmp_path: Path) -> None:
    maker = Maker(models=1, shard_members=1).having(models=1, labels="faithful")
    result = member_result(0)
    values = {
        f"faithful_{part}_{what}": 0.25
        for part in ("train", "validation", "test")
        for what in ("loss", "accuracy")
    }
    writer = ZooWriter.create(tmp_path / "zoo", maker.manifest, maker.plans)
    with pytest.raises(ValueError, match="do not go with 'faithful'"):
        writer.add(result)
    writer.add(changed(result, snapshots=tuple(changed(snapshot, **values) for snapshot in result.snapshots)))
    zoo = Zoo.open(writer.finish(TIMING))
    assert zoo.snapshots["faithful_test_accuracy"].to_pylist() == [0.25] * 3
    assert zoo.members["faithful_train_loss"].to_pylist() == [0.25]
    assert zoo.verify() == []


def test_manifest_of_a_complete_zoo(maker: Maker, tmp_path: Path) -> None:
    writer = maker.create(tmp_path / "zoo")
    assert writer.manifest.status == "running"
    maker.complete(writer)
    assert writer.manifest.counts == {"ok": 5, "dead": 1, "diverged": 2}
    assert writer.manifest.timing == TIMING
    members = Zoo.open(tmp_path / "zoo").members.to_pylist()
    nets = {name: layout.architecture for name, layout in LAYOUTS.items()}
    assert writer.manifest.cost == Cost(
        samples_trained=sum(row["samples_trained"] for row in members),
        samples_evaluated=sum(row["samples_evaluated"] for row in members),
        training_flops=sum(row["samples_trained"] * training_flops(nets[row["architecture"]]) for row in members),
        evaluation_flops=sum(
            row["samples_evaluated"] * 2 * forward_macs(nets[row["architecture"]]) for row in members
        ),
    )
    assert sum(entry.members for entry in writer.manifest.shards) == maker.models
    assert changed(writer.manifest, timing=None) != writer.manifest
    assert {entry.architecture for entry in writer.manifest.shards} == set(LAYOUTS)


def test_remove(maker: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    maker.complete(maker.create(folder))
    (folder / "log.jsonl").touch()
    remove_zoo(folder)
    assert list(folder.iterdir()) == []
    remove_zoo(folder)
    remove_zoo(tmp_path / "missing")
    (folder / "thesis.txt").touch()
    with pytest.raises(UsageError, match="is not a zoo, so it is not overwritten"):
        remove_zoo(folder)


def test_a_zoo_is_not_removed_beside_other_files(maker: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    maker.complete(maker.create(folder))
    (folder / "meta" / "all").mkdir(parents=True)
    (folder / "thesis.txt").touch()
    (folder / "notes").mkdir()
    before = contents(folder)
    with pytest.raises(UsageError, match=r"zoo holds notes and 1 more besides the zoo, so it is not overwritten"):
        remove_zoo(folder)
    assert contents(folder) == before
    (folder / "notes").rmdir()
    (folder / "thesis.txt").unlink()
    remove_zoo(folder)
    assert list(folder.iterdir()) == []
