"""``wse merge``: one zoo out of several."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .output import bytes_text, command_text


def merge(
    zoos: Annotated[list[Path], typer.Argument(metavar="ZOO", help="The folders of the zoos, two or more.")],
    out: Annotated[Path, typer.Option(help="The folder of the new zoo.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Make one zoo out of several, such as those of several machines, with the same weights."""
    from wse.engine.zoo import merge_zoos

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what has been copied is cleared away
    with _progress(quiet=quiet or as_json) as tell:
        manifest = merge_zoos(zoos, out, tell)
    size = sum(entry.bytes for entry in manifest.shards)
    if as_json:
        import json

        result: dict[str, Any] = {"zoo": str(out), "models": manifest.models, "counts": manifest.counts}
        typer.echo(json.dumps({**result, "bytes": size, "sources": len(manifest.sources)}, indent=2))
        return
    from wse.engine.report import seeds_in_common, sources

    if not quiet and (shared := seeds_in_common(manifest)):
        print(f"seed {shared} made several of these zoos: their members are not independent", file=sys.stderr)
    typer.echo(f"{out}: {manifest.models:,} members of {sources(manifest)}, {bytes_text(size)} of weights")
    typer.echo(f"look inside with `{command_text('wse', 'info', out)}`")


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, else nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress(
        BarColumn(24), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("copying")
        yield lambda done, total: bar.update(task, completed=done, total=total)
