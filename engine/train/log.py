"""The log of a run: one JSON object a line, appended to ``log.jsonl`` in the zoo's folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import WseError

LOG_FILE = "log.jsonl"
# What the event of a member tells of it: with its set-up and its snapshots, all that the members table holds.
LOGGED = ("status", "epochs", "steps", "predicted_classes", "samples_trained", "samples_evaluated", "seconds")


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
