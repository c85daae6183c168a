"""How numbers look on the terminal, the same in every command, and the exit code of an interrupted one."""

from __future__ import annotations

INTERRUPTED = 130


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


def seconds_of(text: str) -> float:
    """Read a time: 90s, 10m, 2h, 1h30m; a bare number counts seconds.

    Raises:
        UsageError: it is no time.
    """
    import re

    from wse.engine.errors import UsageError

    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))
        if found
        else 0
    )
    if seconds <= 0:
        raise UsageError(f"{text!r} is no time: write 90s, 10m, 2h or 1h30m")
    return seconds


def count_text(value: float) -> str:
    """12345678 -> "12.3 M"."""
    for unit in ("", " k", " M", " G", " T", " P"):
        if abs(value) < 1000:
            return f"{value:.0f}{unit}" if not unit or value >= 100 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f} E"


def percent_text(fraction: float) -> str:
    """0.1234 -> "12.3 %"."""
    return f"{100 * fraction:.1f} %"
