"""``wse verify``: whether a zoo is whole, and what is wrong if it is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import bytes_text

if TYPE_CHECKING:
    from wse.engine.zoo import Manifest, Problem


def verify(
    zoo: Annotated[Path, typer.Argument(help="The folder of the zoo.")] = Path("zoo"),
    labels: Annotated[
        int | None,
        typer.Option(help="Also measure so many random members again, on the test images.", metavar="K"),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="A folder with image sets, searched first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Read every file of a zoo in full, and say what is wrong."""
    from wse.engine.zoo import DamagedError, Problem, Zoo, find_problems

    manifest, measured = None, 0
    try:
        opened = Zoo.open(zoo)
        manifest = opened.manifest
        problems = find_problems(opened)
        if labels is not None and not problems:
            from wse.engine.train import label_problems

            problems = label_problems(opened, labels, data_dir=data_dir)
            measured = min(labels, len(opened))
    except DamagedError as error:
        problems = [Problem.of(error, zoo)]
    if as_json:
        _print_json(zoo, problems, measured)
    elif manifest is not None and not problems:
        again = f", {measured:,} measured again" if measured else ""
        typer.echo(f"{zoo} is whole: {_extent(manifest)}{again}")
    else:
        for problem in problems:
            typer.echo(str(problem))
        typer.echo("restore what is damaged from a copy, or make the zoo again")
    if problems:
        raise typer.Exit(1)


def _extent(manifest: Manifest) -> str:
    sizes = [shard.bytes for shard in manifest.shards] + [table.bytes for table in manifest.tables.values()]
    return f"{manifest.models:,} members, {bytes_text(sum(sizes))} in {len(sizes):,} tables and shards"


def _print_json(folder: Path, problems: list[Problem], measured: int) -> None:
    import json

    found = [{"file": str(problem.file.relative_to(folder)), "problem": problem.text} for problem in problems]
    result = {"zoo": str(folder), "whole": not problems, "measured": measured, "problems": found}
    typer.echo(json.dumps(result, indent=2))
