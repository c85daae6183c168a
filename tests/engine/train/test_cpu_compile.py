"""The CPU kernels for every width of vectors, and what is said while they are compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import event

from wse.engine.train import Interrupted
from wse.engine.train.cpu_compile import FUNCTIONS, Compilation
from wse.engine.train.cpu_step import run_batches

# Trains one member; each line it is told is followed by the share that is shown at that moment.
PROGRAM = """
import sys, tempfile
from pathlib import Path
from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.train.cpu import CpuBackend

def tell(line):
    print(f"{line}|{backend.preparing}|{run.progress().preparing}", flush=True)

backend = CpuBackend(tell)
space = Space.load(preset="nws-fixed", overrides={"dataset": "digits", "epochs": 1, "images_per_epoch": 32})
run = Run(Options(space=space, models=1, folder=Path(sys.argv[1]), threads=1), backend)
assert run.execute()
print(f"end|{backend.preparing}|{backend._compilation._done}")
"""


NARROW = "4"  # the width of vectors that is compiled where nothing is


def told(folder: Path, cache: Path) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env={**os.environ, "WSE_CACHE": str(cache), "WSE_SIMD_WIDTH": NARROW},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("|") for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """A cache that was empty and has the narrow kernels now, and what was said meanwhile."""
    folder = tmp_path_factory.mktemp("narrow")
    return folder / "cache", told(folder / "zoo", folder / "cache")


def test_compiling_is_shown_as_it_goes_on(compiled, tmp_path: Path) -> None:
    cache, (first, *lines, last, end) = compiled
    assert first == ["compiling the CPU kernels, once on this machine; it takes up to a minute", "0.0", "0.0"]
    assert [text for text, *_ in lines] == [f"compiling the CPU kernels: {percent}%" for percent in (25, 50, 75)]
    assert [float(share) for _, share, _ in lines] == pytest.approx([0.25, 0.5, 0.75], abs=0.01)
    assert last[0].startswith("compiled the CPU kernels in ")
    assert last[1:] == ["None", "None"]
    # Should this fail, kernels have come or gone, and FUNCTIONS should follow.
    assert abs(int(end[2]) - FUNCTIONS) <= 0.05 * FUNCTIONS
    assert told(tmp_path / "second", cache) == [["end", "None", "0"]]


@pytest.mark.parametrize("width", [NARROW, "8", "16"])
def test_every_vector_width(width: str, compiled) -> None:
    tests = ("one_step_with_every_fast_filter", "company_does_not_matter", "evaluation_equals_the_reference")
    cache = compiled[0] if width == NARROW else Path(os.environ["WSE_CACHE"]).resolve()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        + [f"{Path(__file__).with_name('test_cpu.py')}::test_{name}" for name in tests],
        env={**os.environ, "WSE_SIMD_WIDTH": width, "WSE_CACHE": str(cache)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def events(compilation: Compilation, stop: list[bool]) -> None:
    """What Numba would tell of a step of two functions; the run is to stop before the second."""
    step, other = {"dispatcher": run_batches}, {"dispatcher": None}
    with event.trigger_event("numba:compile", step):
        with event.trigger_event("numba:compile", other):
            assert compilation.share == 0.0
        assert compilation.share == 1 / FUNCTIONS
        stop.append(True)
        with event.trigger_event("numba:compile", other):
            pytest.fail("it went on")


def test_a_run_that_is_to_stop_does_not_wait_for_the_compiler(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WSE_CACHE", str(tmp_path))  # where nothing is compiled
    lines: list[str] = []
    stop: list[bool] = []
    compilation = Compilation.follow(lines.append, lambda: bool(stop))
    with pytest.raises(Interrupted):
        events(compilation, stop)
    assert compilation.share is None
    assert len(lines) == 1
    with pytest.raises(Interrupted), event.trigger_event("numba:compile", {"dispatcher": run_batches}):
        pytest.fail("another thread went on")
    # The next run is not stopped by what was asked of this one.
    following = Compilation.follow(lines.append, lambda: False)
    with event.trigger_event("numba:compile", {"dispatcher": run_batches}):
        assert following.share == 0.0
    assert lines[-1].startswith("compiled")
    assert compilation.share is None
