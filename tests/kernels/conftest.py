"""What tests of kernels share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

PACKS = (1, 7, 64, 1024)
"""Members of a pack of a real size."""


ROUNDED = 2**-8
"""What rounding to the 8 digits of bfloat16 may change a value by, of itself: half of the last."""


def off(made: Tensor, expected: Tensor) -> float:
    """The largest error, in the largest value."""
    return ((made.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """What values are stored in."""
    made: torch.dtype = request.param
    return made


@pytest.fixture(params=PACKS)
def ragged(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """Row offsets of packs of a real size: the first member has many images, others few or none."""
    counts = [64] + [7 * member % 5 for member in range(1, request.param)]
    return tuple(sum(counts[:member]) for member in range(request.param + 1))
