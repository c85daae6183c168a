"""Disks that fail: the n-th call that changes a folder goes wrong, and what a run makes of it."""

from __future__ import annotations

import errno
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wse.engine.errors import WseError
from wse.engine.zoo import LOG_FILE

# "error": input/output error; "full": no space left; "short": half of what is to be written, then no space left.
Kind = Literal["error", "full", "short"]
KINDS: tuple[Kind, ...] = ("error", "full", "short")

_BY_PATH = ("replace", "unlink", "rmdir", "mkdir", "open")
_BY_DESCRIPTOR = ("fsync", "write", "ftruncate")


@dataclass(kw_only=True)
class Faults:
    """Counts the calls that change what is in a folder, and lets one of them fail.

    Attributes:
        folder: where; what happens elsewhere goes its way.
        at: which call fails, from 0; None: none.
        kind: how.
        calls: what was called so far: the call and the name of the file.
        failed: whether the call has failed.
    """

    folder: Path
    at: int | None = None
    kind: Kind = "error"
    calls: list[str] = field(default_factory=list)
    failed: bool = False

    def happens(self, call: str, path: str) -> bool:
        """Whether this call, which is counted, is the one that fails."""
        if not path.startswith(f"{self.folder}{os.sep}"):
            return False
        self.calls.append(f"{call} {Path(path).name}")
        now = self.at == len(self.calls) - 1
        self.failed |= now
        return now

    def error(self) -> OSError:
        """What the call raises."""
        number = errno.EIO if self.kind == "error" else errno.ENOSPC
        return OSError(number, os.strerror(number))

    def check(self, call: str, path: str) -> None:
        """Count a call; raises an ``OSError`` if it is the one that fails."""
        if self.happens(call, path):
            raise self.error()


class _File:
    """A file open for writing; all but what is below goes to the file itself."""

    def __init__(self, file: Any, faults: Faults, path: str) -> None:
        self._file, self._faults, self._path = file, faults, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, content: Any) -> int:
        if self._faults.happens("write", self._path):
            if self._faults.kind == "short":
                whole = content if isinstance(content, str) else bytes(content)
                self._file.write(whole[: len(whole) // 2])
                self._file.flush()
            raise self._faults.error()
        written: int = self._file.write(content)
        return written

    def flush(self) -> None:
        self._faults.check("flush", self._path)
        self._file.flush()

    def truncate(self, *size: int) -> int:
        self._faults.check("truncate", self._path)
        left: int = self._file.truncate(*size)
        return left


@contextmanager
def failing(faults: Faults) -> Iterator[None]:
    """Let calls fail while the block lasts, in all threads of this process.

    Files are watched that are opened through ``pathlib``, and descriptors used through ``os``, which is how a zoo
    is written.
    """
    before: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, replacement)

    real_open = io.open

    def open_file(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        path = os.path.abspath(file) if isinstance(file, (str, os.PathLike)) else ""
        if not set(mode) & set("wxa+"):
            return real_open(file, mode, *rest, **more)
        faults.check("open", path)
        opened = real_open(file, mode, *rest, **more)
        return _File(opened, faults, path) if path.startswith(str(faults.folder)) else opened

    def by_path(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, *rest: Any, **more: Any) -> Any:
            writes = name != "open" or (rest and rest[0] & (os.O_CREAT | os.O_RDWR | os.O_WRONLY))
            if writes and "dir_fd" not in more:
                faults.check(name, os.path.abspath(path))
            return call(path, *rest, **more)

        return wrapped

    def by_descriptor(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(descriptor: int, *rest: Any) -> Any:
            faults.check(name, _path_of(descriptor))
            return call(descriptor, *rest)

        return wrapped

    try:
        patch(io, "open", open_file)
        for name in _BY_PATH:
            patch(os, name, by_path(name, getattr(os, name)))
        for name in _BY_DESCRIPTOR:
            patch(os, name, by_descriptor(name, getattr(os, name)))
        yield
    finally:
        for owner, name, real in before:
            setattr(owner, name, real)


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") + os.sep  # the folder itself counts as inside
    except OSError:
        return ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a call that failed.

    Attributes:
        call: which; None: there was none so late.
        kind: how.
        ended: "told": one clear line; "completed": in spite of it; else the error that no user should see.
        lost: members that were stored, and were trained again all the same.
        same: whether what was gone on with is the zoo that is expected.
    """

    call: str | None
    kind: Kind
    ended: str
    lost: tuple[int, ...]
    same: bool

    @property
    def passed(self) -> bool:
        """Whether it was told or did no harm, nothing was lost, and the zoo is the same in the end."""
        return self.ended in ("told", "completed") and not self.lost and self.same


def outcome(
    faults: Faults, work: Callable[[], object], go_on: Callable[[], object], same: Callable[[], bool]
) -> Outcome:
    """Do something while a call fails, and go on without faults.

    Args:
        faults: which call fails.
        work: what is done.
        go_on: ends what ``work`` did not.
        same: whether the zoo is then the one that is expected.
    """
    try:
        with failing(faults):
            work()
        ended = "completed"
    except WseError as error:
        text = str(error)
        ended = "told" if "\n" not in text and str(faults.folder) in text else f"unclear: {text}"
    except Exception as error:  # whatever it is: that is the question
        ended = f"{type(error).__name__}: {error}"
    if ended != "completed":
        go_on()
    return Outcome(
        call=faults.calls[faults.at] if faults.failed and faults.at is not None else None,
        kind=faults.kind,
        ended=ended,
        lost=_trained_twice(faults.folder),
        same=same(),
    )


def _trained_twice(folder: Path) -> tuple[int, ...]:
    """Members that the log tells of twice: after the first time they were stored."""
    seen: Counter[int] = Counter()
    log = folder / LOG_FILE
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        with suppress(ValueError):  # torn
            event = json.loads(line)
            seen.update([event["id"]] if event["event"] == "member" else ())
    return tuple(member for member, times in seen.items() if times > 1)
