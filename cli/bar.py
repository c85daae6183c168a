"""A plain bar for work whose amount is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(work: str, *, quiet: bool, of_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, else nothing.

    Args:
        work: what is done, in a word.
        quiet: whether to show nothing at all.
        of_bytes: whether bytes are counted, and not things.

    Yields:
        What to tell how much is done, and of how much.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    count = DownloadColumn() if of_bytes else MofNCompleteColumn()
    columns = (BarColumn(24), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(work)
        yield lambda done, total: progress.update(task, completed=done, total=total)
