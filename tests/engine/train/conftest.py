"""Small zoos that were really trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo


def run_of(space, folder: Path, **options) -> Run:
    """Six members, unless told otherwise, by the reference."""
    given = {"models": 6, "threads": 1, "seed": 7, "device": "reference", **options}
    return Run(Options(space=space, folder=folder, **given))


def make(space, folder: Path, **options) -> Zoo:
    """The zoo of such a run."""
    assert run_of(space, folder, **options).execute()
    return Zoo.open(folder)


@pytest.fixture(scope="module")
def folder(tiny_space, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a zoo that no test changes."""
    return make(tiny_space(), tmp_path_factory.mktemp("trained") / "zoo").folder


@pytest.fixture
def zoo(folder: Path) -> Zoo:
    """That zoo, opened for one test, which may change what it holds in memory."""
    return Zoo.open(folder)
