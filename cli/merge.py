"""``wse merge``: one zoo out of several."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .bar import bar
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
    with bar("copying", of_bytes=True, quiet=quiet or as_json) as tell:
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
