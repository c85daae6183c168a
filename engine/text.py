"""How numbers and commands are written for people: the same on the terminal, in the log and in a report."""

from __future__ import annotations

import shlex
from pathlib import Path


def bytes_text(count: float) -> str:
    """1536 -> "1.5 kB" (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def seconds_text(seconds: float) -> str:
    """75 -> "1 min 15 s"; at most two units."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    rounded = round(seconds)
    days, rest = divmod(rounded, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    first = next((index for index, (value, _) in enumerate(parts) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value)


def count_text(value: float) -> str:
    """12345678 -> "12.3 M"."""
    for unit in ("", " k", " M", " G", " T", " P"):
        if abs(value) < 1000:
            return f"{value:.0f}{unit}" if not unit or value >= 100 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f} E"


def percent_text(fraction: float | None) -> str:
    """0.1234 -> "12.3 %"; a dash for what is not known."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def counted_text(count: int, noun: str) -> str:
    """A number of things whose plural ends in s: (2000, "worker") -> "2,000 workers"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def name_text(path: Path) -> str:
    """The name of a file or folder as text that can be stored: bytes that are not UTF-8 become question marks."""
    return path.name.encode(errors="replace").decode()


def command_text(*words: object) -> str:
    """A command as it is typed: ("wse", "info", "my zoo") -> "wse info 'my zoo'"."""
    return shlex.join(map(str, words))
