"""What a member must have to be among the chosen: ``--where`` and ``--holdout`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .items import Items

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


def only_where(items: Items, conditions: Sequence[Condition]) -> Items:
    """The items for which all conditions hold; never none, as a value that no member has is an error.

    Raises:
        UsageError: a condition names no value, or as ``Condition.holds``.
    """
    for condition in conditions:
        if not condition.values:
            raise UsageError(f"--where {condition} names no value: write COLUMN=VALUE, such as status=ok")
        items = items.only(condition.holds(items))
    return items
