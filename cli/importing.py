"""``wse import``: a zoo out of zoos in the formats of others."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from .bar import bar
from .output import bytes_text, command_text, counted_text


def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Folders of the small CNN zoo (weights.npy, metrics.csv.gz, layout.csv) or of raw model zoos, or "
            "index files or folders of the NWS study.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder of the new zoo.")],
    dtype: Annotated[
        str, typer.Option(help="Number format of the stored weights: float32, float16 or bfloat16.")
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Make a zoo out of networks that others have published, to be read like any other."""
    from wse.engine.exchange import import_zoo
    from wse.engine.zoo import known_dtype

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what has been stored is cleared away
    with bar("importing", quiet=quiet or as_json) as tell:
        imported = import_zoo(sources, out, dtype=known_dtype(dtype), tell=tell)
    manifest = imported.manifest
    size = sum(entry.bytes for entry in manifest.shards)
    if as_json:
        import json

        result: dict[str, Any] = {"zoo": str(out), "models": manifest.models, "counts": manifest.counts}
        typer.echo(
            json.dumps({**result, "bytes": size, "left_out": imported.left_out, "notes": imported.notes}, indent=2)
        )
        return
    typer.echo(f"{out}: {counted_text(manifest.models, 'member')}, {bytes_text(size)} of weights")
    for note in imported.notes:
        typer.echo(note)
    if imported.left_out:
        typer.echo(f"left out: {counted_text(imported.left_out, 'snapshot')} with weights that are not finite")
    typer.echo(f"look inside with `{command_text('wse', 'info', out)}`")
