"""Statistics of weights: a small table of numbers that says much of how a network was trained.

For each tensor of a part: mean, variance, skewness, excess kurtosis, percentiles, norms; for weights also the
spectral norm, the stable rank and the share of dead units. After Unterthiner et al., "Predicting neural network
accuracy from weights" (2020), and the baseline of Eilertsen et al., "Classifying the classifier" (2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..nets import Layout, TensorSpec
from ..zoo import Items

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

PERCENTILES = (0, 1, 25, 50, 75, 99, 100)
MOMENTS = ("mean", "variance", "skewness", "kurtosis")
OF_VALUES = (*MOMENTS, *(f"p{percentile}" for percentile in PERCENTILES), "mean_abs", "norm")
QUARTILES = (25, 50, 75)
OF_MATRICES = (
    "spectral_norm",
    "stable_rank",
    "dead_units",
    *(f"singular_p{percentile}" for percentile in QUARTILES),
    *(f"unit_norm_p{percentile}" for percentile in (0, 25, 75, 100)),
    "unit_cosine",
)
# A unit is dead when the norm of its incoming weights is below this share of its layer's median unit.
DEAD_SHARE = 0.01
# So many values are worked on at a time: they stay in the caches.
_BLOCK_VALUES = 2**19


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """A table of statistics.

    Attributes:
        names: of the columns, ``conv1.weight.mean`` for instance.
        values: [N, columns] float64; NaN where a network has no such tensor.
    """

    names: tuple[str, ...]
    values: Float64

    def within(self, layer: str) -> Float64:
        """The columns [N, c] of one layer."""
        return self.values[:, [name.startswith(layer + ".") for name in self.names]]


def part_statistics(
    items: Items, part: str = "all", *, statistics: bool = False, matrices: bool = True
) -> Statistics:
    """Statistics of every tensor of a part, each by itself.

    Args:
        items: whose weights, of any architectures; N of them.
        part: see ``Layout.part``.
        statistics: whether moving averages of batch normalisation are among the tensors.
        matrices: whether there are statistics of weights as matrices, which take longest.

    Raises:
        UsageError: an architecture has no such part, or nothing of it is left without moving averages.
        WseError: a shard is missing or damaged.
    """
    tensors = {name: _tensors(items.zoo.layout(name), part, statistics=statistics) for name in items.architectures}
    named = {spec.name: _names(spec, matrices) for specs in tensors.values() for spec in specs}
    names = tuple(name for names in named.values() for name in names)
    place = {name: index for index, name in enumerate(names)}
    values = np.full((len(items), len(names)), np.nan)
    for code, architecture in enumerate(items.architectures):
        specs = tensors[architecture]
        columns = np.array([place[name] for spec in specs for name in named[spec.name]])
        for rows in _blocks(np.flatnonzero(items.architecture == code), specs[-1].stop - specs[0].offset):
            weights = np.stack([items.weights(row, specs[0].offset, specs[-1].stop) for row in rows.tolist()])
            found = [_of_tensor(weights, spec, specs[0].offset, matrices) for spec in specs]
            values[np.ix_(rows, columns)] = np.concatenate(found, axis=1)
    return Statistics(names=names, values=values)


def value_statistics(values: Float32) -> Float64:
    """Statistics of rows of values, ``OF_VALUES``: [n, values] float32 -> [n, 13] float64."""
    exact = values.astype(np.float64)
    count = exact.shape[1]
    mean = exact.mean(axis=1)
    centred = exact - mean[:, None]
    squared = centred * centred
    variance = squared.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.where(variance > 0, (squared * centred).mean(axis=1) / variance**1.5, 0.0)
        kurtosis = np.where(variance > 0, (squared * squared).mean(axis=1) / variance**2 - 3, 0.0)
    ordered = np.sort(values, axis=1)
    at = np.round(np.array(PERCENTILES) / 100 * (count - 1)).astype(int)
    norms = np.abs(exact).mean(axis=1), np.sqrt((exact * exact).sum(axis=1))
    return np.column_stack([mean, variance, skewness, kurtosis, ordered[:, at], *norms])


def matrix_statistics(matrices: Float32) -> Float64:
    """Statistics of weight matrices, ``OF_MATRICES``: [n, out, in] float32 -> [n, 11] float64.

    The stable rank is the squared Frobenius norm over the squared spectral norm (Rudelson and Vershynin, 2007).
    Quartiles of the singular values are fractions of the largest; quantiles of the norms of units (rows) are
    fractions of their median; the cosine is the mean magnitude of that between two different units. What has no
    measure, as the rank of a matrix of zeros, is 0.
    """
    exact = matrices.astype(np.float64)
    out, inputs = exact.shape[1:]
    gram = exact @ exact.transpose(0, 2, 1) if out <= inputs else exact.transpose(0, 2, 1) @ exact
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    spectral = singular[:, -1]
    units = np.sqrt((exact * exact).sum(axis=2))
    median = np.median(units, axis=1)
    dead = (units < DEAD_SHARE * median[:, None]) | (units == 0)
    of_units = np.quantile(units, (0, 0.25, 0.75, 1), axis=1)
    return np.column_stack(
        [
            spectral,
            _over((units * units).sum(axis=1), spectral**2),
            dead.mean(axis=1),
            *_over(np.percentile(singular, QUARTILES, axis=1), spectral),
            *_over(of_units, median),
            _mean_cosine(exact, units),
        ]
    )


def _over(numbers: Float64, divisors: Float64) -> Float64:
    """A quotient; 0 where there is nothing to divide by."""
    divisors = np.broadcast_to(divisors, numbers.shape)
    return np.divide(numbers, divisors, out=np.zeros_like(numbers), where=divisors > 0)


def _mean_cosine(matrices: Float64, norms: Float64) -> Float64:
    """The mean magnitude of the cosine between two different rows: [n, out, in] -> [n]."""
    directions = _over(matrices, norms[:, :, None])
    cosines = np.abs(directions @ directions.transpose(0, 2, 1))
    rows = cosines.shape[1]
    if rows == 1:
        return np.zeros(len(cosines))
    off: Float64 = (cosines.sum(axis=(1, 2)) - np.trace(cosines, axis1=1, axis2=2)) / (rows * (rows - 1))
    return off


def _tensors(layout: Layout, part: str, *, statistics: bool) -> list[TensorSpec]:
    start, stop = layout.part(part)
    inside = [spec for spec in layout.tensors.values() if start <= spec.offset and spec.stop <= stop]
    kept = [spec for spec in inside if statistics or not spec.is_statistic]
    if not kept:
        raise UsageError(f"part {part} holds moving averages only: name another, or add --statistics")
    return kept


def _names(spec: TensorSpec, matrices: bool) -> list[str]:
    kinds = OF_VALUES + (OF_MATRICES if matrices and spec.kind == "weight" else ())
    return [f"{spec.name}.{kind}" for kind in kinds]


def _of_tensor(weights: Float32, spec: TensorSpec, first: int, matrices: bool) -> Float64:
    """[n, values of a part that starts at ``first``] -> [n, statistics of one tensor]."""
    values = weights[:, spec.offset - first : spec.stop - first]
    found = value_statistics(values)
    if spec.kind != "weight" or not matrices:
        return found
    return np.hstack([found, matrix_statistics(values.reshape(len(values), spec.shape[0], -1))])


def _blocks(rows: NDArray[np.int64], values: int) -> Iterator[NDArray[np.int64]]:
    step = max(1, _BLOCK_VALUES // values)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
