"""What every test shares: a cache of image sets, and small spaces on the digits, which need no download."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from wse.engine.data.search import cache_folder
from wse.engine.space import Space
from wse.engine.train import Context, Split

# Without a GPU, Triton's kernels run in its interpreter, and what imports triton first settles that.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    if os.environ["TRITON_INTERPRET"] == "1" and find_spec("triton"):
        from .interpreter import make_strict

        make_strict()

# What a shell starts in the background ignores Ctrl-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, and no clock: machines are shared.
settings.register_profile("wse", deadline=None, derandomize=True)
settings.load_profile("wse")

TINY = {
    "dataset": "digits",
    "filter_size": 3,
    "width_conv": 2,
    "width_fc": 8,
    "batch_size": [16, 32],
    "augmentation": [False, True],
    "epochs": 2,
    "images_per_epoch": 64,
    "training_images": 40,
    "validation_images": 40,
    "test_images": 50,
    "snapshots": 3,
}


@pytest.hookimpl(tryfirst=True)  # before `-m gpu` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of kernels are GPU tests where there is a GPU.

    Warnings are no errors in them: a machine with a GPU comes with versions of PyTorch and Triton of its own, and
    what these say of each other says nothing of the kernels.
    """
    for item in items:
        if "device" in getattr(item, "fixturenames", ()) and torch.cuda.is_available():
            item.add_marker("gpu")
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture
def device() -> str:
    """Where Triton's kernels run: on the GPU, compiled, or in the interpreter."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("WSE_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    # Compiled kernels are kept from session to session: their names change with their sources.
    compiled = cache_folder() / "compiled"
    compiled.mkdir(parents=True, exist_ok=True)
    (folder / "compiled").symlink_to(compiled)
    os.environ["WSE_CACHE"] = str(folder)
    torch.set_num_threads(1)
    yield
    if before is None:
        del os.environ["WSE_CACHE"]
    else:
        os.environ["WSE_CACHE"] = before


@pytest.fixture(scope="session")
def tiny_space() -> Callable[..., Space]:
    """Makes a space of small networks and short trainings; keywords override its keys."""

    def make(preset: str = "nws-main", **overrides: Any) -> Space:
        keys = dict(TINY)
        if preset == "small-cnn":
            keys.pop("width_fc")
        return Space.load(preset=preset, overrides={**keys, **overrides})

    return make


@pytest.fixture(scope="session")
def context_of() -> Callable[..., Context]:
    """Makes the context of a run over a space."""
    from wse.engine.data import load

    def make(space: Space, seed: int = 0) -> Context:
        splits = {
            name: Split.make(load(name), seed=seed, settings=space.settings) for name in space.choices("dataset")
        }
        return Context(settings=space.settings, splits=splits, should_stop=lambda: False)

    return make


@pytest.fixture
def real_sets() -> list[str]:
    """The real image sets; skips where they are not."""
    folder = os.environ.get("WSE_DATA")
    if not folder or not all((Path(folder) / name).is_dir() for name in ("mnist", "fashion-mnist")):
        pytest.skip("needs mnist and fashion-mnist in WSE_DATA")
    return ["mnist", "fashion-mnist"]
