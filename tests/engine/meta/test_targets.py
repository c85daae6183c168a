from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from wse.engine.errors import UsageError
from wse.engine.meta.targets import kinds_of, open_questions, shuffled, target_of

from .conftest import OPTIMIZERS, set_up


def test_kinds_follow_from_the_space(make_zoo) -> None:
    items = make_zoo(models=12).items()
    optimizer = target_of(items, "optimizer")
    assert (optimizer.kind, optimizer.classes) == ("classification", OPTIMIZERS)
    assert optimizer.values.tolist() == [set_up(member)[0] for member in range(12)]
    assert target_of(items, "augmentation").classes == ("off", "on")
    rate = target_of(items, "config.learning_rate")
    assert (rate.name, rate.kind) == ("learning_rate", "regression")
    assert target_of(items, "test_accuracy").kind == "regression"


def test_kinds_can_be_chosen(make_zoo) -> None:
    items = make_zoo(models=12).items(snapshots="all")
    epoch = target_of(items, "epoch", kind="classification")
    assert epoch.classes == ("0", "2", "4")
    assert epoch.values.tolist() == [0, 1, 2] * 12
    with pytest.raises(UsageError, match="optimizer is no number"):
        target_of(items, "optimizer", kind="regression")
    assert kinds_of({"epoch": "classification"}) == {"epoch": "classification"}
    with pytest.raises(UsageError, match="epoch=classes: a target's kind is"):
        kinds_of({"epoch": "classes"})


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ([[1, 2], [1, 2]], "classification"),
        ([1, 2], "classification"),
        ([1, [1, 2]], "classification"),
        ([1, 1], "regression"),
        ([{"choice": [1, 2], "weights": [1, 3]}], "classification"),
        ([1, {"choice": [1, 2], "weights": [1, 3]}], "classification"),
        ([[1, 2], {"uniform": [1, 2]}], "regression"),
        ([None, None], "regression"),
    ],
    ids=str,
)
def test_kinds_in_a_merged_zoo(given: list, kind: str, make_zoo) -> None:
    items = make_zoo(models=12).items()
    runs = [SimpleNamespace(space={"learning_rate": one}) for one in given]
    items.column("learning_rate")  # reads the tables
    items.zoo.manifest = SimpleNamespace(runs=runs, imported=None)
    assert target_of(items, "learning_rate").kind == kind


def test_logarithms(make_zoo) -> None:
    items = make_zoo(models=12).items(snapshots="all")
    rate = target_of(items, "learning_rate", log=True)
    np.testing.assert_allclose(np.exp(rate.values[::3]), [set_up(member)[1] for member in range(12)])
    with pytest.raises(UsageError, match="epoch is not always positive"):
        target_of(items, "epoch", log=True)
    with pytest.raises(UsageError, match="optimizer is classified"):
        target_of(items, "optimizer", log=True)


def test_what_is_not_set_is_not_present(make_zoo) -> None:
    target = target_of(make_zoo(models=6).items(), "init_std")
    assert target.present.tolist() == [False, True] * 3
    assert target.only(target.present).values.tolist() == [0.5] * 3


def test_all_images_are_an_answer() -> None:
    """Spaces may list "all" among the numbers of images of an epoch, and tables have null for it."""
    images = pa.chunked_array([[200, None, 1000, None]])
    manifest = SimpleNamespace(
        imported=None, runs=[SimpleNamespace(space={"images_per_epoch": [200, 1000, None]})]
    )
    items = SimpleNamespace(column=lambda name: images, zoo=SimpleNamespace(manifest=manifest))
    target = target_of(items, "images_per_epoch")
    assert (target.classes, target.values.tolist(), target.present.all()) == (
        ("200", "1000", "all"),
        [0, 2, 1, 2],
        True,
    )
    members = pa.table({"config.images_per_epoch": images[:2], "config.init_std": images[:2]})
    assert "images_per_epoch" in open_questions(SimpleNamespace(members=members))
    assert "init_std" not in open_questions(SimpleNamespace(members=members))


def test_infinite_numbers_are_not_asked_for() -> None:
    losses = pa.chunked_array([[2.0, np.inf, None, np.nan, 1.0]])
    target = target_of(SimpleNamespace(column=lambda name: losses), "test_loss", kind="regression", log=True)
    assert target.present.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(target.values[target.present], [np.log(2), 0])


def test_open_questions_vary(make_zoo) -> None:
    found = open_questions(make_zoo(models=12))
    assert set(found) == {
        "augmentation",
        "learning_rate",
        "optimizer",
        "epoch",
        "test_accuracy",
        "generalization_gap",
    }


def test_shuffled_answers_are_other_members(make_zoo) -> None:
    items = make_zoo(models=60).items(snapshots="all")
    target = target_of(items, "learning_rate")
    other = shuffled(target, items.members, seed=1)
    by_member = other.values.reshape(60, 3)
    assert (by_member == by_member[:, :1]).all()  # still one answer a member
    assert sorted(other.values) == sorted(target.values)
    assert abs(np.corrcoef(other.values, target.values)[0, 1]) < 0.3


def test_shuffled_answers_do_not_tell_the_time(make_zoo) -> None:
    items = make_zoo(models=60, counts=(3, 2)).items(snapshots="all")
    epochs = shuffled(target_of(items, "epoch"), items.members, seed=1).values
    assert set(epochs) == {0, 2, 4}
    assert abs(np.corrcoef(epochs, items.snapshots)[0, 1]) < 0.3
