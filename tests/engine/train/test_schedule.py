"""Learning rates, snapshots and early stopping against tables worked out by hand."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from wse.engine.space import Space
from wse.engine.train.schedule import (
    EarlyStopping,
    SnapshotKeeper,
    learning_rate,
    snapshot_count,
    steps_per_epoch,
)

SPACE = Space.load(preset="nws-fixed", overrides={"dataset": "digits"})
SETUP = SPACE.members(0, [0])[0].setup


@pytest.mark.parametrize(
    ("images", "batch", "steps"), [(100, 32, 3), (96, 32, 3), (10, 32, 1), (32, 32, 1), (1, 1, 1)]
)
def test_only_full_batches_unless_there_is_none(images: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(images, batch) == steps


def test_cosine_falls_from_the_rate_to_zero() -> None:
    setup = msgspec.structs.replace(SETUP, learning_rate=0.4, learning_rate_schedule="cosine")
    rates = [learning_rate(setup, step, 4) for step in range(4)]
    half = 0.2 * (1 + 2**-0.5)
    assert rates == pytest.approx([0.4, half, 0.2, 0.4 - half])
    constant = msgspec.structs.replace(setup, learning_rate_schedule="constant")
    assert {learning_rate(constant, step, 4) for step in range(4)} == {0.4}


def weights(epoch: int) -> np.ndarray:
    return np.full(2, epoch, dtype=np.float32)


def snapshots(wanted, *, epochs: int, stops_at: int | None = None) -> list[int]:
    """The epochs chosen for a member that may train ``epochs`` epochs and ends after ``stops_at``."""
    last = epochs if stops_at is None else stops_at
    keeper = SnapshotKeeper(wanted, epochs=epochs, may_stop=stops_at is not None)
    for epoch in range(last + 1):
        keeper.keep(epoch, weights(epoch))
    chosen = keeper.choose(last, weights(last))
    assert all((kept == epoch).all() for epoch, kept in chosen.items())
    return list(chosen)


@pytest.mark.parametrize(
    ("wanted", "epochs", "expected"),
    [
        (3, 10, [0, 5, 10]),
        (20, 2, [0, 1, 2]),
        (2, 1, [0, 1]),
        (4, 9, [0, 3, 6, 9]),
        ((0, 1, 2, 3, 20, 40, 60, 80, 86), 86, [0, 1, 2, 3, 20, 40, 60, 80, 86]),
        ((0, 1, 5), 3, [0, 1, 3]),
        ((2,), 4, [2, 4]),
    ],
)
def test_snapshots_of_a_known_length(wanted, epochs: int, expected: list[int]) -> None:
    assert snapshots(wanted, epochs=epochs) == expected
    assert snapshot_count(wanted, epochs) == len(expected)


@pytest.mark.parametrize("last", [1, 7, 19, 20, 39, 40, 41, 57, 80, 163, 1000])
def test_snapshots_of_an_unknown_length(last: int) -> None:
    chosen = snapshots(20, epochs=1000, stops_at=last)
    assert chosen[0] == 0
    assert chosen[-1] == last
    assert len(chosen) == min(20, last + 1)
    ideal = np.round(np.linspace(0, last, len(chosen)))
    # Weights are held at a stride that is at most a twentieth of the training, rounded up to a power of two.
    assert np.abs(np.array(chosen) - ideal).max() <= max(1, last / 20)


def test_a_list_of_epochs_of_a_member_that_may_stop() -> None:
    assert snapshots((0, 1, 5, 20), epochs=1000, stops_at=7) == [0, 1, 5, 7]
    keeper = SnapshotKeeper((0, 5), epochs=1000, may_stop=True)
    for epoch in range(100):
        keeper.keep(epoch, weights(epoch))
    assert sorted(keeper.held) == [0, 5]


def test_memory_stays_bounded() -> None:
    keeper = SnapshotKeeper(20, epochs=1000, may_stop=True)
    for epoch in range(1001):
        keeper.keep(epoch, weights(epoch))
        assert len(keeper.held) <= 41


def stopping_epoch(accuracies, **rules) -> int | None:
    """After how many epochs the rule stops; None if it never does."""
    stopping = EarlyStopping(msgspec.structs.replace(SPACE.settings, **rules))
    return next((epoch for epoch, value in enumerate(accuracies, 1) if stopping.update(value)), None)


def test_stops_after_consecutive_falls() -> None:
    falling = [0.9 - 0.01 * epoch for epoch in range(30)]
    assert stopping_epoch(falling, min_epochs=1) == 6  # the first epoch has none before it
    assert stopping_epoch(falling) == 20  # not before 20 epochs


def test_a_tie_neither_counts_nor_resets() -> None:
    assert stopping_epoch([0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.5, 0.4], min_epochs=1) == 8
    assert stopping_epoch([0.9, 0.8, 0.7, 0.71, 0.6, 0.5, 0.4, 0.3], min_epochs=1) is None


def test_stops_when_nothing_changes() -> None:
    assert stopping_epoch([0.1] * 100) == 31


def test_stops_when_often_below_the_moving_average() -> None:
    # Falls every other epoch, so never five times in a row; every fall is below the average.
    zigzag = [0.5 - 0.001 * epoch + (0.01 if epoch % 2 else 0.0) for epoch in range(100)]
    below, average = 0, zigzag[0]
    for expected, value in enumerate(zigzag, 1):
        average = value if expected == 1 else 0.5 * average + 0.5 * value
        below += value < average
        if below == 30:
            break
    assert stopping_epoch(zigzag) == expected


def test_never_stops_while_it_improves() -> None:
    assert stopping_epoch([epoch / 1000 for epoch in range(1000)]) is None
