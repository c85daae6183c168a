"""``wse export``: networks of a zoo in the formats of others."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from .bar import bar
from .output import counted_text


def export(
    zoo: Annotated[Path, typer.Argument(help="The folder of the zoo.")] = Path("zoo"),
    to: Annotated[
        str,
        typer.Option(
            help="pt2: programs that run in PyTorch without wse, one a network; small-cnn-zoo: weights.npy, "
            "metrics.csv.gz and layout.csv."
        ),
    ] = "pt2",
    out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("export"),
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Only such networks, for instance status=ok; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Write networks of a zoo in a format that other programs read."""
    from wse.engine.exchange import export_zoo
    from wse.engine.zoo import Condition, Zoo

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what has been written is cleared away
    conditions = [Condition.parse(text) for text in where or []]
    with bar("exporting", quiet=quiet or as_json) as tell:
        count = export_zoo(Zoo.open(zoo), out, to=to, where=conditions, tell=tell)
    if as_json:
        import json

        typer.echo(json.dumps({"zoo": str(zoo), "out": str(out), "format": to, "models": count}, indent=2))
        return
    typer.echo(f"{out}: {counted_text(count, 'network')} of {zoo} ({to})")
