"""Who is trained on and who is tested: always by member."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..zoo import Condition, Items
from ..zoo.conditions import as_text

TEST_FRACTION = 0.3
# Of a column's values, when it is held out without naming any.
HELD_OUT_FRACTION = 0.2

Mask = NDArray[np.bool_]


def split(items: Items, *, holdout: Condition | None, seed: int) -> tuple[Mask, Mask]:
    """Share members out over training and test.

    Args:
        items: N of them.
        holdout: None: at random. With values: members that have them are the test; without: those that have one of
            a fifth of the column's values, drawn at random (architectures never seen, for instance).
        seed: of the draw.

    Returns:
        Which items are trained on and which are tested, [N] each. Together they are all.

    Raises:
        UsageError: one of both has no members, or a member would be in both.
    """
    if holdout is None:
        train, test = items.partition((1 - TEST_FRACTION, TEST_FRACTION), seed)
        return train, test
    test = holdout.holds(items) if holdout.values else _some_values(items, holdout.column, seed)
    if test.all() or not test.any():
        raise UsageError(
            f"--holdout {holdout} leaves {'nothing to train on' if test.all() else 'nothing to test'}"
        )
    if np.isin(items.members[test], items.members[~test]).any():
        raise UsageError(
            f"--holdout {holdout} would share out snapshots of the same networks: networks are held out whole; "
            "to test on other times than were trained on use --test-snapshots"
        )
    return ~test, test


def _some_values(items: Items, column: str, seed: int) -> Mask:
    found = as_text(items, column)
    values = np.unique(found)
    rng = np.random.default_rng(seed)
    return np.isin(found, rng.permutation(values)[: max(1, round(HELD_OUT_FRACTION * len(values)))])
