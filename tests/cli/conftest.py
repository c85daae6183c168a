from __future__ import annotations

from pathlib import Path

import pytest

from .process import TINY, wse


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete zoo of 24 members in it, which no test may change."""
    folder = tmp_path_factory.mktemp("cli")
    done = wse("generate", *TINY, "--models", "24", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder
