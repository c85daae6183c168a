"""What is known of a member without its weights, as numbers: the input of the set-up-only baseline."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..zoo import Items
from ..zoo.tables import CONFIG

# Outcomes say so much of each other that, where one is asked for, the others are left out.
ACCURACY = "test_accuracy"


def setup_features(items: Items, target: str) -> NDArray[np.float64]:
    """All properties but the target, and the test accuracy, as numbers.

    Names and truth values become a column of zeros and ones for each value, numbers stay numbers; NaN where a
    property is not set. The test accuracy is that of the item's snapshot, and is left out where it is the target.

    Args:
        items: N of them.
        target: name of the column that is asked for.

    Returns:
        [N, features] float64; at least one feature.
    """
    names = [
        name for name in items.zoo.members.column_names if name.startswith(CONFIG) and name != CONFIG + target
    ]
    columns = [_numbers(items.column(name)) for name in names]
    if target != ACCURACY:
        columns.append(_numbers(items.column(ACCURACY)))
    features = np.concatenate(columns, axis=1)
    varies = np.array([len(np.unique(column[~np.isnan(column)])) > 1 for column in features.T])
    return features[:, varies] if varies.any() else np.zeros((len(items), 1))


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """[N, 1], or [N, values] for names and truth values."""
    raw = column.to_pylist()
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return np.array([[np.nan if value is None else value] for value in raw], np.float64)
    known = sorted({value for value in raw if value is not None})
    return np.array([[float(value == each) for each in known] for value in raw]).reshape(len(raw), len(known))
