"""How good predictions are, with intervals: members are what is drawn anew, never snapshots or slices.

Two snapshots of a network are no two independent observations, so the bootstrap (Efron, 1979) draws members with
replacement, and each brings all its items. Every metric but Kendall's tau is a function of sums over items, which
are summed for each member once; a bootstrap sample is then a product with the numbers of times members are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .results import Interval
from .targets import Target

Float64 = NDArray[np.float64]
# Sums over items [..., sums] -> the metric [...].
OfSums = Callable[[Float64], Float64]
# A metric's value, and those of bootstrap samples [SAMPLES] -> what is told of it.
Around = Callable[[float, Float64], Interval]

SAMPLES = 1000
# Ranks have no sums: every sample is ranked anew, so there are fewer.
RANK_SAMPLES = 200
CALIBRATION_BINS = 10
# Metrics that chance only ever adds to: the fewer members, the more.
BIASED = ("calibration_error",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """What a model says of test items.

    Attributes:
        target: the question and the right answers, for these items [N].
        members: the id of each item's member [N].
        values: predicted class codes or numbers [N].
        probabilities: of the classes [N, classes]; None in a regression, or of a model that has none.
        single: where ``values`` are of the mean over several slices, the share of them [N] that alone give the
            right class, or the mean absolute error of single ones.
        fits: which fit of the model said it [N]; None: all the same.
    """

    target: Target
    members: NDArray[np.int64]
    values: NDArray[Any]
    probabilities: Float64 | None = None
    single: Float64 | None = None
    fits: NDArray[np.int64] | None = None

    def only(self, chosen: NDArray[Any]) -> Predictions:
        """Those of some of the items: a mask [N] bool, or indices."""
        return Predictions(
            target=self.target.only(chosen),
            members=self.members[chosen],
            values=self.values[chosen],
            probabilities=None if self.probabilities is None else self.probabilities[chosen],
            single=None if self.single is None else self.single[chosen],
            fits=None if self.fits is None else self.fits[chosen],
        )


def judge(predictions: Predictions, *, ranks: bool = True, seed: int = 0) -> dict[str, Interval]:
    """All metrics of predictions, each with a 95 % interval.

    Of a classification: accuracy; balanced accuracy (mean recall over the classes that occur); with
    probabilities also the log loss in nats and the expected calibration error over ten bins (Guo et al., 2017),
    less what chance adds to it. Of a regression: R2 against the mean of these items; the mean absolute error;
    with ``ranks`` Kendall's tau_b among items of the same fit, and its ceiling: what a ranking without ties
    reaches at best where the truth has ties. Where predictions are means over several slices also
    ``accuracy_one_slice`` or ``mae_one_slice``, what a single one gives. A metric that is not defined for these
    items (R2 of equal numbers) is left out.
    """
    _, owner = np.unique(predictions.members, return_inverse=True)
    draws = _draws(int(owner.max()) + 1, seed)
    if predictions.target.kind == "classification":
        metrics = _classification(predictions, owner)
    else:
        metrics = _regression(predictions, owner)
    judged = {
        name: _interval(sums, of_sums, draws, _less_bias if name in BIASED else _around)
        for name, (sums, of_sums) in metrics.items()
    }
    if ranks and predictions.target.kind == "regression":
        judged |= _rank_correlation(predictions, owner, draws[:RANK_SAMPLES])
    return {name: interval for name, interval in judged.items() if np.isfinite(interval.value)}


def confusion(predictions: Predictions) -> NDArray[np.int64]:
    """Items by true class (rows) and predicted class (columns)."""
    classes = len(predictions.target.classes)
    pairs = predictions.target.values.astype(np.int64) * classes + predictions.values.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@lru_cache(maxsize=4)
def _draws(members: int, seed: int) -> Float64:
    """How often each member is in each bootstrap sample, [SAMPLES, members]; groups are often of one size."""
    rng = np.random.default_rng(seed)
    draws: Float64 = rng.multinomial(members, np.full(members, 1 / members), size=SAMPLES).astype(np.float64)
    draws.flags.writeable = False
    return draws


def _interval(sums: Float64, of_sums: OfSums, draws: Float64, around: Around) -> Interval:
    """A metric of sums for each member [members, sums]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(of_sums(sums.sum(axis=0)))
        samples = of_sums(draws @ sums)
    return around(value, samples)


def _around(value: float, samples: Float64) -> Interval:
    finite = samples[np.isfinite(samples)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (value, value)
    return Interval(value=value, low=float(low), high=float(high))


def _less_bias(value: float, samples: Float64) -> Interval:
    """A magnitude without what noise adds: as much as it adds in bootstrap samples, on top of the noise there is.

    Samples are then as far above the value as the value is above the truth, so the interval is turned round at the
    value, too (the basic bootstrap: Davison and Hinkley, "Bootstrap methods and their application", 1997).
    """
    least, most = np.quantile(samples, [0.025, 0.975])
    low, middle, high = (max(2 * value - float(end), 0.0) for end in (most, samples.mean(), least))
    return Interval(value=middle, low=low, high=high)


def _summed(owner: NDArray[np.int64], *columns: NDArray[Any]) -> Float64:
    """Columns [N] summed for each member: [members, columns]."""
    return np.column_stack([np.bincount(owner, column) for column in columns])


def _classification(predictions: Predictions, owner: NDArray[np.int64]) -> dict[str, tuple[Float64, OfSums]]:
    truth = predictions.target.values.astype(np.int64)
    hits = (predictions.values == truth).astype(np.float64)
    classes = len(predictions.target.classes)
    is_class = (truth[:, None] == np.arange(classes)).astype(np.float64)
    metrics: dict[str, tuple[Float64, OfSums]] = {
        "accuracy": (_summed(owner, hits, np.ones_like(hits)), _mean),
        "balanced_accuracy": (
            _summed(owner, *(is_class * hits[:, None]).T, *is_class.T),
            lambda sums: np.nanmean(sums[..., :classes] / _or_nan(sums[..., classes:]), axis=-1),
        ),
    }
    if predictions.single is not None:
        metrics["accuracy_one_slice"] = _summed(owner, predictions.single, np.ones_like(hits)), _mean
    if predictions.probabilities is not None:
        of_truth = predictions.probabilities[np.arange(len(truth)), truth]
        losses = -np.log(np.clip(of_truth, 1e-12, 1.0))
        metrics["log_loss"] = (
            _summed(owner, losses, np.ones_like(hits)),
            lambda sums: sums[..., 0] / sums[..., 1],
        )
        confidence = predictions.probabilities.max(axis=1)
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        in_bin = (bins[:, None] == np.arange(CALIBRATION_BINS)).astype(np.float64)
        metrics["calibration_error"] = (
            _summed(owner, *(in_bin * (confidence - hits)[:, None]).T, np.ones_like(hits)),
            lambda sums: np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1],
        )
    return metrics


def _or_nan(counts: Float64) -> Float64:
    return np.where(counts > 0, counts, np.nan)


def _regression(predictions: Predictions, owner: NDArray[np.int64]) -> dict[str, tuple[Float64, OfSums]]:
    truth = predictions.target.values.astype(np.float64)
    errors = predictions.values - truth
    shifted = truth - truth.mean()  # so that the sums of squares do not cancel
    ones = np.ones_like(truth)
    metrics: dict[str, tuple[Float64, OfSums]] = {
        "r2": (_summed(owner, errors**2, shifted**2, shifted, ones), _r2),
        "mae": (_summed(owner, np.abs(errors), ones), _mean),
    }
    if predictions.single is not None:
        metrics["mae_one_slice"] = _summed(owner, predictions.single, ones), _mean
    return metrics


def _mean(sums: Float64) -> Float64:
    return sums[..., 0] / sums[..., 1]


def _r2(sums: Float64) -> Float64:
    spread = sums[..., 1] - sums[..., 2] ** 2 / sums[..., 3]
    # Whatever the unit: what rounding leaves of equal numbers is no spread.
    r2: Float64 = 1 - sums[..., 0] / np.where(spread > 1e-12 * sums[..., 1], spread, np.nan)
    return r2


def _rank_correlation(predictions: Predictions, owner: NDArray[np.int64], draws: Float64) -> dict[str, Interval]:
    from scipy.stats import kendalltau

    truth, predicted = predictions.target.values, predictions.values
    fits = np.zeros(len(truth), np.int64) if predictions.fits is None else predictions.fits
    items = np.argsort(owner, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(owner))])

    def drawn(times: Float64) -> NDArray[np.int64]:
        chosen = np.repeat(np.arange(len(times)), times.astype(int))
        return np.concatenate([items[bounds[member] : bounds[member + 1]] for member in chosen])

    def taus(at: NDArray[np.int64]) -> tuple[float, float]:
        """The means over fits, by their items: what two fits say is on no common scale."""
        found = []
        for fit in np.unique(fits[at]):
            part = at[fits[at] == fit]
            tau = kendalltau(truth[part], predicted[part]).statistic if len(part) > 1 else np.nan
            if np.isfinite(tau):  # else all are equal
                found.append((len(part), tau, _ceiling(truth[part], part)))
        if not found:
            return np.nan, np.nan
        sizes, *both = np.array(found).T
        tau, ceiling = np.average(both, axis=1, weights=sizes)
        return float(tau), float(ceiling)

    samples = np.array([taus(drawn(times)) for times in draws])
    value, ceiling = taus(np.arange(len(truth)))
    return {
        "kendall_tau": _around(value, samples[:, 0]),
        "kendall_tau_ceiling": _around(ceiling, samples[:, 1]),
    }


def _ceiling(truth: NDArray[Any], items: NDArray[np.int64]) -> float:
    """tau_b of a ranking without ties that contradicts no pair: sqrt(1 - share of pairs that are tied).

    An item [n] that a bootstrap sample has twice is no tie.
    """
    every = len(items) * (len(items) - 1) / 2
    untied = every - _alike(truth)
    return float(np.sqrt(untied / (every - _alike(items)))) if untied > 0 else float("nan")


def _alike(values: NDArray[Any]) -> float:
    """Pairs of equal values."""
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())
