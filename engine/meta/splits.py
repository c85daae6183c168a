"""Who is trained on and who is tested: always by member."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..zoo import Items

TEST_FRACTION = 0.3
# Of a column's values, when it is held out without naming any.
HELD_OUT_FRACTION = 0.2

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """``dataset=fashion-mnist``, ``optimizer=adam,sgd``, or, where that makes sense, ``architecture`` alone.

    Attributes:
        column: see ``Items.column``.
        values: as text; empty where none is named.
    """

    column: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``COLUMN=VALUE,VALUE`` or ``COLUMN``.

        Raises:
            UsageError: a part is empty.
        """
        column, equals, values = text.partition("=")
        listed = tuple(value.strip() for value in values.split(",")) if equals else ()
        if not column.strip() or "" in listed:
            raise UsageError(f"{text!r} is no condition: write COLUMN=VALUE, such as dataset=mnist")
        return cls(column=column.strip(), values=listed)

    def holds(self, items: Items) -> Mask:
        """For which items it holds [N].

        Raises:
            UsageError: there is no such column, or no item with such a value.
        """
        found = as_text(items, self.column)
        missing = sorted(set(self.values) - set(found))
        if missing:
            known = sorted(set(found))
            shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise UsageError(f"no member has {self.column}={missing[0]}: there are {shown}")
        return np.isin(found, self.values)

    def __str__(self) -> str:
        return f"{self.column}={','.join(self.values)}" if self.values else self.column


def as_text(items: Items, column: str) -> NDArray[np.str_]:
    """A column as text [N]: truth values are on and off, what is not set is a dash."""
    names = {True: "on", False: "off", None: "-"}
    raw = items.column(column).to_pylist()
    return np.array([names[value] if value is None or isinstance(value, bool) else str(value) for value in raw])


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
