"""Which images a member sees."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from wse.engine.data import ImageSet
from wse.engine.space import Space
from wse.engine.train import Split

SPACE = Space.load(preset="nws-fixed", overrides={"dataset": "digits"})
COUNTS = (30, 45, 61)  # training images of three classes


def image_set(name: str = "toy") -> ImageSet:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(3, dtype=np.uint8), COUNTS))
    test_labels = np.arange(50, dtype=np.uint8) % 3
    return ImageSet(
        name=name,
        n_classes=3,
        train_images=np.zeros((len(labels), 32, 32, 3), np.uint8),
        train_labels=labels,
        test_images=np.zeros((50, 32, 32, 3), np.uint8),
        test_labels=test_labels,
        sha256="",
    )


def split(seed: int = 1, **settings: object) -> Split:
    return Split.make(image_set(), seed=seed, settings=msgspec.structs.replace(SPACE.settings, **settings))


def member(id: int = 0, seed: int = 1, **setup: object):  # noqa: A002
    drawn = SPACE.members(seed, [id])[0]
    return dataclasses.replace(drawn, setup=msgspec.structs.replace(drawn.setup, **setup))


def test_training_and_validation_divide_every_class() -> None:
    made = split()
    labels = made.images.train_labels
    everything = np.concatenate([*made.training, made.validation])
    assert sorted(everything) == list(range(len(labels)))
    for label, indices in enumerate(made.training):
        assert (labels[indices] == label).all()
        assert len(indices) == COUNTS[label] - round(0.1 * COUNTS[label])


def test_split_depends_on_the_seed_and_the_name() -> None:
    assert (split(seed=1).validation == split(seed=1).validation).all()
    assert set(split(seed=1).validation) != set(split(seed=2).validation)
    other = Split.make(image_set("other"), seed=1, settings=SPACE.settings)
    assert set(split(seed=1).validation) != set(other.validation)


def test_an_epoch_is_balanced_and_has_no_image_twice() -> None:
    made = split()
    indices = made.epoch_indices(member(), 1, limit=None)
    assert len(indices) == made.epoch_size(member(), limit=None) == 3 * 27
    assert len(set(indices)) == len(indices)
    assert set(np.bincount(made.images.train_labels[indices])) == {27}
    assert not set(indices) & set(made.validation)


def test_every_epoch_and_member_has_an_order_of_its_own() -> None:
    made = split()
    first = made.epoch_indices(member(), 1, limit=None)
    assert (first == made.epoch_indices(member(), 1, limit=None)).all()
    for other in (made.epoch_indices(member(), 2, limit=None), made.epoch_indices(member(1), 1, limit=None)):
        assert (first != other).any()
        assert set(first) != set(other)  # the larger classes are sampled anew


def test_over_many_epochs_every_training_image_is_used() -> None:
    made = split()
    used = {index for epoch in range(1, 30) for index in made.epoch_indices(member(), epoch, limit=None)}
    assert used == set(np.concatenate(made.training))


@pytest.mark.parametrize("limit", [1, 2, 7, 30, 81, 1000])
def test_a_limited_epoch_stays_balanced(limit: int) -> None:
    made = split()
    indices = made.epoch_indices(member(), 3, limit=limit)
    assert len(indices) == min(limit, 81) == len(set(indices))
    counts = np.bincount(made.images.train_labels[indices], minlength=3)
    assert counts.max() <= -(-len(indices) // 3)


def test_train_fraction_keeps_the_same_share_in_every_epoch() -> None:
    made = split()
    part = member(train_fraction=0.25)
    epochs = [set(made.epoch_indices(part, epoch, limit=None)) for epoch in range(40)]
    used = set.union(*epochs)
    shares = [round(0.25 * len(indices)) for indices in made.training]
    assert len(used) == sum(shares)
    assert all(len(epoch) == 3 * min(shares) for epoch in epochs)
    assert used != set.union(
        *(set(made.epoch_indices(member(1, train_fraction=0.25), e, limit=None)) for e in range(40))
    )


def test_evaluated_images_are_bounded() -> None:
    made = split(validation_images=5, test_images=20, training_images=12)
    settings = msgspec.structs.replace(SPACE.settings, training_images=12)
    for part, size in (("training", 12), ("validation", 5), ("test", 20)):
        images, indices = made.evaluated(member(), part, settings)
        assert len(indices) == size == made.evaluated_size(member(), part, settings)
        assert len(set(indices)) == size
        assert len(images) == len(made.labels(part)) > max(indices)
    _, training = made.evaluated(member(), "training", settings)
    assert set(training) <= set(np.concatenate(made.training))


def test_grey_images_are_known_by_their_channels() -> None:
    made = split()
    images = np.random.default_rng(0).integers(0, 256, (9000, 32, 32, 1), dtype=np.uint8)
    grey = np.repeat(images, 3, axis=-1)
    coloured = grey.copy()
    coloured[-1, -1, -1, 2] ^= 1
    for train, test in ((grey, coloured), (coloured, grey)):
        changed = dataclasses.replace(made.images, train_images=train, test_images=test)
        planes = dataclasses.replace(made, images=changed).planes
        assert list(planes) == ["training" if train is grey else "test"]
        for plane in planes.values():
            np.testing.assert_array_equal(plane, images)
