"""One zoo out of several: what it holds, what is refused, and what an interrupted or failed merge leaves."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.zoo import (
    ArchitectureEntry,
    ImageSetEntry,
    Manifest,
    Zoo,
    merge_zoos,
    placing,
    read_manifest,
    remove_zoo,
)
from wse.engine.zoo.format import write_manifest
from wse.engine.zoo.lock import Lock
from wse.engine.zoo.tables import write_table

from ...zoos import TIMING, flip_bit
from .conftest import LAYOUTS, Maker, contents, member_result

MOVED = {"id", "shard", "row"}


@pytest.fixture
def make(maker: Maker, tmp_path: Path) -> Callable[..., Zoo]:
    """Makes a zoo whose weights and manifest depend on the seed."""

    def make(name: str, seed: int, **changes: object) -> Zoo:
        having = maker.having(seed=seed, **changes)
        writer = having.create(tmp_path / name)
        for member in range(having.models):
            writer.add(member_result(member, seed=seed))
        return Zoo.open(writer.finish(TIMING))

    return make


@pytest.fixture
def zoos(make: Callable[..., Zoo]) -> list[Zoo]:
    """Three with different seeds; the last has another space and backend too."""
    return [
        make("one", 7),
        make("two", 2**64 - 1),
        make("three", 9, space={"name": "other"}, backend="cuda", precision="bf16"),
    ]


def merged(zoos: list[Zoo], out: Path) -> Zoo:
    manifest = merge_zoos([zoo.folder for zoo in zoos], out)
    opened = Zoo.open(out)
    assert opened.manifest == manifest
    return opened


def test_members_are_those_of_the_sources(zoos: list[Zoo], tmp_path: Path) -> None:
    before = [contents(zoo.folder) for zoo in zoos]
    whole = merged(zoos, tmp_path / "new" / "whole")
    assert whole.verify() == []
    assert list(whole) == list(range(24))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["whole"]
    files = sorted(path.name for path in whole.folder.iterdir())
    assert files == ["members.parquet", "shards", "snapshots.parquet", "zoo.json"]
    for number, zoo in enumerate(zoos):
        for member in zoo:
            here, there = whole[8 * number + member], zoo[member]
            assert here.weights().tobytes() == there.weights().tobytes()
            same = {name: value for name, value in there.record.items() if name not in MOVED}
            assert repr({name: here.record[name] for name in same}) == repr(same)  # NaN is not equal to itself
            rows = [{**row, "member": here.id} for row in there.snapshots]
            assert repr(here.snapshots) == repr(rows)
    module, there = whole[8].module().state_dict(), zoos[1][0].module().state_dict()
    assert all((module[name] == there[name]).all() for name in there)
    assert [contents(zoo.folder) for zoo in zoos] == before


def test_every_member_tells_what_makes_it_again(zoos: list[Zoo], tmp_path: Path) -> None:
    whole = merged(zoos, tmp_path / "whole")
    columns = {name: whole.members[f"source.{name}"].to_pylist() for name in ("number", "id", "seed", "backend")}
    assert columns["number"] == [0] * 8 + [1] * 8 + [2] * 8
    assert columns["id"] == [*range(8)] * 3
    assert columns["seed"] == [7] * 8 + [2**64 - 1] * 8 + [9] * 8
    assert columns["backend"] == ["reference"] * 16 + ["cuda"] * 8
    sources = whole.manifest.sources
    assert [source.zoo for source in sources] == ["one", "two", "three"]
    assert [source.space for source in sources] == [zoo.manifest.space for zoo in zoos]
    assert sources == whole.manifest.runs
    found = [(run.seed, here.tolist(), there.tolist()) for run, here, there in whole.by_run(np.array([1, 6, 17]))]
    assert found == [(7, [1, 6], [1, 6]), (9, [17], [1])]


def test_a_zoo_of_one_run_is_its_own_run(zoos: list[Zoo]) -> None:
    ids = np.array([1, 5])
    ((run, here, there),) = zoos[0].by_run(ids)
    assert (run.seed, run.space, run.models) == (7, zoos[0].manifest.space, 8)
    assert here.tolist() == there.tolist() == [1, 5]


def test_the_manifest_sums_up(zoos: list[Zoo], tmp_path: Path) -> None:
    manifest = merged(zoos, tmp_path / "whole").manifest
    assert manifest.models == 24
    assert manifest.counts == {"ok": 15, "dead": 3, "diverged": 6}
    assert manifest.cost.training_flops == 3 * zoos[0].manifest.cost.training_flops
    assert manifest.timing == msgspec.structs.replace(TIMING, seconds={"train": 10.5})
    assert (manifest.seed, manifest.space, manifest.backend, manifest.precision) == (None,) * 4


def test_a_merged_zoo_merges_to_the_same_as_its_sources(zoos: list[Zoo], tmp_path: Path) -> None:
    one, two, three = zoos
    pair = merged([one, two], tmp_path / "pair")
    for number, (by_steps, at_once) in enumerate([([pair, three], zoos), ([three, pair], [three, one, two])]):
        found = merged(by_steps, tmp_path / f"by-steps-{number}")
        wanted = merged(at_once, tmp_path / f"at-once-{number}")
        assert contents(found.folder) == contents(wanted.folder)
        assert found.verify() == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounded_weights_are_copied_bit_by_bit(dtype: str, make: Callable[..., Zoo], tmp_path: Path) -> None:
    pair = [make("one", 1, dtype=dtype), make("two", 2, dtype=dtype)]
    whole = merged(pair, tmp_path / "whole")
    for number, zoo in enumerate(pair):
        here, there = (
            whole.items(members=range(8 * number, 8 * number + 8), snapshots="all"),
            zoo.items(snapshots="all"),
        )
        assert len(here) == len(there) > 0
        for index in range(len(here)):
            assert here.stored(index).tobytes() == there.stored(index).tobytes()


def test_only_a_merged_zoo_has_the_new_format(zoos: list[Zoo], tmp_path: Path) -> None:
    plain = json.loads((zoos[0].folder / "zoo.json").read_text())
    assert plain["format_version"] == 1
    assert "sources" not in plain
    whole = json.loads((merged(zoos, tmp_path / "whole").folder / "zoo.json").read_text())
    assert whole["format_version"] == 2


@pytest.mark.parametrize(
    "changes",
    [{"seed": 3}, {"sources": ()}, {"backend": "cpu"}, {"format_version": 1}, {"models": 23}],
    ids=lambda changes: next(iter(changes)),
)
def test_half_a_merged_manifest_is_no_manifest(changes: dict, zoos: list[Zoo], tmp_path: Path) -> None:
    manifest = merged(zoos, tmp_path / "whole").manifest
    with pytest.raises(ValueError, match=r"merged|sources"):
        msgspec.structs.replace(manifest, **changes)
    path = tmp_path / "whole" / "zoo.json"
    Unchecked = msgspec.defstruct("Unchecked", [(name, object) for name in Manifest.__struct_fields__])
    write_manifest(path.parent, Unchecked(**{**msgspec.structs.asdict(manifest), **changes}))
    with pytest.raises(WseError, match=r"zoo\.json is damaged: .*(merged|sources)"):
        read_manifest(path.parent)


OTHER_DIGITS = ImageSetEntry(sha256="cd" * 32, train=50, test=10, classes=10)
UNLIKE = {
    "dtype": ({"dtype": "float16"}, r"differ in number formats of their weights \(--dtype\)"),
    "labels": ({"labels": "faithful"}, r"differ in labels \(--faithful\)"),
    "properties": ({"config_types": {"optimizer": "string"}}, "differ in properties"),
    "image set": ({"image_sets": {"digits": OTHER_DIGITS}}, "the image set digits is not the same in"),
    "architecture": (
        {"architectures": {"norm": ArchitectureEntry.of(LAYOUTS["plain"])}},
        "the architecture norm is not the same in",
    ),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_zoos_that_do_not_go_together(case: str, zoos: list[Zoo], tmp_path: Path) -> None:
    changes, told = UNLIKE[case]
    manifest = zoos[1].manifest
    changes = {
        name: {**getattr(manifest, name), **value} if name == "architectures" else value
        for name, value in changes.items()
    }
    write_manifest(zoos[1].folder, msgspec.structs.replace(manifest, **changes))
    with pytest.raises(UsageError, match=told) as refused:
        merge_zoos([zoo.folder for zoo in zoos], tmp_path / "whole")
    assert all(str(zoo.folder) in str(refused.value) for zoo in zoos[:2])
    assert not (tmp_path / "whole").exists()


def test_the_same_network_twice_is_refused(make: Callable[..., Zoo], zoos: list[Zoo], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one and .*one hold the same networks \(8 in all\)"):
        merge_zoos([zoos[0].folder, zoos[0].folder], tmp_path / "whole")
    pair = merged(zoos[:2], tmp_path / "pair")
    with pytest.raises(UsageError, match=r"pair and .*two hold .* member 8 of the one is member 0 of the other"):
        merge_zoos([pair.folder, zoos[1].folder], tmp_path / "whole")
    # Another backend, and settings that show in no property, make siblings at best.
    other = make("other", 7, space={"name": "longer"}, backend="cpu")
    with pytest.raises(UsageError, match="hold the same networks"):
        merge_zoos([zoos[0].folder, other.folder], tmp_path / "whole")


def test_the_same_seed_with_other_set_ups_is_welcome(
    make: Callable[..., Zoo], maker: Maker, tmp_path: Path
) -> None:
    one = make("one", 7)
    writer = maker.having(seed=7).create(tmp_path / "two")
    for member in range(8):
        result = member_result(member)
        writer.add(msgspec.structs.replace(result, config={**result.config, "learning_rate": 0.5}))
    assert len(merged([one, Zoo.open(writer.finish(TIMING))], tmp_path / "whole")) == 16


def test_places_that_are_refused(zoos: list[Zoo], tmp_path: Path) -> None:
    folders = [zoo.folder for zoo in zoos]
    before = contents(tmp_path)
    for out in (folders[0], folders[1] / "shards"):
        with pytest.raises(UsageError, match="is not empty"):
            merge_zoos(folders, out)
    with pytest.raises(UsageError, match="lies in the zoo"):
        merge_zoos(folders, folders[2] / "whole")
    with pytest.raises(UsageError, match="two zoos or more"):
        merge_zoos(folders[:1], tmp_path / "whole")
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert merged(zoos, tmp_path / "empty").verify() == []


def test_an_unfinished_zoo_is_refused(maker: Maker, zoos: list[Zoo], tmp_path: Path) -> None:
    writer = maker.having(seed=1).create(tmp_path / "running")
    writer.add(member_result(0))
    writer.close()
    with pytest.raises(WseError, match="running is unfinished"):
        merge_zoos([zoos[0].folder, tmp_path / "running"], tmp_path / "whole")


def test_a_merged_zoo_is_not_gone_on_with(maker: Maker, zoos: list[Zoo], tmp_path: Path) -> None:
    whole = merged(zoos, tmp_path / "whole")
    before = contents(whole.folder)
    with pytest.raises(UsageError, match=r"was merged from 3 zoos, and a merged zoo cannot be gone on with"):
        maker.resume(whole.folder)
    assert contents(whole.folder) == before
    remove_zoo(whole.folder)
    assert list(whole.folder.iterdir()) == []


@pytest.mark.parametrize("position", [0.02, 0.5, 0.999], ids=["header", "middle", "end"])
def test_damage_is_found_on_the_way(position: float, zoos: list[Zoo], tmp_path: Path) -> None:
    shard = zoos[1].folder / "shards" / zoos[1].manifest.shards[2].file
    flip_bit(shard, int(position * shard.stat().st_size))
    with pytest.raises(WseError, match=f"{shard} is damaged"):
        merge_zoos([zoo.folder for zoo in zoos], tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]


@pytest.mark.parametrize("file", ["members.parquet", "snapshots.parquet", "zoo.json"])
def test_damaged_tables_are_found(file: str, zoos: list[Zoo], tmp_path: Path) -> None:
    path = zoos[2].folder / file
    flip_bit(path, path.stat().st_size // 2)
    copied: list[int] = []
    with pytest.raises(WseError, match=f"{path} is damaged"):
        merge_zoos([zoo.folder for zoo in zoos], tmp_path / "whole", lambda done, _: copied.append(done))
    assert copied == []  # not found out after hours of copying
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]


@pytest.mark.parametrize("changed", ["models", "shards"])
def test_a_zoo_that_contradicts_itself_is_damaged(changed: str, zoos: list[Zoo], tmp_path: Path) -> None:
    manifest = zoos[1].manifest
    changes = {"models": 9} if changed == "models" else {"shards": manifest.shards[1:]}
    write_manifest(zoos[1].folder, msgspec.structs.replace(manifest, **changes))
    with pytest.raises(WseError, match=r"two/members\.parquet is damaged: its members are not those"):
        merge_zoos([zoo.folder for zoo in zoos], tmp_path / "whole")


def test_an_interrupted_merge_leaves_nothing(zoos: list[Zoo], tmp_path: Path) -> None:
    told = []

    def interrupt(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_zoos([zoo.folder for zoo in zoos], tmp_path / "whole", interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_full_disk_is_one_clear_line(zoos: list[Zoo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folders, out = [zoo.folder for zoo in zoos], tmp_path / "whole"
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(WseError, match=f"cannot write {out}: No space left on device; nothing is left of it"):
            merge_zoos(folders, out)
    monkeypatch.setattr(placing.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(WseError, match=f"{out} needs .* but .* has 1.0 kB free: make room"):
        merge_zoos(folders, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]


KILLED = """
import os, signal, sys
from pathlib import Path
from wse.engine.zoo import merge
real, calls = getattr(merge, sys.argv[1]), 0
def killed(*arguments, **keywords):
    global calls
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    calls += 1
    return real(*arguments, **keywords)
setattr(merge, sys.argv[1], killed)
merge.merge_zoos([Path("one"), Path("two"), Path("three")], Path("whole"))
"""


@pytest.mark.parametrize(("function", "calls"), [("copy_shard", 0), ("copy_shard", 5), ("write_manifest", 0)])
def test_a_killed_merge_leaves_no_zoo(function: str, calls: int, zoos: list[Zoo], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, function, str(calls)], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "whole").exists()
    assert not list(tmp_path.glob(".*/zoo.json"))
    assert merged(zoos, tmp_path / "whole").verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two", "whole"]


def test_two_merges_do_not_share_a_folder(zoos: list[Zoo], tmp_path: Path) -> None:
    building = tmp_path / ".whole.merging"
    building.mkdir()
    (building / "shards").mkdir()
    held = Lock(building)
    with pytest.raises(UsageError, match="is being written by process"):
        merge_zoos([zoo.folder for zoo in zoos], tmp_path / "whole")
    assert (building / "shards").is_dir()
    held.release()
    assert merged(zoos, tmp_path / "whole").verify() == []
    assert not building.exists()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("source.number", 3),
        ("source.number", 0),
        ("source.id", 8),
        ("source.id", None),
        ("source.seed", 8),
        ("source.backend", "cpu"),
        ("source.precision", "tf32"),
    ],
)
def test_verify_compares_members_and_sources(column: str, value: object, zoos: list[Zoo], tmp_path: Path) -> None:
    whole = merged(zoos, tmp_path / "whole")
    values = whole.members[column].to_pylist()
    values[10] = value
    place = whole.members.schema.get_field_index(column)
    field = whole.members.schema.field(place)
    table = whole.members.set_column(place, field, pa.array(values, field.type))
    entry = write_table(whole.folder / "members.parquet", table)
    tables = {**whole.manifest.tables, "members.parquet": entry}
    write_manifest(whole.folder, msgspec.structs.replace(whole.manifest, tables=tables))
    told = f"{whole.folder / 'members.parquet'}: member 10 is not a member of the source that it names"
    assert Zoo.open(whole.folder).verify() == [told]


def test_verify_finds_a_member_that_is_there_twice(zoos: list[Zoo], tmp_path: Path) -> None:
    whole = merged(zoos, tmp_path / "whole")
    place = whole.members.schema.get_field_index("source.id")
    table = whole.members.set_column(place, whole.members.schema.field(place), pa.array([0, 0, *range(2, 8)] * 3))
    whole.members = table
    assert sum("is not a member of the source" in line for line in whole.verify()) == 3


def test_a_copied_zoo_is_merged_under_its_name(zoos: list[Zoo], tmp_path: Path) -> None:
    shutil.copytree(zoos[0].folder, tmp_path / "far" / "copy")
    whole = merged([Zoo.open(tmp_path / "far" / "copy"), zoos[1]], tmp_path / "whole")
    assert [source.zoo for source in whole.manifest.sources] == ["copy", "two"]
