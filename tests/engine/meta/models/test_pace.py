"""The pace, with a clock of the test's own."""

from __future__ import annotations

import pytest

from wse.engine.meta.models.pace import MEASURED, Pace


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("wse.engine.meta.models.pace.time", clock)
    return clock


def run(pace: Pace, clock: Clock, *, batch: list[float], validation: float) -> list[float]:
    """Train with batches that take so long, the last figure for all further ones; returns the rates."""
    rates = []
    while pace.done < pace.total and not pace.is_over:
        rates.append(pace.rate())
        clock.now += batch[min(pace.done, len(batch) - 1)]
        pace.batch_done()
        share = pace.settle(validation) if pace.done == MEASURED else 1.0
        if pace.done > MEASURED and pace.done % pace.every == 0:
            clock.now += share * validation
            pace.validated(share * validation)
    return rates


@pytest.mark.parametrize("seconds", [None, 200.0])
def test_with_enough_time_the_rate_follows_the_batches(clock: Clock, seconds: float | None) -> None:
    pace = Pace(epochs=10, batches=10, seconds=seconds, schedule="one-cycle")
    rates = run(pace, clock, batch=[5.0, 1.0], validation=1.0)
    assert not pace.bound
    assert pace.every == 10
    assert len(rates) == 100
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001


@pytest.mark.parametrize("seconds", [20.0, 60.0, 99.0])
def test_with_too_little_the_rate_falls_to_zero_in_time(clock: Clock, seconds: float) -> None:
    begun = clock.now
    pace = Pace(epochs=10, batches=20, seconds=seconds, schedule="one-cycle")
    rates = run(pace, clock, batch=[2.0, 0.5], validation=0.2)
    assert pace.bound
    assert seconds - 0.5 - 0.2 <= clock.now - begun <= seconds + 0.5
    assert max(rates) > 0.9
    assert rates[-1] < 0.02
    assert pace.share > 0.97


def test_a_short_budget_is_validated_within_an_epoch(clock: Clock) -> None:
    pace = Pace(epochs=50, batches=1000, seconds=100.0, schedule="constant")
    clock.now += 3.0
    for _ in range(MEASURED):
        clock.now += 1.0
        pace.batch_done()
    share = pace.settle(validation=30.0)
    assert 5 <= pace.every <= 10
    rounds = 94 * 0.85 / pace.every
    assert rounds * share * 30 == pytest.approx(0.15 * 94, rel=0.05)


def test_a_machine_that_becomes_slower_is_noticed(clock: Clock) -> None:
    pace = Pace(epochs=10, batches=10, seconds=130.0, schedule="one-cycle")
    rates = run(pace, clock, batch=[1.0] * 40 + [3.0], validation=0.0)
    assert pace.bound
    assert len(rates) < 75
    assert rates[-1] < 0.02


def test_a_machine_that_becomes_quicker_still_ends_at_rate_zero(clock: Clock) -> None:
    pace = Pace(epochs=10, batches=10, seconds=90.0, schedule="one-cycle")
    rates = run(pace, clock, batch=[1.0] * 20 + [0.1], validation=0.0)
    assert len(rates) == 100
    assert rates[-1] < 0.02


def test_a_constant_rate_is_constant(clock: Clock) -> None:
    pace = Pace(epochs=3, batches=10, seconds=20.0, schedule="constant")
    assert set(run(pace, clock, batch=[1.0], validation=0.5)) == {1.0}


@pytest.mark.parametrize(("answers", "kept"), [(0, 0.0), (100, 30.0), (1000, 50.0)])
def test_time_is_kept_for_answers_but_no_more_than_half(clock: Clock, answers: int, kept: float) -> None:
    begun = clock.now
    pace = Pace(epochs=10, batches=200, seconds=100.0, schedule="one-cycle", answers=answers)
    while pace.done < pace.total and not pace.is_over:
        clock.now += 0.5
        pace.batch_done()
        if pace.done == MEASURED:
            pace.settle(0.0, 0.3)
    assert clock.now - begun == pytest.approx(100.0 - kept, abs=0.6)
