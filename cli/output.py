"""How numbers and commands look on the terminal, everywhere the same, and the exit code of an interruption."""

from __future__ import annotations

import re

from wse.engine.errors import UsageError
from wse.engine.text import bytes_text, command_text, count_text, counted_text, percent_text, seconds_text

__all__ = [
    "INTERRUPTED",
    "bytes_text",
    "command_text",
    "count_text",
    "counted_text",
    "percent_text",
    "seconds_of",
    "seconds_text",
]

INTERRUPTED = 130


def seconds_of(text: str) -> float:
    """Read a time: 90s, 10m, 2h, 1h30m; a bare number counts seconds.

    Raises:
        UsageError: it is no time.
    """
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))
        if found
        else 0
    )
    if seconds <= 0:
        raise UsageError(f"{text!r} is no time: write 90s, 10m, 2h or 1h30m")
    return seconds
