"""``wse report``: a page about a zoo and what was read from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import bytes_text


def report(
    zoo: Annotated[Path, typer.Argument(help="The folder of the zoo.")] = Path("zoo"),
    out: Annotated[
        Path,
        typer.Option(help="The page; the folder FILE-data beside it gets each figure by itself.", metavar="FILE"),
    ] = Path("report.html"),
    study: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="The folder of a study that `wse meta --out` wrote elsewhere; may be repeated."
        ),
    ] = None,
    no_embedding: Annotated[
        bool, typer.Option("--no-embedding", help="Leave out the map of the weights, which takes longest.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Show what there is so far of a zoo whose run has not ended.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Write one HTML page, with figures and their numbers, about a zoo and the studies of `wse meta`."""
    from wse.engine.report import write_report
    from wse.engine.zoo import Zoo

    opened = Zoo.open(zoo, unfinished=unfinished)
    folder = write_report(opened, out, studies=study or (), embedding=not no_embedding)
    typer.echo(f"{out} ({bytes_text(out.stat().st_size)}); each figure and its numbers: {folder}/*.svg, *.csv")
