"""How long it takes to open a zoo and read one slice, and how much memory that needs.

    python benchmarks/zoo_open.py [--models 10000] [--snapshots 9]

Makes a zoo of small networks with random weights through ``ZooWriter`` in a temporary folder, then measures in
fresh processes, from after the imports. Files are in the page cache: what is timed is our work, not the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wse.engine.bench.random_zoo import make_random_zoo
from wse.engine.nets import FAMILIES, Layout
from wse.engine.zoo import Zoo

REPEATS = 20


def make(folder: Path, models: int, snapshots: int) -> None:
    # The fsyncs that keep a real run safe would only measure the disk.
    os.fsync = lambda descriptor: None
    layout = Layout(FAMILIES["small-cnn"].build(filter_size=3, depth_conv=3, width_conv=16, batch_norm=False))
    make_random_zoo(folder, layout, members=models, snapshots=snapshots)


def measure(folder: str) -> dict[str, float]:
    """In a fresh process: milliseconds and growth of the peak memory in MB, imports not counted."""
    import pyarrow.parquet
    import torch

    from wse.engine.zoo import slices

    assert pyarrow.parquet
    assert torch
    assert slices
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    zoo = Zoo.open(folder)
    opened = time.perf_counter()
    values, _ = zoo.slices("all", 1000, target="optimizer")[len(zoo) // 2]
    read = time.perf_counter()
    zoo[len(zoo) // 3].weights()
    member = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(values) == 1000
    return {
        "open": 1e3 * (opened - started),
        "open and read one slice": 1e3 * (read - started),
        "then read all snapshots of a member": 1e3 * (member - read),
        "peak memory growth": (after - before) * 1024 / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--snapshots", type=int, default=9)
    parser.add_argument("--measure", metavar="ZOO", help="measure this zoo once and print JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "zoo"
        started = time.perf_counter()
        make(folder, arguments.models, arguments.snapshots)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        command = [sys.executable, __file__, "--measure", str(folder)]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(REPEATS)]
        started = time.perf_counter()
        assert Zoo.open(folder).verify() == []
        verified = time.perf_counter() - started
        kilobytes = (folder / "zoo.json").stat().st_size / 1e3
    print(f"{arguments.models:,} members, {arguments.snapshots} snapshots each, {size / 1e6:,.0f} MB")
    print(f"written in {seconds:.1f} s without fsync, verified in {verified:.1f} s; zoo.json {kilobytes:.1f} kB\n")
    print(f"| median of {REPEATS} fresh processes | | min to max |\n|---|---:|---:|")
    for name in runs[0]:
        values = [run[name] for run in runs]
        unit = "MB" if "memory" in name else "ms"
        print(f"| {name} | {statistics.median(values):.1f} {unit} | {min(values):.1f} to {max(values):.1f} |")


if __name__ == "__main__":
    main()
