"""The log of a run: one JSON object a line, appended to ``log.jsonl`` in the zoo's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ..errors import WseError
from ..zoo import LOG_FILE, MemberResult, Timing
from ..zoo.records import MemberRecord

# What the event of a member tells of it: with its set-up and its snapshots, all that the members table holds.
LOGGED = ("status", "epochs", "steps", "predicted_classes", "samples_trained", "samples_evaluated", "seconds")

Event = tuple[str, dict[str, Any]]
Facts = dict[int, dict[str, Any]]


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
        self._begin_line = True

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the current time (UTC).

        Raises:
            WseError: the file cannot be written.
        """
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields})
        try:
            # A process that was killed, or a full disk, may have left half a line.
            torn = self._begin_line and _ends_inside_a_line(self._path)
            with self._path.open("ab") as file:
                file.write(b"\n" * torn + line.encode() + b"\n")
            self._begin_line = False
        except OSError as error:
            self._begin_line = True
            raise WseError(f"cannot write {self._path}: {error.strerror or error}") from error

    def write_member(self, member: MemberResult | MemberRecord) -> None:
        """Append what is known of a member that has been stored.

        Raises:
            WseError: the file cannot be written.
        """
        self.write(
            "member",
            id=member.id,
            architecture=member.architecture,
            **facts_of(member),
            test_accuracy=member.snapshots[-1].test_accuracy,
        )

    def sync(self) -> None:
        """Have all events on the disk.

        Raises:
            WseError: they cannot be written.
        """
        try:
            with self._path.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise WseError(f"cannot write {self._path}: {error.strerror or error}") from error


def logged(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a zoo's log. Torn or damaged lines are left out, and all if it cannot be read."""
    try:
        lines = (folder / LOG_FILE).read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
            if event.keys() >= {"event", "time"} and _moment(event):
                yield event
        except (ValueError, TypeError, AttributeError):
            continue


def facts_of(member: MemberResult | MemberRecord) -> dict[str, Any]:
    """What the log tells of a member: ``LOGGED``."""
    return {name: getattr(member, name) for name in LOGGED}


def logged_facts(folder: Path) -> Facts:
    """What the log of a zoo tells of its members, by id: ``LOGGED``, for those of whom it tells all that."""
    facts: Facts = {}
    for event in logged(folder):
        # Earlier versions told less.
        if event["event"] == "member" and event.keys() >= {"id", *LOGGED} and isinstance(event["id"], int):
            facts[event["id"]] = {name: event[name] for name in LOGGED}  # the last time told is what was stored
    return facts


def sittings(folder: Path) -> list[Timing]:
    """When each sitting of a run began and ended, and its seconds by stage; of a killed one only the total."""
    found: list[Timing] = []
    over = True
    for event in logged(folder):
        now = event["time"]
        if event["event"] == "start":
            found.append(Timing(started=now, finished=now, seconds={"total": 0.0}))
            over = False
        elif not over:  # what comes after its end, a repair for instance, is no part of a sitting
            started = found[-1].started
            over = event["event"] in ("stop", "end") and isinstance(event.get("seconds"), dict)
            took = _moment(event) - _moment({"time": started})
            seconds = event["seconds"] if over else {"total": took}
            found[-1] = Timing(started=started, finished=now, seconds=seconds)
    return found


def _moment(event: Mapping[str, Any]) -> float:
    """When it was, in seconds since 1970."""
    return datetime.fromisoformat(event["time"]).timestamp()


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


def _ends_inside_a_line(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() != b"\n"
