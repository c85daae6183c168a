"""The way into ``wse``: turns errors and Ctrl-C into at most one line and an exit code."""

from __future__ import annotations

import io
import signal
import sys
import traceback
import warnings
from typing import Any

from wse.engine.errors import UsageError, WseError

from .output import INTERRUPTED


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 1 failed, 2 wrong use, 130 interrupted."""
    interrupted = False

    def interrupt(_signal: int, _frame: Any) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    verbose = any(flag in sys.argv[1:] for flag in ("-v", "--verbose"))
    if not verbose:  # one line, without the place in the code
        warnings.formatwarning = lambda message, *_, **__: f"wse: {message}\n"
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are no text are printed as they are
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else Ctrl-C is not meant for us
    if heard:
        signal.signal(signal.SIGINT, interrupt)
    try:
        from .app import app  # takes a moment

        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        # A library that Ctrl-C meets while it is imported may turn it into an error of its own.
        sys.exit(INTERRUPTED if interrupted else _tell(error, verbose=verbose))
    finally:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _tell(error: Exception, *, verbose: bool) -> int:
    """Say what went wrong; the exit code."""
    if verbose:
        traceback.print_exc()
    match error:
        case WseError() | OSError():
            text = str(error)
        case MemoryError():
            text = f"not enough memory: {str(error) or 'take fewer or smaller networks at a time'}"
        case _:
            text = f"a fault of wse itself: {type(error).__name__}: {error}; --verbose shows where"
    print(f"wse: {text}", file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1
