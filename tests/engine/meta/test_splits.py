from __future__ import annotations

import numpy as np
import pytest

from wse.engine.errors import UsageError
from wse.engine.meta.splits import split
from wse.engine.zoo import Condition
from wse.engine.zoo.conditions import as_text


def test_random_splits_are_by_member(make_zoo) -> None:
    items = make_zoo(models=50).items(snapshots="all")
    train, test = split(items, holdout=None, seed=0)
    assert (train ^ test).all()
    assert not set(items.members[train]) & set(items.members[test])
    assert len(set(items.members[test])) == 15
    assert (split(items, holdout=None, seed=1)[1] != test).any()


def test_holdout_of_a_value(make_zoo) -> None:
    items = make_zoo(models=30).items()
    train, test = split(items, holdout=Condition.parse("optimizer=adam"), seed=0)
    assert set(as_text(items, "optimizer")[test]) == {"adam"}
    assert set(as_text(items, "optimizer")[train]) == {"rmsprop", "sgd"}


def test_holdout_of_some_values(make_zoo) -> None:
    items = make_zoo(models=40, architectures=("small", "wide")).items()
    train, test = split(items, holdout=Condition.parse("architecture"), seed=0)
    assert {*as_text(items, "architecture")[test]} ^ {*as_text(items, "architecture")[train]} == {"small", "wide"}
    rates = split(items, holdout=Condition.parse("learning_rate"), seed=0)[1]
    assert 0 < np.mean(rates) < 0.5
    assert (rates != split(items, holdout=Condition.parse("learning_rate"), seed=1)[1]).any()


@pytest.mark.parametrize("text", ["epoch", "epoch=4", "test_accuracy"])
def test_snapshots_of_a_member_are_not_shared_out(text: str, make_zoo) -> None:
    zoo = make_zoo(models=12)
    with pytest.raises(UsageError, match=f"--holdout {text} would share out snapshots of the same networks"):
        split(zoo.items(snapshots="all"), holdout=Condition.parse(text), seed=0)
    train, test = split(zoo.items(), holdout=Condition.parse("test_accuracy"), seed=0)
    assert (train ^ test).all()
    assert test.any()


@pytest.mark.parametrize("text", ["", "=", "optimizer=", "optimizer=adam,,sgd", "=adam"])
def test_no_condition(text: str) -> None:
    with pytest.raises(UsageError, match="is no condition"):
        Condition.parse(text)


def test_conditions_that_cannot_be(make_zoo) -> None:
    items = make_zoo(models=12).items()
    with pytest.raises(UsageError, match="no member has optimizer=lion: there are adam, rmsprop, sgd"):
        Condition.parse("optimizer=lion").holds(items)
    with pytest.raises(UsageError, match="no target 'weather'"):
        Condition.parse("weather=fine").holds(items)
    with pytest.raises(UsageError, match="leaves nothing to train on"):
        split(items, holdout=Condition.parse("dataset=digits"), seed=0)


def test_values_as_text(make_zoo) -> None:
    items = make_zoo(models=4).items()
    assert as_text(items, "augmentation").tolist() == ["on", "on", "off", "off"]
    assert as_text(items, "init_std").tolist() == ["-", "0.5", "-", "0.5"]
