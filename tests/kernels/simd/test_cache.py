"""Compiled code on the disk: read again, and never in the way when it cannot be written or read."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wse.kernels.simd import cache
from wse.kernels.simd.cache import cache_folder, cached_njit, is_cached

SOURCES = [Path(__file__)]


def _double(x):
    return 2 * x


def run() -> bool:
    """Make and call the function as a new process would; whether it was read from the disk."""
    function = cached_njit(_double, SOURCES)
    assert function(21) == 42
    return bool(function.stats.cache_hits)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("WSE_CACHE", str(tmp_path))
    return cache_folder(SOURCES)


def test_code_is_compiled_once(folder: Path) -> None:
    assert not is_cached(SOURCES)
    assert not run()
    assert is_cached(SOURCES)
    assert run()


def test_kernels_that_stand_apart_leave_the_others_compiled(tmp_path: Path, monkeypatch) -> None:
    kernels = tmp_path / "kernels"
    shutil.copytree(cache._KERNELS, kernels, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "_KERNELS", kernels)
    before = cache_folder(SOURCES)
    (kernels / "slices" / "cpu.py").write_text("changed")
    for others in ("pool/triton.py", "pool/reference.py", "packs.py"):
        (kernels / others).write_text("changed")
    assert cache_folder(SOURCES) == before
    (kernels / "pool" / "cpu.py").write_text("changed")
    assert cache_folder(SOURCES) != before


@pytest.mark.parametrize("ending", [".nbc", ".nbi"])
@pytest.mark.parametrize("left", [0, 100, None])
def test_what_cannot_be_read_is_compiled_anew(folder: Path, ending: str, left: int | None) -> None:
    assert not run()
    (file,) = folder.glob(f"*{ending}")
    file.write_bytes(b"no pickle" if left is None else file.read_bytes()[:left])
    assert not run()
    assert run()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WSE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be kept in [^ ]*/compiled .Not a directory.*WSE_CACHE"):
        assert not run()


def test_a_full_disk_is_said_and_leaves_nothing(folder: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # between the sizes of the two files
    try:
        with pytest.warns(UserWarning, match="cannot be kept"):
            assert not run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not is_cached(SOURCES)
    assert not [name for name in os.listdir(folder) if ".tmp." in name]
    assert not run()
    assert run()


# Says whether it has compiled; takes a second over it, so that all have begun before one is done.
SLOW = """
import sys, time
from pathlib import Path
from numba.core import event
from wse.kernels.simd.cache import cached_njit

class Slowly(event.Listener):
    def on_start(self, what): time.sleep(1)
    def on_end(self, what): pass

def double(x):
    return 2 * x

event.register("numba:compile", Slowly())
function = cached_njit(double, [Path(__file__)])
print("ready", flush=True)
sys.stdin.readline()
assert function(21) == 42
print(sum(function.stats.cache_misses.values()))
"""


def test_processes_that_start_together_compile_once(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.setenv("WSE_CACHE", str(tmp_path / "cache"))
    started = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "slow.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0] for process in started) == ["0\n", "1\n"]
