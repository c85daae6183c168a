"""``wse report``: a page about a zoo and what was read from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import bytes_text


def report(
    zoo: Annotated[Path, typer.Argument(help="The folder of the zoo.")] = Path("zoo"),
    out: Annotated[
        Path | None, typer.Option(help="The page (report.html inside the zoo if not given).", metavar="FILE")
    ] = None,
    no_embedding: Annotated[
        bool, typer.Option("--no-embedding", help="Leave out the map of the weights, which takes longest.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Write one HTML page, with figures and their numbers, about a zoo and the studies of `wse meta`."""
    from wse.engine.report import PAGE_NAME, write_report
    from wse.engine.zoo import Zoo

    page = zoo / PAGE_NAME if out is None else out
    folder = write_report(Zoo.open(zoo), page, embedding=not no_embedding)
    typer.echo(f"{page} ({bytes_text(page.stat().st_size)}); the numbers of each figure: {folder}/*.csv")
