from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from wse.cli.main import main

from .process import TINY, wse


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete zoo of 24 members in it, which no test may change."""
    folder = tmp_path_factory.mktemp("cli")
    done = wse("generate", *TINY, "--models", "24", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def wse_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Callable[..., int]]:
    """What runs commands in a folder, in this process, and gives their exit codes."""

    def runner(folder: Path) -> Callable[..., int]:
        monkeypatch.chdir(folder)
        before = signal.getsignal(signal.SIGTERM)

        def run(*words: object) -> int:
            monkeypatch.setattr("sys.argv", ["wse", *map(str, words)])
            try:
                main()
            except SystemExit as ended:
                return int(ended.code or 0)
            finally:
                signal.signal(signal.SIGTERM, before)
            return 0

        return run

    return runner
