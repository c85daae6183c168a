"""``wse verify`` as a person runs it: what it says of zoos that are whole, wrong or damaged, and what it mends."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import msgspec
import pyarrow as pa

from wse.engine.zoo import Zoo
from wse.engine.zoo.format import write_manifest
from wse.engine.zoo.tables import write_table

from ..zoos import flip_bit
from .process import start, wait_for_members, wse


def test_verify_says_that_a_zoo_is_whole(small: Path) -> None:
    done = wse("verify", folder=small)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("zoo is whole: 24 members, ")
    assert done.stdout.count("\n") == 1
    shown = json.loads(wse("verify", "--json", folder=small).stdout)
    assert shown == {
        "zoo": "zoo", "whole": True, "measured": 0, "regenerated": 0, "problems": [], "repaired": [], "repair": []
    }  # fmt: skip
    done = wse("verify", "--labels", "3", folder=small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(", 3 measured again\n")
    done = wse("verify", "--regenerate", "2", "--quiet", folder=small)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(", 2 trained again to the same bits\n")


def test_reports_and_curves_in_the_folder_leave_a_zoo_whole(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "zoo", tmp_path / "zoo")
    assert wse("info", "--curves", "zoo/curves.svg", folder=tmp_path).returncode == 0
    assert wse("report", "--out", "zoo/report.html", "--no-embedding", folder=tmp_path).returncode == 0
    done = wse("verify", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("; beside it in the folder: curves.svg, report-data, report.html\n")
    (tmp_path / "zoo" / "notes.txt").touch()
    done = wse("verify", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("zoo/notes.txt: it does not belong to the zoo\n")


def test_verify_says_which_label_is_wrong(small: Path, tmp_path: Path) -> None:
    """One more test image than the network gets right, in files that are each whole."""
    zoo = tmp_path / "zoo"
    shutil.copytree(small / "zoo", zoo)
    there = Zoo.open(zoo)
    accuracies = there.members["test_accuracy"].to_pylist()
    accuracies[5] += 1 / 50
    column = there.members.schema.get_field_index("test_accuracy")
    table = there.members.set_column(column, "test_accuracy", pa.array(accuracies))
    entry = write_table(zoo / "members.parquet", table)
    tables = {**there.manifest.tables, "members.parquet": entry}
    write_manifest(zoo, msgspec.structs.replace(there.manifest, tables=tables))
    assert wse("verify", folder=tmp_path).returncode == 0
    done = wse("verify", "--labels", "24", "--json", folder=tmp_path)
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["file"] == "members.parquet"
    assert problem["problem"].startswith("member 5: its weights have test accuracy ")


def test_verify_says_what_is_wrong(small: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(small / "zoo", zoo)
    (shard,) = (zoo / "shards").iterdir()
    flip_bit(shard, shard.stat().st_size - 1)
    (zoo / "snapshots.parquet").unlink()
    done = wse("verify", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "zoo/snapshots.parquet: it is missing",
        f"zoo/shards/{shard.name}: its content does not match its sha256",
        "`wse verify --repair zoo` would",
        f"  train the members of shards/{shard.name} again (24)",
        "  make snapshots.parquet again from the snapshots, measured",
    ]
    done = wse("verify", "--json", folder=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "zoo": "zoo",
        "whole": False,
        "measured": 0,
        "regenerated": 0,
        "problems": [
            {"file": "snapshots.parquet", "problem": "it is missing"},
            {"file": f"shards/{shard.name}", "problem": "its content does not match its sha256"},
        ],
        "repaired": [],
        "repair": [
            f"train the members of shards/{shard.name} again (24)",
            "make snapshots.parquet again from the snapshots, measured",
        ],
    }
    flip_bit(zoo / "zoo.json", (zoo / "zoo.json").read_bytes().index(b'"models": 24') + len('"models": '))
    done = wse("verify", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("zoo/zoo.json: its content does not match its checksum\n")
    (found,) = json.loads(wse("verify", "--json", folder=tmp_path).stdout)["problems"]
    assert found == {"file": "zoo.json", "problem": "its content does not match its checksum"}


def test_repair_mends_all_it_can_and_says_what_it_cannot(small: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(small / "zoo", zoo)
    (shard,) = (zoo / "shards").iterdir()
    flip_bit(shard, shard.stat().st_size - 1)
    (zoo / "members.parquet").unlink()
    (zoo / "mine.txt").touch()
    done = wse("verify", "--repair", "--quiet", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        f"done: train the members of shards/{shard.name} again (24)",
        "done: make members.parquet again from log, space and snapshots",
        "zoo/mine.txt: it does not belong to the zoo",
        "what --repair cannot mend:",
        "  zoo/mine.txt: it is not of the zoo: move it elsewhere",
    ]
    (zoo / "mine.txt").unlink()
    for path in (small / "zoo").rglob("*"):
        if path.is_file() and path.name != "log.jsonl":
            assert (zoo / path.relative_to(small / "zoo")).read_bytes() == path.read_bytes()
    assert wse("verify", "--repair", folder=tmp_path).stdout.startswith("zoo is whole")


def test_an_interrupted_repair_exits_with_130_and_goes_on(small: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(small / "zoo", zoo)
    (shard,) = (zoo / "shards").iterdir()
    shard.unlink()
    process = start("verify", "--repair", folder=tmp_path)
    wait_for_members(zoo / "repair", 2, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].endswith("go on with `wse verify --repair zoo`")
    assert Zoo.open(zoo).members.num_rows == 24
    done = wse("verify", "--repair", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert shard.read_bytes() == (small / "zoo" / "shards" / shard.name).read_bytes()
    assert not (zoo / "repair").exists()
