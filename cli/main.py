"""The ``wse`` command: puts the commands together and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Annotated

import typer

from . import bench, data, generate, info, merge, meta, report, verify
from .output import INTERRUPTED

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


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 1 failed, 2 wrong use, 130 interrupted."""
    from wse.engine.errors import UsageError, WseError

    verbose = any(flag in sys.argv[1:] for flag in ("-v", "--verbose"))
    if not verbose:  # one line, without the place in the code
        warnings.formatwarning = lambda message, *_, **__: f"wse: {message}\n"
    try:
        app()
    except WseError as error:
        if verbose:
            traceback.print_exc()
        print(f"wse: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:  # what no module foresaw: still one line
        if verbose:
            traceback.print_exc()
        print(f"wse: {error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        if verbose:
            traceback.print_exc()
        print(
            f"wse: not enough memory: {str(error) or 'take fewer or smaller networks at a time'}", file=sys.stderr
        )
        sys.exit(1)
    except Exception as error:
        if verbose:
            raise
        print(
            f"wse: a fault of wse itself: {type(error).__name__}: {error}; --verbose shows where", file=sys.stderr
        )
        sys.exit(1)
