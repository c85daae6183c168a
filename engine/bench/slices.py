"""A run of the slices benchmark: check everyone, a first pass from the disk, then rounds from memory."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from ..machine import cores
from ..nets import FAMILIES, Layout
from ..zoo.format import SHARD_FOLDER
from .measure import PROBE_SHARE, provenance
from .random_zoo import make_random_zoo
from .results import Status
from .rounds import Tell, take_rounds
from .slicers import SLICERS, Kind, Loader, Slicer, Task

# Float32 rounds a mean, a deviation, a difference and a quotient: 2e-6 at values up to 5 was seen. A slice at
# another place is off by 1.
_BOUND = 1e-5
_CHECKED = 32  # slices
_SNAPSHOTS = 20
_VALUE_BYTES = 8  # of a value: four are read, four are written


@dataclass(frozen=True, kw_only=True)
class SliceOptions:
    """What to measure and how long.

    Attributes:
        length: of a slice, in values.
        batch: slices of a batch.
        megabytes: of weights, at least; far more than the caches hold.
        threads: for everyone; None: one for each core.
        seconds: of a contender's turn in a round, and the end of the pass it is at.
        rounds: how many turns each gets.
        folder: where a zoo with random weights is made for the time of the run; None: a temporary one.

    Raises:
        UsageError: a number is too small, or slices are longer than the networks.
    """

    length: int = 5000
    batch: int = 256
    megabytes: int = 512
    threads: int | None = None
    seconds: float = 1.0
    rounds: int = 5
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in ("length", "batch", "megabytes", "threads", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"`{name}` (={value}) must be at least 1")
        if not self.seconds > 0:
            raise UsageError(f"`seconds` (={self.seconds}) must be more than 0")
        if self.length > benchmark_layout().size:
            raise UsageError(f"`length` (={self.length}) must be at most {benchmark_layout().size}")


@dataclass(frozen=True, kw_only=True)
class SliceEntry:
    """One contender on one workload.

    Attributes:
        contender: its name.
        label: for the table.
        kind: ours, or what a user would write instead.
        status: ``wrong`` if its slices are not those of the reference; it is not timed then.
        error: the largest difference to float64.
        slices_per_second: warm, by round.
        cold: slices/s of a first pass with all files on the disk; None where nothing came from there.
    """

    contender: str
    label: str
    kind: Kind
    error: float
    status: Status = "ok"
    slices_per_second: tuple[float, ...] = ()
    cold: float | None = None


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """A line of the table.

    Attributes:
        slices_per_second: the median of the rounds.
        low: of the slowest round.
        high: of the fastest round.
        bytes_per_second: read and written, median.
        of_copy: that over what a copy of large arrays reads and writes. What is written here is small enough to
            stay in the cache, so 100 % is no limit.
        ratio: median over that of the best that a user would write; None if none was timed.
    """

    slices_per_second: float
    low: float
    high: float
    bytes_per_second: float
    of_copy: float
    ratio: float | None


@dataclass(frozen=True, kw_only=True)
class SliceResult:
    """All contenders on one workload.

    Attributes:
        workload: its name.
        length: of a slice.
        batch: slices of a batch.
        entries: what was found, ours first.
        copy_bytes_per_second: what a copy of large arrays by all threads reads and writes, by round.
        interrupted: whether Ctrl-C came before all rounds were over; the whole ones count.
    """

    workload: str
    length: int
    batch: int
    entries: tuple[SliceEntry, ...]
    copy_bytes_per_second: tuple[float, ...]
    interrupted: bool = False

    def rows(self) -> dict[str, SliceRow]:
        """Contender's name -> its line, for those that were timed."""
        medians = {e.contender: statistics.median(e.slices_per_second) for e in self.entries if e.status == "ok"}
        best = max(
            (medians[e.contender] for e in self.entries if e.kind == "user" and e.status == "ok"), default=None
        )
        copied, rows = statistics.median(self.copy_bytes_per_second), {}
        for entry in self.entries:
            if entry.status == "ok":
                median = medians[entry.contender]
                moved = _VALUE_BYTES * self.length * median
                rows[entry.contender] = SliceRow(
                    slices_per_second=median,
                    low=min(entry.slices_per_second),
                    high=max(entry.slices_per_second),
                    bytes_per_second=moved,
                    of_copy=moved / copied,
                    ratio=None if best is None else median / best,
                )
        return rows


@dataclass(frozen=True, kw_only=True)
class SliceReport:
    """What was found on a workload, and where.

    Attributes:
        provenance: machine, versions, date.
        options: of the run.
        result: what was found.
    """

    provenance: Mapping[str, Any]
    options: SliceOptions
    result: SliceResult

    @property
    def wrong(self) -> list[str]:
        """Contenders whose slices are not those of the reference: "contender on workload: how"."""
        where = self.result.workload
        return [
            f"{entry.contender} on {where}: off by {entry.error:.1e}, at most {_BOUND:.0e} is allowed"
            for entry in self.result.entries
            if entry.status == "wrong"
        ]

    def records(self) -> list[dict[str, Any]]:
        """A flat record a contender, raw rounds and provenance included, for a results file."""
        result, rows = self.result, self.result.rows()
        return [
            {
                "bench": "slices",
                "workload": result.workload,
                **asdict(entry),
                **(asdict(rows[entry.contender]) if entry.contender in rows else {}),
                "rounds": {
                    "slices_per_second": entry.slices_per_second,
                    "copy_bytes_per_second": result.copy_bytes_per_second,
                },
                "length": result.length,
                "batch": result.batch,
                "megabytes": self.options.megabytes,
                "interrupted": result.interrupted,
                "seconds": self.options.seconds,
                "provenance": dict(self.provenance),
            }
            for entry in result.entries
        ]


def benchmark_layout() -> Layout:
    """Of the network that slices are taken from: that of ``nws-fixed``."""
    build = FAMILIES["nws"].build
    return Layout(build(filter_size=5, depth_conv=3, width_conv=8, depth_fc=2, width_fc=128, batch_norm=True))


def run_slices(
    options: SliceOptions, tell: Tell, slicers: Sequence[type[Slicer]] = SLICERS
) -> Iterator[SliceReport]:
    """Measure.

    Args:
        options: what.
        tell: is given a line of progress now and then.
        slicers: who takes part.

    Yields:
        What was found on a workload, as soon as it is.

    Raises:
        UsageError: the folder has something in it.
        WseError: the zoo cannot be written or read.
        KeyboardInterrupt: Ctrl-C; what whole rounds gave has been yielded.
    """
    from .peak import Probe

    threads = options.threads or cores()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        zoo, layout = Path(folder) / "zoo", benchmark_layout()
        members = -(-options.megabytes * 10**6 // (4 * layout.size * _SNAPSHOTS))
        tell(f"writing {members} networks of {_SNAPSHOTS} snapshots")
        make_random_zoo(zoo, layout, members=members, snapshots=_SNAPSHOTS)
        probe = Probe("copy", threads)
        for standardised in (False, True):
            task = Task(
                folder=zoo, length=options.length, batch=options.batch, threads=threads, standardised=standardised
            )
            result = _measure(task, slicers, probe, options, tell)
            yield SliceReport(provenance=provenance(threads), options=options, result=result)
            if result.interrupted:
                raise KeyboardInterrupt


def _measure(
    task: Task, slicers: Sequence[type[Slicer]], probe: Any, options: SliceOptions, tell: Tell
) -> SliceResult:
    workload = "standardised" if task.standardised else "as they are"
    entries = {slicer.name: _check(slicer, task, tell) for slicer in slicers}
    racing = [slicer for slicer in slicers if entries[slicer.name].status == "ok"]
    for slicer in racing:
        if slicer.reads_files and slicer is not Loader:  # its processes do the reading
            tell(f"{workload}: first pass of {slicer.name}")
            entries[slicer.name] = replace(entries[slicer.name], cold=_cold(slicer, replace(task)))
    ready = {slicer.name: slicer(task) for slicer in racing}
    for slicer_ready in ready.values():
        _passes(slicer_ready, 0.0)  # warm-up
    found = take_rounds(
        {name: partial(_passes, slicer, options.seconds) for name, slicer in ready.items()},
        {"copy": partial(probe.measure, options.seconds * PROBE_SHARE)},
        count=options.rounds,
        workload=workload,
        tell=tell,
    )
    return SliceResult(
        workload=workload,
        length=task.length,
        batch=task.batch,
        entries=tuple(
            replace(entry, slices_per_second=tuple(found.turns.get(name, ()))) for name, entry in entries.items()
        ),
        copy_bytes_per_second=tuple(found.machine["copy"]),
        interrupted=found.interrupted,
    )


def _check(slicer: type[Slicer], task: Task, tell: Tell) -> SliceEntry:
    """The contender's entry before it is timed."""
    tell(f"checking {slicer.name}")
    task = replace(task)  # with files of its own, which are closed again
    found: list[torch.Tensor] = []
    for batch in slicer(task).batches():
        found.append(batch)
        if sum(map(len, found)) >= min(_CHECKED, len(task.order)):
            break
    values = torch.cat(found).numpy()[:_CHECKED]
    error = float(np.abs(values - task.expected(len(values))).max())
    status: Status = "ok" if error <= _BOUND else "wrong"  # NaN is wrong too
    return SliceEntry(contender=slicer.name, label=slicer.label, kind=slicer.kind, status=status, error=error)


def _cold(slicer: type[Slicer], task: Task) -> float | None:
    """Slices/s of a first pass whose files are not in memory; None if they are nevertheless."""
    ready = slicer(task)
    gc.collect()  # files that are still mapped somewhere would stay in memory
    if not hasattr(os, "posix_fadvise"):
        return None
    for path in (task.folder / SHARD_FOLDER).iterdir():
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    before = _bytes_from_disk()
    rate = _passes(ready, 0.0)
    read = _bytes_from_disk() - before
    return rate if read >= 4 * task.length * len(task.order) // 2 else None


def _passes(slicer: Slicer, seconds: float) -> float:
    """Slices/s of whole passes, as many as begin within so many seconds, one at least."""
    with _threads(1 if slicer.one_thread else slicer.task.threads):
        slices, began = 0, time.perf_counter()
        while not slices or time.perf_counter() - began < seconds:
            for batch in slicer.batches():
                slices += len(batch)
        return slices / (time.perf_counter() - began)


def _bytes_from_disk() -> int:
    """That this process has caused to be read so far; 0 where the system does not tell."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return 0
    return next(
        int(line.split()[1]) for line in counters.read_text().splitlines() if line.startswith("read_bytes")
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads; ours take as many."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
