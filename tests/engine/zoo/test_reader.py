from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from wse.engine.errors import UsageError, WseError
from wse.engine.zoo import DamagedError, Zoo, find_problems, found_beside, reader
from wse.engine.zoo.format import write_manifest

from ...zoos import flip_bit
from .conftest import LAYOUTS, Maker, contents, member_result, name_other_members


def test_members_in_order(zoo: Zoo) -> None:
    assert len(zoo) == 8
    assert list(zoo) == list(range(8))
    assert repr(zoo[4]) == "ZooMember(4, norm, diverged, 1 snapshots)"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_come_back(tmp_path: Path, dtype: str) -> None:
    zoo = Maker().having(dtype=dtype).make(tmp_path / "zoo")
    for member in zoo:
        result = member_result(member)
        weights = zoo[member].weights()
        assert weights.dtype == np.float32
        assert weights.shape == (len(result.snapshots), LAYOUTS[result.architecture].size)
        for found, snapshot in zip(weights, result.snapshots, strict=True):
            rounded = torch.from_numpy(snapshot.weights).to(getattr(torch, dtype)).float().numpy()
            np.testing.assert_array_equal(found, rounded)


def test_member_tells_its_set_up(zoo: Zoo) -> None:
    for member in zoo:
        result = member_result(member)
        assert zoo[member].config == result.config
        assert (zoo[member].architecture, zoo[member].status) == (result.architecture, result.status)
        assert [row["step"] for row in zoo[member].snapshots] == [s.step for s in result.snapshots]
    assert zoo[3].record["config.optimizer"] == "sgd"
    assert zoo.architectures.keys() == LAYOUTS.keys()
    assert zoo[2].layout.tensors == LAYOUTS["plain"].tensors


def test_state_dict_follows_the_layout(zoo: Zoo) -> None:
    weights = zoo[0].weights()
    for snapshot in (0, 2, -1, -3):
        state = zoo[0].state_dict(snapshot)
        assert list(state) == list(LAYOUTS["norm"].tensors)
        flat = torch.cat([tensor.flatten() for tensor in state.values()])
        np.testing.assert_array_equal(flat.numpy(), weights[snapshot])
        assert state["conv1.weight"].shape == (3, 1, 3, 3)
    for snapshot in (3, -4):
        with pytest.raises(UsageError, match=f"member 0 has no snapshot {snapshot}: it has 3"):
            zoo[0].state_dict(snapshot)
    with pytest.raises(UsageError, match="it has 0"):
        zoo[5].state_dict()


def test_module_runs_with_the_stored_weights(zoo: Zoo) -> None:
    for member in (0, 2):
        module = zoo[member].module()
        assert not module.training
        for name, tensor in zoo[member].state_dict().items():
            assert torch.equal(module.state_dict()[name], tensor)


def test_module_needs_an_activation(zoo: Zoo) -> None:
    member = zoo[0]
    del member.record["config.activation"]
    with pytest.raises(UsageError, match="member 0 has no property `activation`"):
        member.module()


@pytest.mark.parametrize("member", [8, -1, 10**12])
def test_unknown_member(zoo: Zoo, member: int) -> None:
    with pytest.raises(UsageError, match=f"has no member {member}: its 8 ids lie between 0 and 7"):
        zoo[member]


def test_unfinished_zoo(maker: Maker, tmp_path: Path) -> None:
    writer = maker.create(tmp_path / "zoo")
    for member in (0, 1, 2):
        writer.add(member_result(member))
    with pytest.raises(WseError, match=r"unfinished: 3 of 8 members are there; .* --resume --out .*zoo`"):
        Zoo.open(tmp_path / "zoo")


def test_opening_reads_no_table_and_no_torch(zoo: Zoo) -> None:
    for path in zoo.folder.rglob("*.parquet"):
        path.unlink()
    code = "import sys; from wse.engine.zoo import Zoo; print(len(Zoo.open(sys.argv[1])), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code, zoo.folder], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["8", "False"]


def test_few_files_are_open(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "OPEN_SHARDS", 2)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for member in zoo:
            zoo[member].weights()
        assert len(os.listdir("/proc/self/fd")) - before <= 2


def test_a_copy_opens_its_own_files(zoo: Zoo) -> None:
    zoo[0].weights()
    copy = pickle.loads(pickle.dumps(zoo))
    np.testing.assert_array_equal(copy[0].weights(), zoo[0].weights())


def test_damaged_snapshot_is_refused_and_others_are_not(zoo: Zoo) -> None:
    path = zoo.folder / "shards" / zoo[0].record["shard"]
    flip_bit(path, path.stat().st_size - 1)  # the last snapshot of member 1
    zoo[0].weights()
    with pytest.raises(WseError, match=r"norm-0000\.safetensors is damaged: snapshot 2 of member 1"):
        zoo[1].weights()
    zoo[1].state_dict(0)


def test_shard_of_another_zoo_is_refused(maker: Maker, zoo: Zoo, tmp_path: Path) -> None:
    shards = zoo.folder / "shards"
    name_other_members(shards / "norm-0002.safetensors")
    with pytest.raises(WseError, match=r"norm-0002\.safetensors is damaged: row 0 is not member 6"):
        zoo[6].weights()
    (shards / "norm-0000.safetensors").unlink()
    with pytest.raises(WseError, match=r"norm-0000\.safetensors is missing"):
        zoo[0].weights()
    half = maker.having(dtype="float16").make(tmp_path / "half")
    os.replace(half.folder / "shards/plain-0000.safetensors", shards / "plain-0000.safetensors")
    with pytest.raises(WseError, match=r"plain-0000\.safetensors is damaged: its size or its header"):
        zoo[2].weights()


def test_verify_finds_nothing_in_a_whole_zoo(zoo: Zoo) -> None:
    (zoo.folder / "log.jsonl").touch()
    assert zoo.verify() == []


@pytest.mark.parametrize(
    "file",
    ["members.parquet", "snapshots.parquet", "shards/norm-0001.safetensors", "shards/plain-0000.safetensors"],
)
def test_verify_finds_every_flipped_bit(zoo: Zoo, file: str) -> None:
    path = zoo.folder / file
    content = path.read_bytes()
    for position in range(0, len(content), 37):
        flip_bit(path, position, position % 8)
        problems = Zoo.open(zoo.folder).verify()
        assert problems == [f"{path}: its content does not match its sha256"]
        path.write_bytes(content)


def test_verify_finds_missing_cut_and_surplus_files(zoo: Zoo) -> None:
    shards = zoo.folder / "shards"
    (shards / "norm-0000.safetensors").unlink()
    path = shards / "norm-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (shards / "stray").touch()
    (zoo.folder / "journal").mkdir()
    problems = zoo.verify()
    assert [problem.removeprefix(str(zoo.folder)) for problem in problems] == [
        "/shards/norm-0000.safetensors: it is missing",
        f"/shards/norm-0001.safetensors: it has {path.stat().st_size:,} bytes instead of "
        f"{path.stat().st_size + 1:,}",
        "/journal: it was left by a run or a repair that was killed",
        "/shards/stray: it does not belong to the zoo",
    ]


def test_what_was_made_of_a_zoo_may_lie_beside_it(zoo: Zoo) -> None:
    for name in ("curves.png", "page.html", "page-data/figure.csv", "fc/study.json"):
        (zoo.folder / name).parent.mkdir(exist_ok=True)
        (zoo.folder / name).touch()
    assert zoo.verify() == []
    assert [path.name for path in found_beside(zoo.folder)] == ["curves.png", "fc", "page-data", "page.html"]
    for name in ("page.csv", "other-data/figure.csv", "notes/text", "shards/curves.png"):
        (zoo.folder / name).parent.mkdir(exist_ok=True)
        (zoo.folder / name).touch()
    assert [problem.split(": ")[0].removeprefix(f"{zoo.folder}/") for problem in zoo.verify()] == [
        "notes", "other-data", "page.csv", "shards/curves.png"
    ]  # fmt: skip


def test_verify_compares_tables_shards_and_manifest(zoo: Zoo) -> None:
    """Files that are each whole but do not belong together."""
    first, second, *rest = zoo.manifest.shards
    mixed = msgspec.structs.replace(
        zoo.manifest,
        shards=(msgspec.structs.replace(second, file=first.file), second, *rest),
        counts={"ok": 8, "dead": 0, "diverged": 0},
    )
    (zoo.folder / "shards" / first.file).write_bytes((zoo.folder / "shards" / second.file).read_bytes())
    write_manifest(zoo.folder, mixed)
    problems = Zoo.open(zoo.folder).verify()
    assert "members by status" in problems[0]
    assert [problem.split(": ", 1)[1] for problem in problems[1:]] == [
        "row 0 is not the member that members.parquet names",
        "row 1 is not the member that members.parquet names",
    ]
    assert all(first.file in problem for problem in problems[1:])
    fewer = msgspec.structs.replace(zoo.manifest, shards=tuple(rest), models=9)
    write_manifest(zoo.folder, fewer)
    text = "\n".join(Zoo.open(zoo.folder).verify())
    assert f"{first.file}: it does not belong to the zoo" in text
    assert "it has 8 members instead of 9" in text
    assert f"names row 0 of {first.file}, which does not exist" in text


def test_verify_goes_on_after_a_shard_that_cannot_be_opened(zoo: Zoo) -> None:
    """A shard with the checksum that zoo.json names, but of another architecture."""
    first, *rest = zoo.manifest.shards
    write_manifest(
        zoo.folder,
        msgspec.structs.replace(
            zoo.manifest, shards=(msgspec.structs.replace(first, architecture="plain"), *rest)
        ),
    )
    name_other_members(zoo.folder / "shards" / "norm-0002.safetensors")
    problems = find_problems(Zoo.open(zoo.folder))
    assert [(problem.file.name, problem.text) for problem in problems] == [
        ("norm-0002.safetensors", "its content does not match its sha256"),
        (first.file, "its size or its header is not the one zoo.json names"),
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda m: {"tables": {name: m.tables[name] for name in ["members.parquet"]}},
            "it does not name snapshots",
        ),
        (
            lambda m: {"architectures": {"norm": m.architectures["norm"]}},
            "describe the architecture of shard 'plain-",
        ),
        (
            lambda m: {"shards": (msgspec.structs.replace(m.shards[0], file="../zoo.json"), *m.shards[1:])},
            "it names '../zoo.json', which is not the name of a file",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(zoo: Zoo, change, told: str) -> None:
    write_manifest(zoo.folder, msgspec.structs.replace(zoo.manifest, **change(zoo.manifest)))
    with pytest.raises(DamagedError, match=told):
        Zoo.open(zoo.folder)


def test_a_shard_that_only_the_table_names_is_refused(zoo: Zoo) -> None:
    write_manifest(zoo.folder, msgspec.structs.replace(zoo.manifest, shards=zoo.manifest.shards[1:]))
    with pytest.raises(DamagedError, match="it does not name the shard norm-0000"):
        Zoo.open(zoo.folder)[0].weights()


def test_a_damaged_file_is_told_across_processes(tmp_path: Path) -> None:
    error = DamagedError(tmp_path / "zoo.json", "it is torn")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path, copy.problem) == (str(error), error.path, "it is torn")


def test_verify_changes_nothing(zoo: Zoo) -> None:
    before = contents(zoo.folder)
    zoo.verify()
    assert contents(zoo.folder) == before


def test_a_zoo_of_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    maker = Maker(models=90, shard_members=1).having(models=90)
    folder = maker.make(tmp_path / "zoo").folder
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    here = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (here + 40, before[1]))
    try:
        zoo = Zoo.open(folder)
        assert sum(len(zoo[member].weights()) for member in zoo) > 250
        assert zoo.verify() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
