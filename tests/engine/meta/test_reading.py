from __future__ import annotations

import pytest

from wse.engine.errors import UsageError
from wse.engine.meta.reading import named_snapshots
from wse.engine.zoo import Condition


@pytest.mark.parametrize(
    ("text", "of_two", "of_five"),
    [
        ("last", [1], [4]),
        ("all", [0, 1], [0, 1, 2, 3, 4]),
        ("1:", [1], [1, 2, 3, 4]),
        (":2", [0, 1], [0, 1]),
        ("-1:", [1], [4]),
        ("-3:", [0, 1], [2, 3, 4]),
        (":-1", [0], [0, 1, 2, 3]),
        ("1:-1", [], [1, 2, 3]),
        ("0,3,-1,-5", [0, 1], [0, 3, 4]),
    ],
)
def test_snapshots_are_counted_for_each_member(text: str, of_two: list, of_five: list, make_zoo) -> None:
    items = make_zoo(models=8, counts=(2, 5)).items(snapshots="all")
    named = named_snapshots(text, items)
    for member in range(8):
        found = items.snapshots[named & (items.members == member)].tolist()
        assert found == (of_five if member % 2 else of_two)


def test_snapshots_of_some_items(make_zoo) -> None:
    items = make_zoo(models=8, counts=(2, 5)).items(snapshots="all")
    first = items.only(Condition.parse("epoch=0").holds(items))
    assert named_snapshots("0", first).all()
    with pytest.raises(UsageError, match="--snapshots last names none of the snapshots that"):
        named_snapshots("last", first)


@pytest.mark.parametrize("text", ["", "soon", "1:2:3", "1,,2", "all,last", "1.5"])
def test_no_snapshots(text: str, make_zoo) -> None:
    with pytest.raises(UsageError, match=r"--test-snapshots .*: write last, all, a range"):
        named_snapshots(text, make_zoo(models=2).items(), "--test-snapshots")
