"""The command as a person runs it: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from wse.cli import app as app_module
from wse.cli.main import main
from wse.engine.zoo import Zoo

from ..zoos import events, flip_bit
from .process import TINY, start, wait_for_members, wse


def weights_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "shards").iterdir())}


def test_generate_says_what_it_made(small: Path) -> None:
    assert len(Zoo.open(small / "zoo")) == 24
    log = events(small / "zoo")
    assert [line["event"] for line in log] == ["start", *["member"] * 24, "end"]
    assert set(log[-1]["seconds"]) >= {"training", "evaluation", "writing", "preparing", "total", "overhead"}


def test_info_of_a_zoo(small: Path) -> None:
    shown = wse("info", "zoo", "-v", "--curves", "curves.png", folder=small)
    assert shown.returncode == 0, shown.stderr
    for expected in ("24", "digits", "optimizer", "momentum", "glorot_normal", "learning_rate", "curves.png"):
        assert expected in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert (small / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_report_of_a_zoo(small: Path, tmp_path: Path) -> None:
    shown = wse("report", small / "zoo", "--out", "page.html", "--no-embedding", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("page.html (")
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "page-data"}
    assert "weights-pca" not in (tmp_path / "page.html").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_folder_whose_name_is_no_text(small: Path, tmp_path: Path) -> None:
    zoo = tmp_path / os.fsdecode(b"zoo-\xe9")
    shutil.copytree(small / "zoo", zoo)
    asked = ["--targets", "activation", "--models", "majority", "--seeds", "1", "--processes", "1", "-q"]
    page = ["report", zoo, "--no-embedding", "--out", f"{zoo}.html"]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # as output is in most languages
    for words in (["info", zoo], ["meta", zoo, *asked], page, ["data", "--data-dir", zoo]):
        command = [sys.executable, "-m", "wse.cli", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, env=strict)
        assert done.returncode == 0, done.stderr
        assert words[0] == "data" or os.fsencode(zoo.name) in done.stdout
    assert "read from zoo-?" in Path(f"{zoo}.html").read_text()


def test_report_leaves_the_zoo_alone(small: Path) -> None:
    shown = wse("report", folder=small)
    assert shown.returncode == 0, shown.stderr
    assert (small / "report.html").is_file()
    assert (small / "report-data" / "weights-pca.csv").is_file()
    assert Zoo.open(small / "zoo").verify() == []


def test_a_study_that_is_not_there_is_one_clear_line(small: Path, tmp_path: Path) -> None:
    done = wse("report", small / "zoo", "--study", "nowhere", "--out", "page.html", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("wse: --study nowhere: there is no study.json in it")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("out", ["page.txt", "missing/page.html", "/proc/page.html"])
def test_a_report_that_cannot_be_written_is_one_clear_line(out: str, small: Path, tmp_path: Path) -> None:
    done = wse("report", small / "zoo", "--out", out, folder=tmp_path)
    assert done.returncode == (2 if out == "page.txt" else 1)
    assert done.stderr.startswith("wse: cannot write")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_info_as_json(small: Path) -> None:
    shown = json.loads(wse("info", "--json", folder=small).stdout)
    zoo = Zoo.open(small / "zoo")
    assert shown["zoo"]["models"] == 24
    assert shown["summary"]["everything"]["best"] == max(zoo.members["test_accuracy"].to_pylist())
    assert sum(group["members"] for group in shown["summary"]["properties"]["optimizer"]) == 24


def test_result_as_json(tmp_path: Path) -> None:
    done = wse("generate", *TINY, "--models", "2", "--json", "--out", "my/zoo", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["zoo"] == "my/zoo"
    assert sum(result["counts"].values()) == 2


def test_commands_that_are_suggested_can_be_pasted(tmp_path: Path) -> None:
    done = wse("generate", *TINY, "--models", "2", "--out", "my zoo", folder=tmp_path)
    assert done.stdout.endswith("look inside with `wse info 'my zoo'`\n")
    grow = ("generate", "--resume", "--models", "3", "--dry-run", "--out", "my zoo")
    assert wse(*grow, folder=tmp_path).stdout.startswith("folder      my zoo, where 2 of 3 models are stored")
    (tmp_path / "my zoo" / "members.parquet").unlink()
    assert "`wse verify --repair 'my zoo'` would\n" in wse("verify", "my zoo", folder=tmp_path).stdout
    done = wse(*grow, folder=tmp_path)
    assert done.returncode == 1
    assert "members.parquet" in done.stderr


def test_dry_run_trains_nothing(tmp_path: Path) -> None:
    planned = wse("generate", *TINY, "--models", "24", "--dry-run", folder=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith("folder      zoo, a new zoo\n")
    assert "24 of 1 architecture\n" in planned.stdout
    assert "nws-k3-c3x2-f2x8" in planned.stdout
    assert list(tmp_path.iterdir()) == []
    fields = json.loads(wse("generate", *TINY, "--models", "24", "--dry-run", "--json", folder=tmp_path).stdout)
    assert fields["members"] == 24
    assert fields["training_images"] == 24 * 64
    assert fields["seconds"] > 0


def everything(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file below a folder, and when it was last written."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "zoo is not empty: go on with the run in it by --resume"),
        (["--overwrite"], 2, "thesis.txt besides the zoo"),
        (["--resume", "--set", "epochs=3"], 2, "space.epochs: 1 there, 3 asked"),
        (["--resume", "--models", "20"], 2, "24 of 24 models stored, and 4 of these would be lost"),
        (["--resume", "--models", "24"], 0, "zoo, where all 24 models are stored: there is nothing to train"),
        (["--resume", "--models", "30"], 0, "zoo, where 24 of 30 models are stored"),
    ],
)
def test_a_dry_run_says_what_the_run_would_meet(
    arguments: list[str], code: int, told: str, small: Path, tmp_path: Path
) -> None:
    shutil.copytree(small / "zoo", tmp_path / "zoo")
    (tmp_path / "zoo" / "thesis.txt").touch()
    before = everything(tmp_path)
    planned = wse("generate", *TINY, "--models", "24", *arguments, "--dry-run", folder=tmp_path)
    assert everything(tmp_path) == before
    assert planned.returncode == code, planned.stderr
    assert told in (planned.stderr if code else planned.stdout)
    assert planned.stderr.count("\n") == bool(code)
    if code:
        real = wse("generate", *TINY, "--models", "24", *arguments, folder=tmp_path)
        assert (real.returncode, real.stderr) == (code, planned.stderr)
        assert everything(tmp_path) == before


def test_a_dry_run_of_a_resumed_run_plans_what_is_missing(small: Path) -> None:
    def plan(models: str) -> dict[str, object]:
        arguments = ["--resume", "--models", models, "--dry-run", "--json"]
        return json.loads(wse("generate", *arguments, folder=small).stdout)

    grown, complete = plan("30"), plan("24")
    assert (grown["stored"], grown["members"], grown["training_images"]) == (24, 6, 6 * 64)
    assert (complete["stored"], complete["members"], complete["seconds"]) == (24, 0, 0.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_cleanly(number: signal.Signals, small: Path, tmp_path: Path) -> None:
    process = start("generate", *TINY, "--models", "24", folder=tmp_path)
    wait_for_members(tmp_path / "zoo", 3, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "wse generate --resume --out zoo" in errors
    shown = wse("info", folder=tmp_path).stdout
    assert re.search(r"members +\d+ of 24 so far", shown)
    unfinished = wse("report", folder=tmp_path)
    assert unfinished.returncode == 1
    assert "--resume" in unfinished.stderr
    page = wse("report", "--unfinished", "--no-embedding", folder=tmp_path)
    assert page.returncode == 0, page.stderr
    assert " of 24 so far" in (tmp_path / "report.html").read_text()
    resumed = wse("generate", "--resume", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert weights_of(tmp_path / "zoo") == weights_of(small / "zoo")


# One member is in training for long enough to be stopped there.
LONG = [*TINY, "--threads", "1", "--models", "2", "--set", "epochs=60", "--set", "images_per_epoch=1024"]


def wait_for_a_checkpoint(zoo: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if any(zoo.glob("checkpoints/[0-9]*.safetensors")):
            return
        time.sleep(0.01)
    pytest.fail(f"the command ended before it was to be interrupted: {process.communicate()}")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    assert wse("generate", *LONG, folder=folder).returncode == 0
    return folder


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_signal_inside_a_member_keeps_what_it_has_learned(twice: bool, long: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    process = start("generate", *LONG, "--checkpoint-interval", "0", folder=tmp_path)
    wait_for_a_checkpoint(zoo, process)
    process.send_signal(signal.SIGTERM)
    if twice:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert ("wse: interrupted: 0 of 2 models are stored" in errors) is not twice
    assert any((zoo / "checkpoints").iterdir())
    resumed = wse("generate", "--resume", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [event["epochs"] > 0 for event in events(zoo, "resumed")] == [True]
    assert events(zoo, "note") == []
    assert weights_of(zoo) == weights_of(long / "zoo")
    assert Zoo.open(zoo).verify() == []


def test_a_killed_run_resumes_to_the_same_zoo(small: Path, tmp_path: Path) -> None:
    for stored in (2, 9, 15):
        resume = ["--resume"] if (tmp_path / "zoo").exists() else []
        process = start("generate", *TINY, "--models", "24", *resume, folder=tmp_path)
        wait_for_members(tmp_path / "zoo", stored, process)
        process.kill()
        process.communicate()
    assert wse("generate", *TINY, "--models", "24", "--resume", folder=tmp_path).returncode == 0
    assert weights_of(tmp_path / "zoo") == weights_of(small / "zoo")
    assert Zoo.open(tmp_path / "zoo").verify() == []


@pytest.mark.parametrize("begin", ["--resume", "--overwrite"])
def test_two_runs_do_not_share_a_zoo(begin: str, small: Path, tmp_path: Path) -> None:
    first = start("generate", *TINY, "--models", "24", folder=tmp_path)
    wait_for_members(tmp_path / "zoo", 2, first)
    first.send_signal(signal.SIGSTOP)  # it is there, however slow the second one is
    second = wse("generate", *TINY, "--models", "24", begin, folder=tmp_path)
    dry = wse("generate", *TINY, "--models", "24", begin, "--dry-run", folder=tmp_path)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].startswith(f"wse: zoo is being written by process {first.pid} on ")
    assert "Traceback" not in second.stderr
    assert (dry.returncode, dry.stderr) == (2, second.stderr)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert weights_of(tmp_path / "zoo") == weights_of(small / "zoo")
    assert not (tmp_path / "zoo" / "zoo.lock").exists()


WRONG = {
    "no models": (["generate", *TINY], "--models 100"),
    "models 0": (["generate", *TINY, "--models", "0"], "`models` (=0)"),
    "too many threads for a GPU": (
        ["generate", *TINY, "--models", "2", "--device", "cuda", "--threads", "33"],
        "`threads` (=33) must be at most 32 with --device cuda",
    ),
    "too many models": (["generate", *TINY, "--models", "9" * 24], "must be at most 10,000,000"),
    "too many snapshots": (["generate", *TINY, "--models", "3", "--set", "snapshots=1000000"], "`snapshots`"),
    "an address": (["generate", *TINY, "--models", "3", "--out", "s3://bucket/zoo"], "the address of a store"),
    "merge into an address": (["merge", "a", "b", "--out", "gs://bucket/zoo"], "the address of a store"),
    "a study of a file": (["meta", "nowhere"], "no folder nowhere"),
    "seed of a study": (["meta", "nowhere", "--seed", str(2**64)], "`seed`"),
    "interval": (["generate", *TINY, "--models", "3", "--checkpoint-interval", "-1"], "--checkpoint-interval"),
    "unknown flag": (["generate", "--model", "3"], "--model"),
    "unknown key": (["generate", *TINY, "--models", "3", "--set", "epoch=3"], "did you mean `epochs`?"),
    "impossible value": (["generate", *TINY, "--models", "3", "--set", "batch_size=0"], "`batch_size` (=0)"),
    "endless": (["generate", *TINY, "--models", "3", "--set", f"epochs={10**10}"], "`epochs` (=10000000000)"),
    "bad value": (["generate", *TINY, "--models", "3", "--set", "l2=[1"], "l2=[1"),
    "no equals": (["generate", *TINY, "--models", "3", "--set", "epochs"], "key=value"),
    "unknown preset": (["generate", "--preset", "huge", "--models", "3"], "nws-main, nws-fixed or small-cnn"),
    "missing file": (["generate", "--config", "no.toml", "--models", "3"], "no.toml"),
    "unknown set": (["generate", "--datasets", "imagenet", "--models", "3"], "'imagenet' is not an image set"),
    "a set not here": (["generate", "--set", "dataset=svhn,digits", "--models", "3"], "--datasets available"),
    "no set here": (
        ["generate", "--set", "dataset=svhn", "--models", "3"],
        "image sets (svhn) is here",
    ),
    "unknown device": (["generate", *TINY, "--models", "3", "--device", "tpu"], "`device` (='tpu')"),
    "unknown precision": (["generate", *TINY, "--models", "3", "--precision", "fp8"], "`precision` (='fp8')"),
    "unknown dtype": (["generate", *TINY, "--models", "3", "--dtype", "int8"], "`dtype` (='int8')"),
    "both": (["generate", *TINY, "--models", "3", "--resume", "--overwrite"], "exclude each other"),
    "nothing to resume": (["generate", "--resume"], "no folder zoo"),
    "no data folder": (["generate", *TINY, "--models", "3", "--data-dir", "gone"], "gone"),
    "seed": (["generate", *TINY, "--models", "3", "--seed", "-1"], "`seed` (=-1)"),
    "no zoo": (["info", "nowhere"], "no folder nowhere"),
    "not a zoo": (["info", "."], "not a zoo"),
    "verify of no zoo": (["verify", "nowhere"], "no folder nowhere"),
    "verify of what is no zoo": (["verify", "."], "not a zoo"),
    "report of no zoo": (["report", "nowhere"], "no folder nowhere"),
    "report of what is no zoo": (["report", "."], "not a zoo"),
    "unknown command": (["train"], "train"),
}
if not torch.cuda.is_available():
    WRONG["no GPU"] = (["generate", *TINY, "--models", "3", "--device", "cuda"], "needs an NVIDIA GPU")


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_clear_line(case: str, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments, expected = WRONG[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wse", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    errors = capsys.readouterr().err
    assert left.value.code == 2
    assert expected in errors
    assert "Traceback" not in errors
    if errors.startswith("wse: "):  # what typer finds wrong it says in its own words
        assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_taken_folder_is_not_touched(small: Path) -> None:
    before = weights_of(small / "zoo")
    done = wse("generate", *TINY, "--models", "3", folder=small)
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert weights_of(small / "zoo") == before


def test_a_changed_space_is_not_resumed(small: Path) -> None:
    done = wse("generate", "--resume", "--set", "epochs=3", folder=small)
    assert done.returncode == 2
    assert "epochs" in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("why"), "wse: a fault of wse itself: ValueError: why; --verbose shows where"),
        (MemoryError("Unable to allocate 9 TiB"), "wse: not enough memory: Unable to allocate 9 TiB"),
        (MemoryError(), "wse: not enough memory: take fewer or smaller networks at a time"),
    ],
)
def test_what_nobody_foresaw_is_one_line(error: Exception, told: str, monkeypatch, capsys) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(app_module, "app", fail)
    monkeypatch.setattr(sys, "argv", ["wse", "info"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().err == told + "\n"


def test_ctrl_c_that_a_library_turns_into_an_error(monkeypatch, capsys) -> None:
    def swallow() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            raise RecursionError from None

    monkeypatch.setattr(app_module, "app", swallow)
    monkeypatch.setattr(sys, "argv", ["wse", "report"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_commands_are_imported(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
    )
    done = subprocess.run(
        [sys.executable, "-m", "wse.cli", "info"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_zoo_is_overwritten_only_if_nothing_else_is_there(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "zoo", tmp_path / "zoo")
    (tmp_path / "zoo" / "thesis.txt").touch()
    refused = wse("generate", *TINY, "--models", "3", "--overwrite", folder=tmp_path)
    assert refused.returncode == 2
    assert "thesis.txt besides the zoo" in refused.stderr
    assert weights_of(tmp_path / "zoo") == weights_of(small / "zoo")


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    done = wse("info", "nowhere", "-v", folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_damaged_zoo_is_refused(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "zoo", tmp_path / "zoo")
    table = tmp_path / "zoo" / "members.parquet"
    flip_bit(table, table.stat().st_size // 2)
    done = wse("info", folder=tmp_path)
    assert done.returncode == 1
    assert "members.parquet" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, wse.cli.app as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'pyarrow', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(tmp_path: Path) -> None:
    assert wse("--version", folder=tmp_path).stdout.startswith("wse 0.")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_line(small: Path) -> None:
    done = wse("info", "--curves", "/dev/full/curves.png", folder=small)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert os.strerror(20) in done.stderr
