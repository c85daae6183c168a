"""What tests of kernels share."""

from __future__ import annotations

import pytest

PACKS = (1, 7, 64, 1024)
"""Members of a pack of a real size."""


@pytest.fixture(params=PACKS)
def ragged(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """Row offsets of packs of a real size: the first member has many images, others few or none."""
    counts = [64] + [7 * member % 5 for member in range(1, request.param)]
    return tuple(sum(counts[:member]) for member in range(request.param + 1))
