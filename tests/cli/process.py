"""The command as a process of its own, as a person starts it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = [
    "--preset", "nws-fixed", "--datasets", "digits", "--threads", "2",
    "--set", "filter_size=3", "--set", "width_conv=2", "--set", "width_fc=8", "--set", "epochs=1",
    "--set", "images_per_epoch=64", "--set", "snapshots=2", "--set", "training_images=20",
    "--set", "validation_images=20", "--set", "test_images=50",
]  # fmt: skip


def wse(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wse.cli", *map(str, arguments)],
        cwd=folder,
        text=True,
        capture_output=True,
        check=False,
    )


def start(*arguments: str | Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wse.cli", *map(str, arguments)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_members(zoo: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the log of a running command shows that members are stored."""
    log = zoo / "log.jsonl"
    while process.poll() is None:
        if log.exists() and log.read_text().count('"event": "member"') >= count:
            return
        time.sleep(0.02)
    pytest.fail(f"the command ended before it was to be interrupted: {process.communicate()}")
