"""A run of the benchmark: check everyone, warm up, then rounds."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import UsageError, WseError
from ..machine import cores
from ..train.backend import DeviceMemoryError
from .contender import Contender
from .crew import Crew
from .judge import Judge
from .lanes import Rate
from .results import Entry, Report, Result
from .rounds import Tell, take_rounds
from .sites import Gauge, Gpu, Processor, Site
from .workload import Workload, WorkloadSpec

PROBE_SHARE = 0.25  # of a contender's seconds
_SOFTWARE = ("wse", "torch", "numpy", "numba")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure and how long.

    Attributes:
        workloads: one after the other.
        names: of contenders; None: all.
        threads: for every contender in all on the processor; None: one for each core.
        gpu: to measure there; None: on the processor.
        seconds: of a contender's turn in a round.
        rounds: how many turns each gets.

    Raises:
        UsageError: an unknown contender, or a number that is too small.
    """

    workloads: tuple[WorkloadSpec, ...]
    names: tuple[str, ...] | None = None
    threads: int | None = None
    gpu: Gpu | None = None
    seconds: float = 1.0
    rounds: int = 5

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"`threads` (={self.threads}) must be at least 1")
        if not self.seconds > 0:
            raise UsageError(f"`seconds` (={self.seconds}) must be more than 0")
        if self.rounds < 1:
            raise UsageError(f"`rounds` (={self.rounds}) must be at least 1")
        known = [contender.name for contender in self.site.contenders()] if self.names else []
        for name in self.names or ():
            if name not in known:
                raise UsageError(f"--contenders: there is no {name!r}; use {', '.join(known)}")

    @property
    def site(self) -> Site:
        """Where it runs."""
        return self.gpu or Processor(threads=self.threads or cores())

    def chosen(self) -> list[Contender]:
        """The contenders to measure."""
        return [c for c in self.site.contenders() if self.names is None or c.name in self.names]


def run(options: Options, tell: Tell, entrants: Sequence[Contender] | None = None) -> Iterator[Report]:
    """Measure.

    Args:
        options: what.
        tell: is given a line of progress now and then.
        entrants: contenders in place of those of ``options``.

    Yields:
        What was found on a workload, as soon as it is.

    Raises:
        UsageError: an image set is not here.
        WseError: one of our backends failed.
        KeyboardInterrupt: Ctrl-C; what whole rounds gave has been yielded.
    """
    entrants = options.chosen() if entrants is None else entrants
    workloads = [Workload(spec) for spec in options.workloads]
    site = options.site
    with ExitStack() as stack:
        crews: dict[str, Crew] = {}
        for entrant in entrants:
            if any(entrant.why_not(workload) is None for workload in workloads):
                crews[entrant.name] = stack.enter_context(Crew(entrant))
        tell(f"started {len(crews)} contenders on {site.name}")
        gauges = site.gauges()
        for workload in workloads:
            result = _measure(workload, entrants, crews, gauges, options, tell)
            about = provenance(options.threads or cores()) | site.provenance()
            yield Report(provenance=about, seconds=options.seconds, result=result)
            if result.interrupted:
                raise KeyboardInterrupt


def _measure(
    workload: Workload,
    entrants: Sequence[Contender],
    crews: dict[str, Crew],
    gauges: Mapping[str, Gauge],
    options: Options,
    tell: Tell,
) -> Result:
    spec, judge = workload.spec, Judge(workload)
    entries: dict[str, Entry] = {}
    for entrant in entrants:
        tell(f"{spec.name}: checking {entrant.name}")
        entries[entrant.name] = _check(entrant, crews.get(entrant.name), workload, judge)
    racing = {name: crews[name] for name, entry in entries.items() if entry.status == "ok"}
    for name, crew in list(racing.items()):
        tell(f"{spec.name}: warming up {name}")
        try:
            crew.prepare(spec)
        except WseError as error:
            if _is_our_fault(crew.contender, error):
                raise
            entries[name] = replace(entries[name], status="skipped", note=str(error))
            del racing[name]
    found = take_rounds(
        {name: partial(crew.measure, options.seconds) for name, crew in racing.items()},
        {name: partial(gauge.measure, options.seconds * PROBE_SHARE) for name, gauge in gauges.items()},
        count=options.rounds,
        workload=spec.name,
        tell=tell,
    )
    for name, crew in racing.items():
        entries[name] = replace(entries[name], bytes_per_sample=crew.contender.least_bytes(workload))
    interrupted = found.interrupted
    if not interrupted:  # else some may be at work still
        try:
            for name, crew in racing.items():
                entries[name] = replace(entries[name], kernels=_shares(crew))
        except KeyboardInterrupt:  # all rounds are over, and are kept
            interrupted = True
    return Result(
        workload=spec.name,
        flops=workload.flops,
        datasets=spec.datasets,
        entries=tuple(_timed(entry, found.turns.get(name, [])) for name, entry in entries.items()),
        machine=options.site.machine(found.machine),
        interrupted=interrupted,
    )


def _check(entrant: Contender, crew: Crew | None, workload: Workload, judge: Judge) -> Entry:
    """The contender's entry before it is timed."""
    entry = Entry(contender=entrant.name, label=entrant.label, kind=entrant.kind)
    reason = entrant.why_not(workload)
    if reason is not None or crew is None:
        return replace(entry, status="skipped", note=reason or "")
    precise = replace(entrant, precision="fp32")
    try:
        verdict = judge.verdict(precise, crew.check(workload.spec, "fp32"))
        if verdict.complaint is None and entrant.precision != "fp32":
            rough = judge.verdict(entrant, crew.check(workload.spec, entrant.precision))
            entry = replace(entry, errors={f"{name} in fp32": error for name, error in verdict.errors.items()})
            verdict = rough
    except WseError as error:
        if _is_our_fault(entrant, error):
            raise
        return replace(entry, status="skipped", note=str(error))
    complaint = verdict.complaint
    errors = {**entry.errors, **verdict.errors}
    return replace(entry, status="wrong" if complaint else "ok", note=complaint or "", errors=errors)


def _shares(crew: Crew) -> Mapping[str, float]:
    """Its kernels' shares, none if it cannot say; what it holds of the workload is given back."""
    shares: Mapping[str, float] = {}
    with suppress(WseError):  # its rates are known
        shares = crew.shares()
    with suppress(WseError):
        crew.forget()
    return shares


def _is_our_fault(contender: Contender, error: WseError) -> bool:
    """Not every PyTorch can do everything everywhere, and not every pack fits: the others are measured."""
    return contender.kind == "ours" and not isinstance(error, DeviceMemoryError)


def _timed(entry: Entry, rates: Sequence[Rate]) -> Entry:
    return replace(
        entry,
        samples_per_second=tuple(rate.images for rate in rates),
        flops_per_second=tuple(rate.work for rate in rates),
    )


def provenance(threads: int) -> dict[str, Any]:
    """Machine, versions, date, and how many threads were in use."""
    from .peak import vector_shape

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": cores(),
        "threads": threads,
        "vector_floats": vector_shape()[0],
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _SOFTWARE},
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
