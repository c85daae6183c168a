"""What a person sees while a population trains: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .output import count_text, percent_text, seconds_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wse.engine.train import Progress, Run

_LIVE_SECONDS = 0.5
_PLAIN_SECONDS = 30.0


class ProgressDisplay:
    """Shows a run's progress on stderr for as long as the ``with`` block lasts.

    Args:
        run: whose progress.
        quiet: show nothing.
    """

    def __init__(self, run: Run, *, quiet: bool) -> None:
        self._run, self._quiet = run, quiet
        self._live = sys.stderr.isatty()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> ProgressDisplay:
        if not self._quiet:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if not self._quiet:
            self._thread.join()

    def _show(self) -> None:
        if not self._live:
            while not self._over.wait(_PLAIN_SECONDS):
                if self._run.backend.preparing is None:  # it has lines of its own
                    print(describe(self._run.progress()), file=sys.stderr, flush=True)
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            while not self._over.wait(_LIVE_SECONDS):
                live.update(_picture(self._run.progress()), refresh=True)


def execute(run: Run, *, quiet: bool) -> bool:
    """Train; the first Ctrl-C or SIGTERM checkpoints what is in training and ends the run, the second at once."""

    def stop(_signal: int, _frame: Any) -> None:
        if run.is_stopping:
            raise KeyboardInterrupt
        run.stop()
        print("\nstopping; once more to leave at once", file=sys.stderr)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ProgressDisplay(run, quiet=quiet):
            return run.execute()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(progress: Progress) -> str:
    """One line: members, time left, rates, accuracies."""
    return " · ".join(filter(None, (_how_far(progress), _how_fast(progress))))


def _picture(progress: Progress) -> RenderableType:
    """Two short lines, which fit a narrow terminal: a bar with how far, and how fast and how good below."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1))
    share = _share(progress) if progress.preparing is None else progress.preparing
    line.add_row(ProgressBar(total=1.0, completed=share, width=24), Text(_how_far(progress)))
    return Group(line, Text(_how_fast(progress), style="dim"))


def _how_far(progress: Progress) -> str:
    if progress.preparing is not None:
        return f"compiling kernels, once on this machine: {progress.preparing:.0%}"
    left = time_left(progress)
    return f"{progress.members:,}/{progress.total:,} models" + (f" · {seconds_text(left)} left" if left else "")


def _how_fast(progress: Progress) -> str:
    parts = []
    if progress.seconds > 0 and progress.training_images:
        parts.append(f"{count_text(progress.training_images / progress.seconds)} samples/s")
    if progress.accuracies and progress.seconds > 0:
        rate = len(progress.accuracies) / progress.seconds
        parts.append(f"{rate:.1f} models/s" if rate >= 1 else f"{60 * rate:.1f} models/min")
        best, middle = max(progress.accuracies), median(progress.accuracies)
        parts.append(f"test accuracy best {percent_text(best)}, median {percent_text(middle)}")
    return " · ".join(parts)


def time_left(progress: Progress) -> float | None:
    """Seconds until the last member ends, at most: members that stop early make it less."""
    share = _share(progress)
    return progress.seconds * (1 - share) / share if share > 0 else None


def _share(progress: Progress) -> float:
    """How much of this sitting's work is done: by FLOPs, or by members where those stop early."""
    earlier = progress.members - len(progress.accuracies)
    by_members = len(progress.accuracies) / max(progress.total - earlier, 1)
    return min(max(progress.flops / max(progress.planned_flops, 1), by_members), 1.0)
