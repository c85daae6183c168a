"""What the host works out for the next steps of a pack, beside one step of one member after the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wse.engine.space import Space
from wse.engine.train.cuda_tables import StepsAhead, address
from wse.engine.train.row import Row
from wse.engine.train.schedule import learning_rate
from wse.kernels.optim.triton import step_columns

SPACE = Space.load(preset="small-cnn", overrides={"learning_rate_schedule": ["constant", "cosine"], "epochs": 9})
MEMBERS = SPACE.members(2**64 - 3, range(8))
MOST = 6


@st.composite
def packs(draw: st.DrawFn) -> list[Row | None]:
    """Rows anywhere in their training, at least one of them with a member."""
    rows: list[Row | None] = []
    for member in MEMBERS[: draw(st.integers(1, len(MEMBERS)))]:
        steps = draw(st.integers(1, 12))
        row = Row(member=member, batch=draw(st.integers(1, 9)), steps=steps)
        row.go_on(draw(st.integers(1, 9)), np.ones(draw(st.integers(0, steps - 1))))
        rows += [row] if draw(st.booleans()) else [row, None]
    return rows


@given(packs())
def test_steps_ahead_are_those_of_each_member(rows: list[Row | None]) -> None:
    ahead = StepsAhead(rows, SPACE.settings, MOST)
    assert 1 <= len(ahead) <= MOST
    ended = {}
    for place, row in enumerate(rows):
        if row is None:
            assert not ahead.addresses[:, place].any()
            continue
        setup, epoch, done = row.member.setup, row.epoch, row.done
        for step in range(len(ahead)):
            assert ahead.addresses[step, place].tolist() == [*address(row.member), epoch, done * row.batch]
            taken = (epoch - 1) * row.steps + done
            rate = learning_rate(setup, taken, setup.epochs * row.steps)
            columns = step_columns(
                [setup.optimizer],
                SPACE.settings.optimizer_form,
                rates=np.array([[rate]]),
                first_counts=np.array([taken + 1]),
                weight_decays=np.array([setup.weight_decay]),
            )
            np.testing.assert_array_equal(ahead.columns[step, place], columns[0, 0])
            done += 1
            if done == row.steps:
                assert place not in ended, "an epoch ends before its member was looked at"
                ended[place] = step + 1
                epoch, done = epoch + 1, 0
    told = {place: step for step, which in ahead.ends() for place in ahead.ended[which].tolist()}
    assert told == ended
    # All of the steps are needed: either an epoch ends with the last one, or none does.
    assert max(ended.values(), default=len(ahead)) == len(ahead)


def test_as_many_steps_as_may_be() -> None:
    """Only an end, or the limit, ends them: here the second end of the first row would come after six steps."""
    rows = [Row(member=member, batch=1, steps=steps) for member, steps in zip(MEMBERS, (3, 4, 5, 9), strict=False)]
    assert len(StepsAhead(rows, SPACE.settings, MOST)) == 5
    assert len(StepsAhead(rows[3:], SPACE.settings, MOST)) == MOST
    assert len(StepsAhead(rows[:2], SPACE.settings, 3)) == 3


def test_a_loss_that_is_not_finite() -> None:
    row = Row(member=MEMBERS[0], batch=1, steps=4)
    row.take(np.array([1.0, 2.0]))
    assert (row.done, row.losses, row.diverged) == (2, [1.0, 2.0], False)
    row.take(np.array([np.nan]))
    assert row.diverged
    row.go_on(2, np.array([3.0]))
    assert (row.epoch, row.done, row.losses, row.diverged) == (2, 1, [3.0], False)
    row.go_on(3, np.array([np.inf]))
    assert row.diverged
