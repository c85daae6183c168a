"""Triton's kernels run in its interpreter where there is no GPU, and compiled on the GPU where there is one."""

from __future__ import annotations

import os

import pytest
import torch

# Before anything imports triton: it looks once. The interpreter's matrix product of bfloat16 is silently wrong, so
# what runs there is float32.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def device() -> str:
    """Where the kernels run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
