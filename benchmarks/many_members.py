"""A population of many tiny networks: memory, planning, going on, and reading, at thousands of members.

    python benchmarks/many_members.py [--models 20000] [--folder FOLDER] [--busy]

Trains the smallest networks of the small-cnn family on a few digits for an epoch each, so that storing them is
most of the work. The run is stopped when 99 % are stored, gone on with, and the zoo is read. Prints a table of
figures beside their goals. ``--busy`` marks them as taken beside other work, which makes the times worthless.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SPACE = [
    "--preset", "small-cnn", "--datasets", "digits", "--set", "width_conv=2", "--set", "filter_size=3",
    "--set", "epochs=1", "--set", "early_stopping=false", "--set", "batch_size=32", "--set", "images_per_epoch=32",
    "--set", "snapshots=2", "--set", "training_images=10", "--set", "validation_images=10", "--set",
    "test_images=10", "--set", "augmentation=false",
]  # fmt: skip
POLL_SECONDS = 0.2

_PLAN = """
import sys, time
from pathlib import Path
from wse.engine.space import Space, parse_override
from wse.engine.train import Options, Run
began = time.perf_counter()
keys = dict(parse_override(text) for text in sys.argv[2:])
space = Space.load(preset="small-cnn", overrides={**keys, "dataset": ["digits"]})
Run(Options(space=space, models=int(sys.argv[1]), folder=Path("zoo"), device="cpu"))
print(time.perf_counter() - began)
"""
_OPEN = """
import sys, time
began = time.perf_counter()
from wse.engine.zoo import Zoo
zoo = Zoo.open(sys.argv[1])
opened = time.perf_counter() - began
zoo.members, zoo.snapshots
tables = time.perf_counter() - began
zoo[len(zoo) // 2].weights()
print(opened, tables, time.perf_counter() - began)
"""


def python(code: str, *arguments: str) -> list[float]:
    """The numbers that a program prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], text=True, capture_output=True, check=True)
    return [float(word) for word in done.stdout.split()]


def generate(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "wse.cli", "generate", "--out", str(folder), "--quiet", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def peak_bytes(process: subprocess.Popen[bytes]) -> int | None:
    """The most memory a process ever had, or None if it has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


class Log:
    """Counts members in the log of a run, reading each line once."""

    def __init__(self, folder: Path) -> None:
        self._path, self._place, self.members = folder / "log.jsonl", 0, 0

    def read(self) -> int:
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._place)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._place += len(whole)
            self.members += whole.count(b'"event": "member"')
        return self.members


def train(folder: Path, models: int, marks: list[int]) -> dict[int, int]:
    """Train until 99 % are stored; the peak memory when so many members were stored."""
    log, peaks = Log(folder), {}
    process = generate(folder, *SPACE, "--models", str(models))
    while process.poll() is None:
        stored, peak = log.read(), peak_bytes(process)
        for mark in marks:
            if stored >= mark and mark not in peaks and peak:
                peaks[mark] = peak
        if stored >= 0.99 * models:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(POLL_SECONDS)
    if process.wait() not in (0, 130):
        raise SystemExit("the run failed")
    return peaks


def go_on(folder: Path) -> tuple[float, int]:
    """Seconds from the start of the process until it trains what is missing, and the peak memory of the rest."""
    log = folder / "log.jsonl"
    starts = log.read_bytes().count(b'"event": "start"')
    size = log.stat().st_size
    began, process, peak, scanned = time.perf_counter(), generate(folder, "--resume"), 0, 0.0
    while process.poll() is None:
        if not scanned and log.stat().st_size > size and log.read_bytes().count(b'"event": "start"') > starts:
            scanned = time.perf_counter() - began
        peak = max(peak, peak_bytes(process) or 0)
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit("going on failed")
    return scanned, peak


def info(folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "wse.cli", "info", str(folder)], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def best(measure: Callable[[], float], times: int = 3) -> float:
    return min(measure() for _ in range(times))


def measure(folder: Path, models: int) -> list[tuple[str, str, str]]:
    """Rows of what, how much, and the goal."""
    keys = [SPACE[index + 1] for index, word in enumerate(SPACE) if word == "--set"]
    rows = [("planning", f"{python(_PLAN, str(models), *keys)[0]:.2f} s", "< 10 s")]
    began = time.perf_counter()
    marks = [models // 4, models // 2, models * 99 // 100]
    peaks = train(folder, models, marks)
    rows.append(("training", f"{time.perf_counter() - began:.0f} s", ""))
    rows += [(f"peak memory at {mark:,}", f"{peak / 2**20:.0f} MiB", "flat") for mark, peak in peaks.items()]
    scanned, peak = go_on(folder)
    rows.append(("going on, until it trains", f"{scanned:.2f} s", "< 5 s"))
    rows.append(("peak memory of going on, tables included", f"{peak / 2**20:.0f} MiB", ""))
    rows.append(("wse info", f"{best(lambda: info(folder)):.2f} s", "< 1 s"))
    opened, tables, weights = min(python(_OPEN, str(folder)) for _ in range(3))
    rows.append(("opening in Python, import included", f"{opened:.2f} s", ""))
    rows.append(("and both tables", f"{tables:.2f} s", ""))
    rows.append(("and the weights of a member", f"{weights:.2f} s", ""))
    counts = json.loads((folder / "zoo.json").read_text())["counts"]
    rows.append(("members", f"{sum(counts.values()):,}", f"{models:,}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="of the zoo, which is kept; a temporary one if not given")
    parser.add_argument("--busy", action="store_true", help="other work goes on: say so")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(options.folder or Path(name) / "zoo", options.models)
    print(f"{options.models:,} members{', taken beside other work' if options.busy else ''}")
    for row in rows:
        print("{:<44}{:>12}{:>12}".format(*row))


if __name__ == "__main__":
    main()
