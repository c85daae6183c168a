"""What a benchmark found: rates by round, and what follows from them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..errors import WseError
from .contender import Kind

Status = Literal["ok", "wrong", "skipped"]

# Timers and the peak itself are good to about so much; beyond it, the work was not what it is taken for.
_MOST_OF_PEAK = 1.02


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One contender on one workload.

    Attributes:
        contender: its name.
        label: for the table.
        kind: ours, or what a user would run instead.
        status: ``wrong`` if its results disagree with the reference, ``skipped`` if it cannot run; neither is
            timed.
        note: why.
        errors: relative errors against float64 by what was compared.
        samples_per_second: by round.
        flops_per_second: useful FLOP/s by round.
        bytes_per_sample: see ``Contender.least_bytes``.
        kernels: the share of the device's time of each of its kernels.
    """

    contender: str
    label: str
    kind: Kind
    status: Status = "ok"
    note: str = ""
    errors: Mapping[str, float] = field(default_factory=dict)
    samples_per_second: tuple[float, ...] = ()
    flops_per_second: tuple[float, ...] = ()
    bytes_per_sample: float | None = None
    kernels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the processor did at most in the same run, by round.

    Attributes:
        fma_one: FLOP/s of fused multiply-adds, one thread.
        fma_all: all threads at once.
        triad_one: bytes/s of a triad, one thread.
        triad_all: all threads at once.
    """

    fma_one: tuple[float, ...]
    fma_all: tuple[float, ...]
    triad_one: tuple[float, ...]
    triad_all: tuple[float, ...]

    @property
    def peak(self) -> float:
        """FLOP/s that nobody can exceed, the median."""
        return statistics.median(self.fma_all)

    @property
    def memory(self) -> float:
        """Bytes/s, the median."""
        return statistics.median(self.triad_all)

    def medians(self) -> dict[str, float]:
        """The median of each."""
        return {name: statistics.median(values) for name, values in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a GPU did at most in the same run, by round.

    Attributes:
        matrix_bf16: FLOP/s of a large matrix product of bfloat16.
        matrix_tf32: the same of float32 by TF32.
        copy: bytes/s read and written by a copy.
    """

    matrix_bf16: tuple[float, ...]
    matrix_tf32: tuple[float, ...]
    copy: tuple[float, ...]

    @property
    def peak(self) -> float:
        """FLOP/s that nobody can exceed, the median: those of bfloat16, also for those who compute in others."""
        return statistics.median(self.matrix_bf16)

    @property
    def memory(self) -> float:
        """Bytes/s, the median."""
        return statistics.median(self.copy)

    def medians(self) -> dict[str, float]:
        """The median of each."""
        return {name: statistics.median(values) for name, values in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table, from an entry that was timed.

    Attributes:
        samples_per_second: the median of the rounds.
        low: of the slowest round.
        high: of the fastest round.
        of_peak: median useful FLOP/s over the median peak.
        of_memory: bytes that could not be done without over what memory moves; None where they are not known.
        ratio: median samples/s over that of the best way to run PyTorch; None if none was timed.
    """

    samples_per_second: float
    low: float
    high: float
    of_peak: float
    of_memory: float | None
    ratio: float | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """All contenders on one workload.

    Attributes:
        workload: its name.
        flops: useful FLOPs of training on one image, the mean of the members.
        datasets: the image sets.
        entries: what was found, ours first.
        machine: what the machine did meanwhile.
        interrupted: whether Ctrl-C came before all was measured; whole rounds count.
    """

    workload: str
    flops: float
    datasets: tuple[str, ...]
    entries: tuple[Entry, ...]
    machine: Machine | Card
    interrupted: bool = False

    def rows(self) -> dict[str, Row]:
        """Contender's name -> its line, for those that were timed.

        Raises:
            WseError: one did more than the machine can: the run is invalid.
        """
        timed = [entry for entry in self.entries if entry.status == "ok"]
        peak, memory = self.machine.peak, self.machine.memory
        best = max((_median(entry) for entry in timed if entry.kind == "pytorch"), default=None)
        rows = {}
        for entry in timed:
            of_peak = statistics.median(entry.flops_per_second) / peak
            if of_peak > _MOST_OF_PEAK:
                raise WseError(
                    f"{self.workload}: {entry.contender} came to {100 * of_peak:.0f} % of the machine's peak, "
                    "which cannot be: the run is invalid (if other work disturbed it, run it again)"
                )
            rows[entry.contender] = Row(
                samples_per_second=_median(entry),
                low=min(entry.samples_per_second),
                high=max(entry.samples_per_second),
                of_peak=of_peak,
                of_memory=None
                if entry.bytes_per_sample is None
                else _median(entry) * entry.bytes_per_sample / memory,
                ratio=None if best is None else _median(entry) / best,
            )
        return rows


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found on a workload, and where.

    Attributes:
        provenance: machine, versions, date.
        seconds: of a contender's round.
        result: what was found.
    """

    provenance: Mapping[str, Any]
    seconds: float
    result: Result

    @property
    def wrong(self) -> list[str]:
        """Contenders whose results disagree with the reference: "contender on workload: how"."""
        return [
            f"{entry.contender} on {self.result.workload}: {entry.note}"
            for entry in self.result.entries
            if entry.status == "wrong"
        ]

    def records(self) -> list[dict[str, Any]]:
        """A flat record a contender, raw rounds and provenance included, for a results file."""
        result, rows = self.result, self.result.rows()
        return [
            {
                "bench": "train",
                "workload": result.workload,
                "contender": entry.contender,
                "status": entry.status,
                "note": entry.note,
                "errors": dict(entry.errors),
                "bytes_per_sample": entry.bytes_per_sample,
                "kernels": dict(entry.kernels),
                **(asdict(rows[entry.contender]) if entry.contender in rows else {}),
                "rounds": {
                    "samples_per_second": entry.samples_per_second,
                    "flops_per_second": entry.flops_per_second,
                    **asdict(result.machine),
                },
                "flops_per_sample": result.flops,
                "datasets": result.datasets,
                "interrupted": result.interrupted,
                "seconds": self.seconds,
                "provenance": dict(self.provenance),
            }
            for entry in result.entries
        ]


def _median(entry: Entry) -> float:
    return statistics.median(entry.samples_per_second)
