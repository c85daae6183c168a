"""The compiled order of an epoch is the reference's, number by number."""

from __future__ import annotations

import numpy as np
import pytest

from wse.engine.train.cpu_shuffle import epoch_indices

from .test_split import member, split


@pytest.mark.parametrize("limit", [None, 1, 2, 7, 40])
@pytest.mark.parametrize("share", [1.0, 0.4, 0.01])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_indices_are_the_references(limit, share, epoch) -> None:
    made, drawn = split(), member(id=3, seed=2**63 + 1, train_fraction=share)
    expected = made.epoch_indices(drawn, epoch, limit=limit)
    np.testing.assert_array_equal(epoch_indices(made, drawn, epoch, limit=limit), expected)
