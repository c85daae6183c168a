"""``wse bench`` as a person runs it, on a network small enough to be quick."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wse.cli.bench import _hand_over, _print_result
from wse.cli.main import main
from wse.engine.bench import Card, Entry, Result

from .process import wse

TINY = ["--set", "width_conv=2", "--set", "images_per_epoch=96", "--batch", "48", "--threads", "2"]
QUICK = ["--seconds", "0.2", "--rounds", "2", "--contenders", "reference,pytorch-nx1,vmap"]

# A contender that forgets every second step, put in place of all others before the command runs.
BROKEN = """
import dataclasses, sys
from wse.cli.main import main
from wse.engine.bench import sites
from wse.engine.bench.plain import Plain

class Forgetful(Plain):
    def outcomes(self, workload):
        starts = [workload.initial_weights(member) for member in workload.checked()]
        return [
            dataclasses.replace(found, weights=(start + found.weights) / 2)
            for found, start in zip(super().outcomes(workload), starts, strict=True)
        ]

def entrants(threads):
    return [Plain(name="right", label="right"), Forgetful(name="forgetful", label="forgetful")]

if __name__ == "__main__":
    sites.contenders = entrants
    main()
"""


def alive_in_group(group: int) -> list[str]:
    """The processes of a process group that have not ended (a zombie has)."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                alive.append(stat.parent.name)
    return alive


def test_table_fits_the_terminal_and_results_are_appended(tmp_path: Path) -> None:
    arguments = (
        "bench",
        "train",
        "--preset",
        "small-cnn",
        *TINY,
        *QUICK,
        "--out",
        "rows.jsonl",
        "--plot",
        "bars.svg",
    )
    done = wse(*arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for expected in (
        "small-cnn-48",
        "ours: reference",
        "PyTorch 2 x 1",
        "torch.func.vmap of 16",
        "peak",
        "torch 2.",
    ):
        assert expected in done.stdout
    assert "round 2 of 2" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["contender"] for row in rows] == ["reference", "pytorch-nx1", "vmap"]
    assert max(row["ratio"] for row in rows if row["contender"] != "reference") == 1.0
    for row in rows:
        assert len(row["rounds"]["samples_per_second"]) == 2
        assert 0 < row["of_peak"] <= 1.02
        assert row["provenance"]["cores"] >= 1
    assert (tmp_path / "bars.svg").exists()


def test_results_as_json(tmp_path: Path) -> None:
    chosen = ("--seconds", "0.1", "--rounds", "1", "--contenders", "reference", "--json", "--quiet")
    done = wse("bench", "train", "--preset", "small-cnn", *TINY, *chosen, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (row,) = json.loads(done.stdout)
    assert row["workload"] == "small-cnn-48"
    assert row["status"] == "ok"
    assert row["ratio"] is None
    assert list(tmp_path.iterdir()) == []


def test_results_are_kept_though_nobody_reads_them(tmp_path: Path, monkeypatch) -> None:
    def closed(*_given: object, **_more: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("typer.echo", closed)  # as after `wse bench train | head`
    report = SimpleNamespace(records=lambda: [{"ratio": 2.0}])
    with pytest.raises(BrokenPipeError):
        _hand_over(iter([report]), [], print, out=tmp_path / "rows.jsonl", as_json=True)
    assert (tmp_path / "rows.jsonl").read_text() == '{"ratio": 2.0}\n'


def test_a_wrong_contender_gets_no_ratio_and_fails_the_command(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN)
    arguments = ["bench", "train", "--preset", "small-cnn", *TINY, "--seconds", "0.1", "--rounds", "1", "-q"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "forgetful on small-cnn-48: relative error of the update" in done.stderr
    assert done.stderr.count("\n") == 1
    right, forgetful = (line for line in done.stdout.splitlines() if line.startswith(("right", "forgetful")))
    assert right.split()[-1] == "1.00"
    assert "wrong" in forgetful


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_an_interrupt_keeps_whole_rounds_and_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wse.cli", "bench", "train", "--preset", "small-cnn", *TINY]
    process = subprocess.Popen(
        [*command, "--seconds", "0.3", "--rounds", "1000", "--contenders", "pytorch-nx1", "--out", "rows.jsonl"],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    while "round 3" not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does, to the children too
    shown, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.endswith("wse: interrupted: what whole rounds gave is shown\n")
    assert "Traceback" not in errors
    assert "interrupted before all was measured" in shown
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["interrupted"]
    assert len(row["rounds"]["samples_per_second"]) == len(row["rounds"]["fma_all"]) >= 2
    deadline = time.monotonic() + 10  # the interpreter's own helper process ends a moment later
    while alive_in_group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


WRONG = {
    "unknown preset": (["--preset", "huge"], "unknown preset 'huge'"),
    "batch of a mixed one": (["--preset", "nws-main", "--batch", "64"], "of their own"),
    "batch of all": (["--preset", "all", "--batch", "64"], "for one preset"),
    "batch 0": (["--batch", "0"], "`batch` (=0)"),
    "unknown device": (["--device", "tpu"], "`device` (='tpu') must be cpu or cuda"),
    "members 0": (["--members", "64,none"], "`members` (='64,none') must be numbers"),
    "threads 0": (["--threads", "0"], "`threads` (=0)"),
    "seconds 0": (["--seconds", "0"], "`seconds` (=0.0)"),
    "rounds 0": (["--rounds", "0"], "`rounds` (=0)"),
    "unknown contender": (["--contenders", "jax"], "there is no 'jax'"),
    "unknown set": (["--datasets", "imagenet"], "'imagenet' is not an image set"),
    "unknown key": (["--set", "epoch=3"], "did you mean `epochs`?"),
    "no folder": (["--out", "gone/rows.jsonl"], "there is no folder gone"),
    "a folder": (["--out", "."], "cannot write .: it is a folder, name a file"),
    "unknown plot": (["--plot", "bars.txt"], "must end in"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_clear_line(case: str, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments, expected = WRONG[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wse", "bench", "train", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    errors = capsys.readouterr().err
    assert left.value.code == 2
    assert expected in errors
    assert errors.startswith("wse: ")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["wse", "bench", "train", "--device", "cuda"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "wse: --device cuda needs an NVIDIA GPU, and PyTorch sees none: use --device cpu\n"
    )


def test_the_table_of_a_gpu_fits_the_terminal(capsys) -> None:
    """Of made-up rates: the table says what was found of the card and of kernels."""
    entries = (
        Entry(
            contender="cuda-bf16-1024", label="ours: bf16, 1,024 members", kind="ours", bytes_per_sample=1e3,
            samples_per_second=(2e6, 1e6, 3e6), flops_per_second=(2e13,), kernels={"convolve" * 9: 0.625},
        ),
        Entry(
            contender="vmap", label="torch.func.vmap 64, tf32", kind="pytorch", samples_per_second=(5e5,),
            flops_per_second=(5e12,),
        ),
    )  # fmt: skip
    card = Card(matrix_bf16=(1e14,), matrix_tf32=(5e13,), copy=(4e9,))
    _print_result(Result(workload="w", flops=1e7, datasets=("digits",), entries=entries, machine=card))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    ours, theirs = shown.splitlines()[2:4]
    assert ours.endswith(" 20.0 %  50.0 %   4.00")
    assert theirs.endswith("  5.0 %           1.00")
    for expected in ("100 TFLOP/s in bf16", "4.0 GB/s", "62.5 %"):
        assert expected in shown


def test_slices_beside_what_a_user_would_write(tmp_path: Path) -> None:
    chosen = ("--megabytes", "8", "--length", "500", "--seconds", "0.01", "--rounds", "1", "--out", "rows.jsonl")
    done = wse("bench", "slices", *chosen, "--dir", ".", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for expected in ("ours: resident", "ours: files", "safetensors get_slice", "standardised", "copying large"):
        assert expected in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 14
    assert {row["workload"] for row in rows} == {"as they are", "standardised"}
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
    done = wse("bench", "slices", "--dir", "nowhere", folder=tmp_path)
    assert done.returncode == 2
    assert "there is no such folder" in done.stderr
