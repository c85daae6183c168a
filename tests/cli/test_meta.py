"""``wse meta`` as it is typed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wse.cli.main import main
from wse.engine.errors import WseError
from wse.engine.train import Options, Run


@pytest.fixture(scope="session")
def population(tiny_space: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty real, tiny networks of one architecture."""
    folder = tmp_path_factory.mktemp("meta") / "zoo"
    space = tiny_space("small-cnn", width_conv=4, augmentation=False)
    assert Run(Options(space=space, models=30, folder=folder, threads=1)).execute()
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["wse", "meta", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_tables_and_files(population: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    asked = ["--slice", "conv1", "--targets", "optimizer,test_accuracy", "--models", "majority,statistics-linear"]
    code = run(monkeypatch, population, *asked, "--processes", 1, "--layers", "--out", tmp_path / "found")
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert re.search(r"30 networks of zoo, \d+ of them tested, reading conv1, snapshots last", out)
    assert "optimizer (3 classes, chance 33.3 %)" in out
    assert "test_accuracy (regression)" in out
    assert "statistics-boost conv1" in out
    study = json.loads((tmp_path / "found" / "study.json").read_text())
    figure = next(s for s in study["scores"] if s["target"] == "optimizer" and s["model"] == "statistics-linear")
    interval = figure["metrics"]["accuracy"]
    assert f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]" in out


def test_shuffled_answers_are_told(population: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    asked = ["--targets", "optimizer", "--models", "majority", "--shuffled", "--processes", 1]
    assert run(monkeypatch, population, *asked, "--out", tmp_path / "found") == 0
    assert "reading all, snapshots last, answers shuffled; 95 %" in capsys.readouterr().out


def test_json(population: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    asked = [
        "--targets",
        "activation,learning_rate",
        "--log",
        "learning_rate",
        "--models",
        "majority",
        "--seeds",
        2,
    ]
    assert run(monkeypatch, population, *asked, "--processes", 1, "--json", "--out", tmp_path / "f") == 0
    study = json.loads(capsys.readouterr().out)
    assert [question["log"] for question in study["questions"]] == [False, True]
    assert {fit["seed"] for fit in study["fits"]} == {0, 1}


def test_list(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "--list") == 0
    out = capsys.readouterr().out
    assert "statistics-boost" in out
    assert "dmc" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slice", "conv9"], "no part 'conv9'"),
        (["--slice", "conv1:9999"], "has 40 values, fewer than the length 9,999"),
        (["--models", "magic"], "no model 'magic'"),
        (["--targets", "weather"], "no target 'weather'"),
        (["--budget", "soon"], "'soon' is no time: write 90s, 10m"),
        (["--where", "optimizer"], "--where optimizer names no value"),
        (["--as", "epoch=class"], "epoch=class: a target's kind"),
        (["--device", "tpu"], "--device tpu: use auto, cpu or cuda"),
        (["no-such-zoo"], "no-such-zoo"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_use(population: Path, words: list[str], told: str, monkeypatch, capsys) -> None:
    monkeypatch.chdir(population.parent)
    assert run(monkeypatch, "--models", "statistics-linear", "--processes", "1", *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wse: ")
    assert told in err
    assert err.count("\n") == 1


def test_results_that_cannot_be_kept(population: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("wse.engine.meta.study.Jobs", None)  # it is said before any work is done
    code = run(monkeypatch, population, "--models", "majority", "--out", tmp_path / "file" / "folder")
    assert code == 1
    assert "cannot write into" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["tables", "json"])
def test_a_study_is_kept_though_nobody_reads_its_tables(
    flags: list[str], population: Path, tmp_path: Path, monkeypatch
) -> None:
    def closed(*_given: object, **_more: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("typer.echo", closed)  # as after `wse meta | head`
    asked = ["--targets", "optimizer", "--models", "majority", "--processes", 1, "--out", tmp_path / "found"]
    assert run(monkeypatch, population, *asked, *flags) == 1
    assert (tmp_path / "found" / "study.json").is_file()


def test_what_cannot_be_kept_is_seen(population: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def full(*_given: object) -> None:
        raise WseError("cannot write into found: No space left on device")

    monkeypatch.setattr("wse.engine.meta.write_study", full)
    asked = ["--targets", "optimizer", "--models", "majority", "--processes", 1, "--out", tmp_path / "found"]
    assert run(monkeypatch, population, *asked) == 1
    out, err = capsys.readouterr()
    assert "majority" in out
    assert "all figures" not in out
    assert err == "wse: cannot write into found: No space left on device\n"


@pytest.mark.parametrize(("ended", "told"), [(4, "what they tell is shown, and no study"), (1, "no study")])
def test_ctrl_c_shows_what_is_finished(
    ended: int, told: str, population: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    def some(jobs, *_given):
        for index in range(ended):
            yield index, jobs.do(index, None)
        raise KeyboardInterrupt

    monkeypatch.setattr("wse.engine.meta.study.done", some)
    asked = ["--targets", "optimizer,activation", "--models", "majority,setup", "--out", tmp_path / "found"]
    assert run(monkeypatch, population, *asked) == 130
    out, err = capsys.readouterr()
    assert err == f"wse: interrupted: {ended} of 12 fits are done; {told} is kept\n"
    assert ("majority" in out) is (ended == 4)
    assert "setup" not in out
    assert "activation" not in out
    assert not (tmp_path / "found").exists()


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_leaves_nothing_behind(population: Path, tmp_path: Path) -> None:
    words = [str(population), "--models", "statistics-mlp", "--seeds", "500", "--processes", "2"]
    command = [sys.executable, "-m", "wse.cli", "meta", *words, "--out", str(tmp_path / "found")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(12)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not (tmp_path / "found").exists()
