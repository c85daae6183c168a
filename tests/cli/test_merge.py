"""``wse merge`` as it is typed, and the other commands on what it makes: real, tiny networks."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wse.engine.report.facts import commands
from wse.engine.report.summary import _clear_accuracy
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

Wse = Callable[..., int]


@pytest.fixture
def wse(wse_in: Callable[[Path], Wse], parts: Path) -> Wse:
    """Runs a command in the folder of the parts; its exit code."""
    return wse_in(parts)


@pytest.fixture(scope="module")
def parts(tiny_space: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two zoos of different seeds, spaces and backends, and with the zoo merged from them."""
    folder = tmp_path_factory.mktemp("merge")
    spaces = tiny_space(), tiny_space("small-cnn", width_conv=4, batch_size=16, test_images=100)
    for name, seed, space, device in zip(("one", "two"), (1, 2), spaces, ("cpu", "reference"), strict=True):
        options = Options(space=space, models=12, folder=folder / name, seed=seed, threads=1, device=device)
        assert Run(options).execute()
    command = [sys.executable, "-m", "wse.cli", "merge", "one", "two", "--out", "zoo"]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("zoo: 24 members of one (12), two (12), ")
    assert done.stdout.endswith("\nlook inside with `wse info zoo`\n")
    return folder


def test_the_result_as_json(wse: Wse, tmp_path: Path, capsys) -> None:
    assert wse("merge", "two", "one", "--out", tmp_path / "zoo", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    zoo = Zoo.open(tmp_path / "zoo")
    assert told == {
        "zoo": str(tmp_path / "zoo"),
        "models": 24,
        "counts": zoo.manifest.counts,
        "bytes": sum(entry.bytes for entry in zoo.manifest.shards),
        "sources": 2,
    }


def test_info_names_the_sources(wse: Wse, capsys) -> None:
    assert wse("info", "zoo") == 0
    shown = capsys.readouterr().out
    assert "merged from one (12), two (12)\n" in shown
    assert "cpu backend in fp32, reference backend in fp32\nseeds       1, 2\n" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert wse("info", "zoo", "--json") == 0
    assert [source["seed"] for source in json.loads(capsys.readouterr().out)["zoo"]["sources"]] == [1, 2]


def test_guessing_goes_by_the_test_images_of_each_source(parts: Path) -> None:
    one, two, zoo = (_clear_accuracy(Zoo.open(parts / name)) for name in ("one", "two", "zoo"))
    np.testing.assert_array_equal(zoo, np.concatenate([one, two]))
    assert one[0] > two[0]


def test_verify_and_labels(wse: Wse, capsys) -> None:
    assert wse("verify", "zoo", "--labels", "24") == 0, capsys.readouterr().out
    assert capsys.readouterr().out.endswith(", 24 measured again\n")


def test_meta_reads_it(wse: Wse, tmp_path: Path, capsys) -> None:
    asked = ["--slice", "conv1", "--models", "majority", "--targets", "optimizer", "--processes", "1", "-q"]
    assert wse("meta", "zoo", *asked, "--out", tmp_path / "at-random") == 0
    held_out = ["--holdout", "source.number=1"]
    assert wse("meta", "zoo", *asked, *held_out, "--out", tmp_path / "held-out") == 0, capsys.readouterr()
    study = json.loads((tmp_path / "held-out" / "study.json").read_text())
    assert study["zoo_seed"] is None
    assert {score["members"] for score in study["scores"] if score["view"] == "all"} == {12}


def test_the_commands_of_its_report_make_it_again(wse: Wse, tmp_path: Path, monkeypatch, capsys) -> None:
    zoo = Zoo.open("zoo").folder.resolve()
    assert wse("report", "zoo", "--no-embedding", "--out", tmp_path / "report.html") == 0
    words = commands(Zoo.open(zoo).manifest, ["report-data/space-0.toml", "report-data/space-1.toml"])
    assert "\n".join(words) in (tmp_path / "report.html").read_text()
    monkeypatch.chdir(tmp_path)
    for command in words:
        assert wse(*shlex.split(command)[1:]) == 0, capsys.readouterr()
    there, again = Zoo.open(zoo), Zoo.open("zoo")
    for member in there:
        np.testing.assert_array_equal(again[member].weights(), there[member].weights())
    left_out = ["seconds"]
    assert again.members.drop_columns(left_out).equals(there.members.drop_columns(left_out))


WRONG = {
    "one zoo": (["one", "--out", "new"], "name two zoos or more"),
    "no zoo": (["one", "nowhere", "--out", "new"], "there is no folder nowhere"),
    "twice": (["zoo", "one", "--out", "new"], "hold the same networks (12 in all)"),
    "taken": (["one", "two", "--out", "zoo"], "zoo is not empty"),
    "inside": (["one", "two", "--out", "one/new"], "lies in the zoo one"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_clear_line(case: str, wse: Wse, parts: Path, capsys) -> None:
    words, expected = WRONG[case]
    before = sorted(parts.rglob("*"))
    assert wse("merge", *words) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert errors.startswith("wse: ")
    assert errors.count("\n") == 1
    assert sorted(parts.rglob("*")) == before


def test_a_merged_zoo_is_not_gone_on_with(wse: Wse, capsys) -> None:
    for words in (["--resume"], ["--resume", "--models", "48"]):
        assert wse("generate", *words, "--out", "zoo") == 2
        errors = capsys.readouterr().err
        assert errors.startswith("wse: zoo was merged from 2 zoos, and a merged zoo cannot be gone on with: ")
        assert errors.count("\n") == 1


def test_one_seed_for_several_spaces_is_told(wse: Wse, tiny_space: Any, tmp_path: Path, capsys) -> None:
    options = Options(space=tiny_space(batch_size=8), models=2, folder=tmp_path / "same", seed=1, threads=1)
    assert Run(options).execute()
    assert wse("merge", "one", tmp_path / "same", "--out", tmp_path / "zoo") == 0
    assert capsys.readouterr().err.startswith("seed 1 made several of these zoos")


STOPPED = """
import os, signal, sys
from wse.engine.zoo import merge
number = getattr(signal, sys.argv[1])
real = merge.copy_shard
def stopped(*arguments):
    os.kill(os.getpid(), number)
    return real(*arguments)
merge.copy_shard = stopped
sys.argv = ["wse", "merge", "one", "two", "--out", "new"]
from wse.cli.main import main
main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_leaves_nothing(name: str, parts: Path) -> None:
    before = sorted(parts.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, name], cwd=parts, text=True, capture_output=True, check=False
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(parts.rglob("*")) == before
