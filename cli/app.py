"""The ``wse`` command: puts the commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from . import bench, data, exporting, generate, importing, info, merge, meta, report, verify

app = typer.Typer(
    name="wse",
    help="Train populations of small neural networks and keep every network's weights as it learns.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate.generate)
app.command("info")(info.info)
app.command("merge")(merge.merge)
app.command("import")(importing.import_)
app.command("export")(exporting.export)
app.command("meta")(meta.meta)
app.command("report")(report.report)
app.command("verify")(verify.verify)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Train populations of small neural networks and keep every network's weights as it learns."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"wse {version_of('wse')}")
        raise typer.Exit
