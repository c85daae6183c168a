"""Learning curves as numbers: each member's accuracies over its epochs, and the quantiles of many members."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..zoo import Zoo
from ..zoo.tables import numbers

Floats = npt.NDArray[np.float64]
Curve = tuple[npt.NDArray[np.int64], Floats]


def curves_by_dataset(zoo: Zoo) -> dict[str, list[Curve]]:
    """Image set -> (epochs, test accuracies) of each of its members, in the order of their ids."""
    table = zoo.snapshots  # sorted by member, then by time
    members, starts = np.unique(numbers(table["member"]), return_index=True)
    epochs = np.split(numbers(table["epoch"]), starts[1:])
    accuracies = np.split(numbers(table["test_accuracy"]), starts[1:])
    datasets = dict(zip(zoo.ids.tolist(), zoo.members["config.dataset"].to_pylist(), strict=True))
    curves: dict[str, list[Curve]] = {
        name: [] for name in sorted({datasets[member] for member in members.tolist()})
    }
    for member, *curve in zip(members.tolist(), epochs, accuracies, strict=True):
        curves[datasets[member]].append((curve[0], curve[1]))
    return curves


def quantile_curves(curves: Sequence[Curve], quantiles: Sequence[float]) -> tuple[npt.NDArray[np.int64], Floats]:
    """Quantiles over members at the epochs with a snapshot that at least half of the members have reached.

    Members are interpolated linearly between their snapshots, and are left out after their last one.

    Returns:
        Epochs [E], and the quantiles there, [quantiles, E].
    """
    reached = np.median([epochs[-1] for epochs, _ in curves])
    epochs = np.unique(np.concatenate([epochs for epochs, _ in curves]))
    at = epochs[epochs <= reached]
    values = np.array([np.interp(at, *curve, right=np.nan) for curve in curves])
    return at, np.nanquantile(values, quantiles, axis=0)
