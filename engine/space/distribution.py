"""The distributions a property can have, as they stand in a space file, and how a value is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same value: ``key = value``."""

    value: Any

    def draw(self, words: Words) -> list[Any]:
        """One value a word."""
        return [self.value] * len(words)

    def examples(self) -> tuple[Any, ...]:
        """Values that must all be possible for the distribution to be."""
        return (self.value,)

    def to_config(self) -> Any:
        """As in a space file."""
        return self.value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values: ``key = [a, b]``, or with weights ``key = { choice = [a, b], weights = [1, 3] }``."""

    values: tuple[Any, ...]
    weights: tuple[float, ...] | None = None

    def draw(self, words: Words) -> list[Any]:
        """One value a word; without weights by integer arithmetic, so exactly the same everywhere."""
        if self.weights is None:
            index = (words.astype(np.uint64) * np.uint64(len(self.values))) >> np.uint64(32)
        else:
            edges = np.cumsum(self.weights) / math.fsum(self.weights)
            index = np.searchsorted(edges[:-1], (words + 0.5) * 2.0**-32, side="right").astype(np.uint64)
        return [self.values[i] for i in index]

    def examples(self) -> tuple[Any, ...]:
        """Values that must all be possible for the distribution to be."""
        return self.values

    def to_config(self) -> Any:
        """As in a space file."""
        if self.weights is None:
            return list(self.values)
        return {"choice": list(self.values), "weights": list(self.weights)}


@dataclass(frozen=True, slots=True)
class Uniform:
    """Uniform between two bounds, linearly or in the logarithm: ``key = { uniform = [low, high] }``.

    For an integer property both bounds are included and every integer is equally likely.
    """

    low: float
    high: float
    log: bool = False

    def draw(self, words: Words) -> list[Any]:
        """One value a word."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            span = np.uint64(self.high - self.low + 1)
            return [self.low + int(i) for i in (words.astype(np.uint64) * span) >> np.uint64(32)]
        u = (words.astype(np.float64) + 0.5) * 2.0**-32
        if self.log:
            return [self.low * math.pow(self.high / self.low, x) for x in u.tolist()]
        return [self.low + (self.high - self.low) * x for x in u.tolist()]

    def examples(self) -> tuple[Any, ...]:
        """Values that must all be possible for the distribution to be."""
        return (self.low, self.high)

    def to_config(self) -> Any:
        """As in a space file."""
        return {"log_uniform" if self.log else "uniform": [self.low, self.high]}


Distribution = Fixed | Choice | Uniform


def parse(config: Any, *, integer: bool) -> Distribution:
    """The distribution a space file's value stands for.

    Args:
        config: a plain value, a list, or a table with ``choice`` (and ``weights``), ``uniform`` or
            ``log_uniform``.
        integer: the property takes integers.

    Raises:
        ValueError: it stands for none; the message says why, without naming the key.
    """
    if isinstance(config, (list, tuple)):
        return _choice(config, None)
    if not isinstance(config, dict):
        return Fixed(config)
    if set(config) <= {"choice", "weights"} and "choice" in config:
        return _choice(config["choice"], config.get("weights"))
    if set(config) == {"uniform"} or set(config) == {"log_uniform"}:
        ((name, bounds),) = config.items()
        return _uniform(bounds, log=name == "log_uniform", integer=integer)
    raise ValueError(
        f"a table must be {{choice = [...]}}, {{uniform = [low, high]}} or {{log_uniform = [low, high]}}, "
        f"not one with {', '.join(map(shown, config)) or 'nothing'}"
    )


def capped(distribution: Distribution, most: int) -> Distribution:
    """A distribution of numbers of which none is more than ``most``; None counts as endless.

    A fixed value or one of a choice that is more becomes ``most``, with the weights of all that become it; a range
    is cut off there.
    """
    match distribution:
        case Fixed(value):
            return Fixed(most if value is None else min(value, most))
        case Uniform(low, high, log):
            return Uniform(low, min(high, most), log) if low < most else Fixed(most)
        case Choice(values, weights):
            found: dict[Any, float] = {}
            for value, weight in zip(values, weights or [1.0] * len(values), strict=True):
                kept = most if value is None else min(value, most)
                found[kept] = found.get(kept, 0.0) + weight
            if len(found) == 1:
                return Fixed(next(iter(found)))
            return Choice(tuple(found), None if len(set(found.values())) == 1 else tuple(found.values()))


def _choice(values: Any, weights: Any) -> Choice | Fixed:
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError("a choice needs a list of at least one value")
    if weights is None:
        return Choice(tuple(values)) if len(values) > 1 else Fixed(values[0])
    if not isinstance(weights, (list, tuple)) or len(weights) != len(values):
        raise ValueError("`weights` must be a list with one number for every value of `choice`")
    if not all(_is_number(weight) and 0 <= weight <= 1e300 for weight in weights) or math.fsum(weights) <= 0:
        raise ValueError(f"`weights` (={shown(weights)}) must be numbers of at least 0, not all of them 0")
    return Choice(tuple(values), tuple(float(weight) for weight in weights))


def _uniform(bounds: Any, *, log: bool, integer: bool) -> Uniform:
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2 or not all(map(_is_number, bounds)):
        raise ValueError(f"bounds (={shown(bounds)}) must be two numbers [low, high]")
    low, high = bounds
    if low >= high:
        raise ValueError(f"the lower bound (={low}) must be less than the upper (={high})")
    if integer:
        if log:
            raise ValueError("takes whole numbers: use { uniform = [low, high] } or a list of values")
        if not (isinstance(low, int) and isinstance(high, int)):
            raise ValueError(f"takes whole numbers: the bounds (={bounds!r}) must be whole")
        if high - low >= 2**32:  # a draw has 32 bits
            raise ValueError(f"the bounds (={bounds!r}) must be less than 2**32 apart")
        return Uniform(low, high)
    if log and low <= 0:
        raise ValueError(f"the lower bound (={low}) of a log-uniform distribution must be positive")
    if not math.isfinite(high / low if log else high - low):
        raise ValueError(f"the bounds (={bounds!r}) are too far apart")
    return Uniform(float(low), float(high), log)


def shown(value: object) -> str:
    """A value as error messages show it: on one line, not endless."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in itself
        return "..."
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_number(value: object) -> bool:
    """Whether it is a finite number that float64 and int64 can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and in_range(value)


def in_range(value: float) -> bool:
    """Whether a number is finite and, if whole, fits into 64 bits as the tables of a zoo need it."""
    return -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)
