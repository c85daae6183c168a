"""The log of a run: one JSON object a line, appended to ``log.jsonl`` in the zoo's folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ..errors import WseError

LOG_FILE = "log.jsonl"

Event = tuple[str, dict[str, Any]]


class Listener(Protocol):
    """Who can be told of events."""

    def write(self, event: str, **fields: Any) -> None:
        """Take one event."""


class Log:
    """Appends events to a file; an event is complete on its line or not there.

    Args:
        folder: of the zoo; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_FILE

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the current time (UTC).

        Raises:
            WseError: the file cannot be written.
        """
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise WseError(f"cannot write {self._path}: {error.strerror or error}") from error


class Memo:
    """Keeps events for a process that has no log of its own, until they are sent to the one that has."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def write(self, event: str, **fields: Any) -> None:
        """Keep one event."""
        self._events.append((event, fields))

    def take(self) -> tuple[Event, ...]:
        """What was kept since the last time; any thread may write meanwhile."""
        count = len(self._events)
        taken = tuple(self._events[:count])
        del self._events[:count]
        return taken
