"""Compiled code kept on disk under a name that changes with everything it was made from.

Numba's own cache looks at the one file that holds a function: kernels of other files, constants and the vector
width could change and stale code would be run. So each state of the sources has a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs
from llvmlite import binding
from numba import njit
from numba.core import caching
from numba.core.compiler_lock import global_compiler_lock

from .width import V

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

_KERNELS = Path(__file__).parent.parent
_OF_OTHERS = ("packs.py", "transfer.py", "reference.py")
_APART = ("slices",)  # nothing is compiled from them but themselves, so training need not be compiled anew


def cache_folder(sources: Iterable[Path]) -> Path:
    """Where code compiled from kernels and these files is kept: below ``WSE_CACHE`` or the user's cache."""
    digest = hashlib.sha256()
    for part in (f"{V}", version("numba"), version("llvmlite"), binding.get_host_cpu_name()):
        digest.update(part.encode() + b"\n")
    for source in [*filter(_may_be_compiled_in, sorted(_KERNELS.rglob("*.py"))), *sorted(sources)]:
        digest.update(source.name.encode() + b"\n" + source.read_bytes())
    chosen = os.environ.get("WSE_CACHE")
    root = Path(os.path.expanduser(chosen)) if chosen else Path(platformdirs.user_cache_dir("wse"))
    return root / "compiled" / digest.hexdigest()[:16]


def _may_be_compiled_in(source: Path) -> bool:
    """Not what GPUs need, not what others are compared with, and not what stands apart."""
    return source.parent.name not in _APART and not source.name.startswith(("triton", *_OF_OTHERS))


class _Locator(caching._SourceFileBackedLocatorMixin, caching._CacheLocator):  # type: ignore[misc]
    """A place for a function's compiled code that is what it is: Numba's would go elsewhere if it is read-only."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._py_file, self._lineno = function.__code__.co_filename, function.__code__.co_firstlineno
        self._folder = folder

    def get_cache_path(self) -> str:
        return str(self._folder)


class _Files(caching.CompileResultCacheImpl):  # type: ignore[misc]
    """What Numba needs to know of the files."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._locator = _Locator(function, folder)
        self._filename_base = self.get_filename_base(function.__qualname__, "")


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function, in a folder. Where it cannot be read or written, code is compiled each time."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._impl_class = partial(_Files, folder=folder)
        super().__init__(function)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # what half a file, or another program's, may raise has no end
            with suppress(OSError):
                self.flush()  # as if there were none, so that it is written anew
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            folder, reason = Path(self.cache_path).parent, error.strerror or error  # one line for all kernels
            warnings.warn(
                f"compiled kernels cannot be kept in {folder} ({reason}), so each start compiles them: "
                "set WSE_CACHE to a folder that can be written",
                stacklevel=1,
            )


class _OneProcess:
    """Lets one process at a time compile, so that those that wait find on the disk what it has made."""

    def __init__(self) -> None:
        self._depth = 0

    @contextmanager
    def __call__(self, root: Path) -> Iterator[None]:
        """Hold the lock of a cache; a function that comes to another while it is compiled takes no second one."""
        with global_compiler_lock:  # first, because a thread may already have it
            descriptor = _locked(root / "lock") if self._depth == 0 else None
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if descriptor is not None:
                    os.close(descriptor)


_one_process = _OneProcess()


def _locked(path: Path) -> int | None:
    """A file, open and locked until it is closed or the process ends; None where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # nothing can be kept there, so there is nothing to wait for
        return None
    with suppress(OSError):  # a file system without locks: all compile
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def cached_njit(function: Callable[..., Any], sources: Iterable[Path]) -> Callable[..., Any]:
    """``function`` compiled without the GIL at its first call, or read from the disk if it ever was.

    Args:
        function: what numba can compile; it may call kernels.
        sources: the files outside the kernels' folder that its code comes from.
    """
    compiled: Any = njit(nogil=True)(function)
    folder = cache_folder(sources)
    compiled._cache = _Cache(function, folder)
    at_once = compiled.compile

    def compile_or_read(signature: Any) -> Any:
        with _one_process(folder.parent):
            return at_once(signature)

    compiled.compile = compile_or_read
    return compiled  # type: ignore[no-any-return]


def is_cached(sources: Iterable[Path]) -> bool:
    """Whether anything compiled from these sources is on the disk."""
    return any(cache_folder(sources).glob("*.nbc"))
