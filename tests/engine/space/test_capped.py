"""A property that is nowhere more than a cap."""

from __future__ import annotations

import pytest

from wse.engine.space import Space
from wse.engine.space.distribution import Choice, Fixed, Uniform


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (30, Fixed(20)),
        (10, Fixed(10)),
        ([10, 20, 30, 40], Choice((10, 20), (1.0, 3.0))),
        ([30, 10], Choice((20, 10))),
        ([30, 40], Fixed(20)),
        ({"choice": [40, 10, 30], "weights": [1, 2, 5]}, Choice((20, 10), (6.0, 2.0))),
        ({"uniform": [5, 30]}, Uniform(5, 20)),
        ({"uniform": [5, 15]}, Uniform(5, 15)),
        ({"uniform": [20, 30]}, Fixed(20)),
    ],
    ids=str,
)
def test_values_above_become_the_cap(epochs: object, expected: object) -> None:
    space = Space.load(preset="small-cnn", overrides={"epochs": epochs})
    assert space.capped("epochs", 20).properties["epochs"] == expected
    others = {name: value for name, value in space.to_config().items() if name != "epochs"}
    assert others.items() <= space.capped("epochs", 20).to_config().items()
    assert max(member.setup.epochs for member in space.capped("epochs", 20).members(0, range(50))) <= 20


def test_all_counts_as_endless() -> None:
    space = Space.load(preset="small-cnn", overrides={"images_per_epoch": "all"})
    assert space.capped("images_per_epoch", 500).choices("images_per_epoch") == (500,)
