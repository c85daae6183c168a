"""What a meta-classifier is asked: a property of the set-up, or an outcome of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import UsageError
from ..zoo import Items, Zoo
from ..zoo.tables import CONFIG

Kind = Literal["classification", "regression"]
KINDS: tuple[Kind, ...] = ("classification", "regression")

# Outcomes that are asked for where no target is named.
OUTCOMES = ("epoch", "test_accuracy", "generalization_gap")
# Null says that a property does not apply to a member; but of this one it is a value, as spaces name it.
_NULLS = {"images_per_epoch": "all"}
# An imported zoo has no space to look at: a number of the set-up with at most so many values counts as listed.
_MOST_LISTED = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A question and the answer for each item.

    Attributes:
        name: of the column, without ``config.``.
        kind: classification or regression.
        classes: names of the classes, in the order of their codes; empty in a regression.
        values: [N]: class codes int64, or numbers float64; their logarithms if ``log``.
        present: [N] bool, where the column is set, and a number finite; elsewhere ``values`` means nothing.
        log: whether numbers stand as natural logarithms.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    values: NDArray[Any]
    present: NDArray[np.bool_]
    log: bool = False

    def only(self, chosen: NDArray[Any]) -> Target:
        """The same question for some of the items: a mask [N] bool, or indices."""
        return replace(self, values=self.values[chosen], present=self.present[chosen])

    def joined(self, parts: Sequence[Target]) -> Target:
        """The same question for several sets of items, one after the other."""
        values, present = ([getattr(part, name) for part in parts] for name in ("values", "present"))
        return replace(self, values=np.concatenate(values), present=np.concatenate(present))


def target_of(items: Items, name: str, *, kind: Kind | None = None, log: bool = False) -> Target:
    """A column as a target.

    Args:
        items: to ask about.
        name: of a column: see ``Items.column``.
        kind: None: classification for names, truth values and numbers that the space lists one by one (such as
            batch sizes), regression for numbers drawn from a distribution and for outcomes.
        log: predict the logarithm of a number.

    Raises:
        UsageError: there is no such column, it cannot be of that kind, or a logarithm does not exist.
    """
    column = items.column(name)
    name = name.removeprefix(CONFIG)
    numeric = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    kind = kind or ("classification" if not numeric or _is_listed(items.zoo, name) else "regression")
    if kind == "regression" and not numeric:
        raise UsageError(f"{name} is no number: it can be classified only")
    raw = column.to_pylist()
    present = np.array([value is not None and value == value for value in raw])
    if kind == "classification":
        if name in _NULLS and not items.zoo.manifest.imported:
            raw, present = [_NULLS[name] if value is None else value for value in raw], np.ones(len(raw), bool)
        if log:
            raise UsageError(f"{name} is classified: a logarithm (--log) is for regressions")
        return _classes(name, raw, present)
    values = np.array([np.nan if value is None else value for value in raw], np.float64)
    present = np.isfinite(values)  # a loss may be infinite
    if log:
        if values[present].min(initial=1) <= 0:
            raise UsageError(f"{name} is not always positive: it has no logarithm, leave --log out")
        values[present] = np.log(values[present])
    return Target(name=name, kind="regression", classes=(), values=values, present=present, log=log)


def _is_listed(zoo: Zoo, name: str) -> bool:
    """Whether the space lists the values of a property; in a merged zoo each may give one, or list some."""
    if zoo.manifest.imported:
        return name in zoo.manifest.config_types and _distinct(zoo.members[CONFIG + name]) <= _MOST_LISTED
    given = [run.space.get(name) for run in zoo.manifest.runs]
    given = [value["choice"] if isinstance(value, dict) and "choice" in value else value for value in given]
    if any(isinstance(value, dict) for value in given):
        return False
    return any(isinstance(value, list) or value != given[0] for value in given)


def _classes(name: str, raw: list[Any], present: NDArray[np.bool_]) -> Target:
    distinct = {value for value, there in zip(raw, present, strict=True) if there}
    known = sorted(distinct, key=lambda value: (isinstance(value, str), value))  # numbers, then "all"
    code = {value: index for index, value in enumerate(known)}
    values = np.array([code.get(value, 0) for value in raw], np.int64)
    names = tuple(_text(value) for value in known)
    return Target(name=name, kind="classification", classes=names, values=values, present=present)


def _text(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def shuffled(target: Target, members: NDArray[np.int64], seed: int) -> Target:
    """Each member with the answers of another one, drawn at random: nothing is left to be read.

    Each of its items gets that of any snapshot: epochs and accuracies go up alike in all members, so that answers
    at the same place could be told from the time.

    Args:
        target: of all items [N].
        members: the id of each item's member [N], ascending.
        seed: of the draw.
    """
    ids, first, counts = np.unique(members, return_index=True, return_counts=True)
    rng = np.random.default_rng(seed)
    other = rng.permutation(len(ids))[np.searchsorted(ids, members)]
    return target.only(first[other] + rng.integers(counts[other]))


def open_questions(zoo: Zoo) -> tuple[str, ...]:
    """Every property that varies in a zoo, and the outcomes, in the order of the members table."""
    members = zoo.members
    varying = [
        name.removeprefix(CONFIG)
        for name in members.column_names
        if name.startswith(CONFIG) and _distinct(members[name], nulls=name.removeprefix(CONFIG) in _NULLS) > 1
    ]
    return (*varying, *OUTCOMES)


def _distinct(column: pa.ChunkedArray, *, nulls: bool = False) -> int:
    return len(set(column.to_pylist()) - (set() if nulls else {None}))


def kinds_of(choices: Mapping[str, str]) -> dict[str, Kind]:
    """Check what a user says of targets: name -> kind.

    Raises:
        UsageError: a kind is unknown.
    """
    for name, kind in choices.items():
        if kind not in KINDS:
            raise UsageError(f"{name}={kind}: a target's kind is {' or '.join(KINDS)}")
    return {name: kind for name, kind in choices.items() if kind in KINDS}
