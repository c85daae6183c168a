"""``wse import`` as it is typed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ..engine.exchange.theirs import nws_run, small_cnn_zoo

Wse = Callable[..., int]


@pytest.fixture
def wse(wse_in: Callable[[Path], Wse], tmp_path: Path) -> Wse:
    """Runs a command in an empty folder; its exit code."""
    return wse_in(tmp_path)


def test_what_is_said(wse: Wse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_cnn_zoo(tmp_path / "mnist")
    assert wse("import", "mnist", "--out", "my zoo") == 0
    assert capsys.readouterr().out == (
        "my zoo: 6 members, 23.3 kB of weights\nlook inside with `wse info 'my zoo'`\n"
    )
    assert wse("import", "mnist", "--out", "two", "--dtype", "bfloat16", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["zoo"], told["models"], told["left_out"]) == ("two", 6, 0)
    assert told["counts"] == {"ok": 6, "dead": 0, "diverged": 0}
    assert told["bytes"] == (tmp_path / "two" / "shards" / "small-cnn-k3-c2x4-0000.safetensors").stat().st_size
    assert wse("info", "two") == 0
    assert "imported    small-cnn-zoo: mnist, by wse" in capsys.readouterr().out


def test_what_is_not_known_is_a_dash(wse: Wse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = small_cnn_zoo(tmp_path / "mnist", 3)
    weights[0, 0, 0] = np.nan
    np.save(tmp_path / "mnist" / "weights.npy", weights.reshape(12, -1))
    assert wse("import", "mnist", "--out", "zoo", "-q") == 0
    assert wse("info", "zoo") == 0
    told = capsys.readouterr().out
    assert f"{'  adam':<38}{1:>8}{'-':>9}{'-':>9}{'0.0 %':>9}" in told
    assert "nan" not in told.replace("finite", "")
    assert wse("info", "zoo", "--json") == 0
    assert "NaN" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nowhere", "--out", "zoo"], 2, "wse: there is no nowhere"),
        (["mnist", "--out", "mnist"], 2, "wse: mnist is not empty"),
        (["mnist", "--out", "zoo", "--dtype", "int8"], 2, "wse: `dtype` (='int8') must be float32, float16"),
        (["mnist", "--out", "s3://bucket/zoo"], 2, "looks like the address of a store"),
        (["mnist"], 2, "Missing option '--out'"),
        (["mnist", "--out", "mnist/weights.npy/zoo"], 1, "wse: cannot write mnist/weights.npy/zoo"),
    ],
)
def test_wrong_use(
    wse: Wse, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    small_cnn_zoo(tmp_path / "mnist")
    assert wse("import", *words) == code
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_interrupted(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """Nothing is left but, after a kill, a hidden folder; and the same command then makes the zoo."""
    for name in range(40):
        nws_run(tmp_path / "nets" / str(name), seed=name)
    command = [sys.executable, "-m", "wse.cli", "import", "nets", "--out", "zoo"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / ".zoo.importing").is_dir() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(sent)
        _, told = process.communicate()
    assert process.returncode == code
    assert told == ""
    assert not (tmp_path / "zoo").exists()
    assert (tmp_path / ".zoo.importing").exists() == (sent == signal.SIGKILL)
    assert subprocess.run([*command, "-q"], cwd=tmp_path, check=False).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nets", "zoo"]
