"""``wse data``: the image sets, where they are, and how to get them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Image sets: which are here, and how to get the others.", no_args_is_help=False)


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(help="A folder with image sets, searched first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """List the image sets: where their files are, or how to get them. Files are read when a set is first used."""
    if context.invoked_subcommand is not None:
        return
    from wse.engine.data import status

    rows = status(data_dir)
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("set", no_wrap=True)
    table.add_column("train", justify="right", no_wrap=True)
    table.add_column("test", justify="right", no_wrap=True)
    table.add_column("found in, or how to get it", overflow="fold")
    for row in rows:
        # Text, because brackets in a path would be taken for markup.
        missing = "; ".join([f"to get it: {row.how}", *row.gaps])
        place = Text(missing, "yellow") if row.found is None else Text(row.found, "green")
        counts = ("" if count is None else f"{count:,}" for count in (row.train_images, row.test_images))
        table.add_row(row.name, *counts, place)
    Console().print(table)


@app.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Image sets that `wse data` lists, such as mnist.")
    ],
) -> None:
    """Download image sets into the cache, checksums verified."""
    import sys

    from wse.engine.data import fetch as fetch_set
    from wse.engine.data import locate
    from wse.engine.data.download import check_download
    from wse.engine.data.search import source_of

    # A wrong name must show before the first download, which may be large.
    sources = [source_of(name) for name in names]
    here = {source.name: locate(source.name) for source in sources if not source.downloads}
    for source in sources:
        if here.get(source.name) is None:
            check_download(source)
    for source in sources:
        place = here.get(source.name) or fetch_set(source.name, progress=sys.stderr.isatty())
        typer.echo(f"{source.name}: {place} ({source.origin})")
