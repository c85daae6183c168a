"""Compiled code on the disk: read again, and never in the way when it cannot be written or read."""

from __future__ import annotations

import os
import resource
import shutil
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
    with pytest.warns(UserWarning, match="cannot be kept in .*Not a directory.*WSE_CACHE"):
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
