"""The script that asks a GPU its questions, with a program in Python's place that takes for ever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
# Asked for the machine it says so; asked anything else it says that it has begun, and when it is interrupted.
PYTHON = """#!/usr/bin/env bash
if [ "$1" = - ]; then cat >/dev/null && echo "a machine" && exit; fi
trap 'echo whole rounds; exit 130' INT
touch begun
while true; do sleep 0.1; done
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not all(map(shutil.which, ("bash", "timeout"))), reason="needs bash and timeout"
)
def test_an_interrupt_ends_all_questions_and_keeps_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(SCRIPT, tmp_path / "benchmarks")
    (tmp_path / "pyproject.toml").write_text('version = "0"\n')
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    process = subprocess.Popen(
        ["bash", tmp_path / "benchmarks" / "gpu.sh", "population", "questions"],
        env=os.environ | {"PYTHON": str(python), "OUT": str(tmp_path / "out")},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "== population" in shown
    assert "questions" not in shown
    with tarfile.open(tmp_path / "out" / "gpu-results.tar.gz") as archive:
        found = archive.extractfile("./population.txt")
        assert found is not None
        assert found.read() == b"whole rounds\n"
