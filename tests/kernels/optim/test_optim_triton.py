"""Optimizer steps of a whole pack against the reference in float64; memory is NaN where nobody may look."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wse.kernels.optim import CONSTANTS, STATE_SLOTS, add_l2, decay, initial_state, step
from wse.kernels.optim import triton as packed

STEPS, MOMENTUM = 3, 0.9
RULES = [(kind, form) for kind in STATE_SLOTS for form in CONSTANTS]
N_WEIGHTS, N_TRAINED, D = 37, 61, 80  # neither a multiple of 16; what lies behind N_TRAINED is nobody's
NOT_TRAINED = 7.0  # moving statistics, for instance: the gradient there is NaN, and would be seen


def gradients_like(shape, rng):
    """Over ten orders of magnitude, with exact zeros: where an epsilon is, and whose, is seen."""
    gradients = rng.standard_normal(shape) * np.logspace(-9, 1, shape[-1])
    gradients[..., ::5] = 0
    return torch.from_numpy(gradients.astype(np.float32))


class Pack:
    """A member for every optimizer and form, each with its own rate, l2 and decay."""

    def __init__(self, device, rules=RULES, worn=False):
        rng = np.random.default_rng(1)
        P = len(rules)
        self.rules, self.device, self.worn = rules, device, worn
        self.rates = [np.array([0.003 * (1 + m) / (1 + t) for t in range(STEPS)]) for m in range(P)]
        self.l2 = [0.0 if m % 2 else 0.01 * m for m in range(P)]
        self.decays = [0.0 if m % 3 else 0.1 * m for m in range(P)]
        self.start = torch.from_numpy(rng.standard_normal((P, N_TRAINED)).astype(np.float32))
        self.gradients = gradients_like((STEPS, P, N_TRAINED), rng)

    def run(self, *, live=None, damaged=None):
        P = len(self.rules)
        weights = torch.full((P, D), NOT_TRAINED)
        weights[:, :N_TRAINED] = self.start
        state = torch.full((2, P, D), torch.nan)
        columns = np.empty((STEPS, P, packed.STEP_COLUMNS), np.float32)
        constants = []
        for m, (kind, form) in enumerate(self.rules):
            slots = STATE_SLOTS[kind]
            state[:slots, m, :N_TRAINED] = self.first_state(m)
            columns[:, m : m + 1] = packed.step_columns(
                [kind],
                form,
                rates=self.rates[m][:, None],
                first_counts=np.ones(1, np.int64),
                weight_decays=np.array([self.decays[m]]),
            )
            constants.append(packed.constant_columns(kind, form, momentum=MOMENTUM, l2=self.l2[m]))
        live = torch.ones(P, dtype=torch.int32) if live is None else live
        kinds = torch.tensor([packed.KIND_CODES[kind] for kind, _ in self.rules], dtype=torch.int32)
        weights, state, live, kinds = (t.to(self.device) for t in (weights, state, live, kinds))
        tick = torch.zeros(1, dtype=torch.int32, device=self.device)
        for t in range(STEPS):
            gradient = torch.full((P, D), torch.nan)
            gradient[:, :N_TRAINED] = self.gradients[t]
            if damaged is not None:
                gradient[damaged] = torch.nan
            tick.fill_(t)
            packed.optimizer_step(
                weights,
                gradient.to(self.device),
                state,
                live=live,
                kinds=kinds,
                constants=torch.from_numpy(np.stack(constants)).to(self.device),
                steps=torch.from_numpy(columns).to(self.device),
                tick=tick,
                n_weights=N_WEIGHTS,
                n_trained=N_TRAINED,
            )
        return weights.cpu(), state.cpu()

    def first_state(self, m):
        state = initial_state(self.start[m], *self.rules[m])
        return torch.full_like(state, 1e-11) if self.worn else state

    def reference(self, m, dtype):
        kind, form = self.rules[m]
        weights, state = self.start[m].to(dtype).clone(), self.first_state(m).to(dtype).clone()
        is_weight = torch.arange(N_TRAINED) < N_WEIGHTS
        for t in range(STEPS):
            gradient, rate = self.gradients[t, m].to(dtype).clone(), float(self.rates[m][t])
            add_l2(gradient, weights, is_weight, l2=self.l2[m])
            decay(weights, is_weight, learning_rate=rate, weight_decay=self.decays[m])
            options = {"kind": kind, "form": form, "learning_rate": rate, "count": t + 1, "momentum": MOMENTUM}
            step(weights, gradient, state, **options)
        return weights.double(), state.double()


def worst(got, expected):
    """Largest relative error, not counting values next to nothing."""
    return float(((got - expected).abs() / expected.abs().clamp(min=1e-20)).amax()) if got.numel() else 0.0


@pytest.mark.parametrize("worn", [False, True], ids=["fresh", "worn"])
def test_steps_are_the_references(device, worn):
    pack = Pack(device, worn=worn)
    weights, state = pack.run()
    assert (weights[:, N_TRAINED:] == NOT_TRAINED).all()
    for m, (kind, form) in enumerate(pack.rules):
        exact, exact_state = pack.reference(m, torch.float64)
        plain, plain_state = pack.reference(m, torch.float32)
        error = (weights[m, :N_TRAINED].double() - exact).abs().max()
        # At most twice PyTorch's own error in float32, or a few roundings where that happens to be tiny.
        assert error <= max(2 * (plain - exact).abs().max(), 4e-7), (kind, form)
        slots = STATE_SLOTS[kind]
        got = state[:slots, m, :N_TRAINED].double()
        assert worst(got, exact_state) <= max(2 * worst(plain_state, exact_state), 2e-6), (kind, form)
        assert state[slots:, m].isnan().all()
        assert state[:, m, N_TRAINED:].isnan().all()


def test_counts_far_into_training():
    """Corrections of late steps, as a member of many epochs has them."""
    for form in CONSTANTS:
        counts, decays = np.array([1000, 1]), np.zeros(2)
        rates = np.full((1001, 2), 1e-3)
        both = packed.step_columns(["adam"] * 2, form, rates=rates, first_counts=counts, weight_decays=decays)
        np.testing.assert_array_equal(both[:2, 0], both[999:, 1])


def test_columns_of_members_are_those_of_each_alone():
    kinds = [*packed.KIND_CODES, *packed.KIND_CODES]
    rates = np.random.default_rng(0).random((3, len(kinds)))
    counts, decays = np.arange(1, len(kinds) + 1), np.linspace(0, 0.1, len(kinds))
    for form in CONSTANTS:
        given = {"rates": rates, "first_counts": counts, "weight_decays": decays}
        together = packed.step_columns(kinds, form, **given)
        for m, kind in enumerate(kinds):
            its = {"rates": rates[:, [m]], "first_counts": counts[[m]], "weight_decays": decays[[m]]}
            np.testing.assert_array_equal(together[:, [m]], packed.step_columns([kind], form, **its))


def test_a_member_that_is_not_live_is_left_alone(device):
    pack = Pack(device)
    live = torch.ones(len(RULES), dtype=torch.int32)
    live[::2] = 0
    weights, _ = pack.run(live=live)
    assert torch.equal(weights[::2, :N_TRAINED], pack.start[::2])
    everyone, _ = pack.run()
    assert torch.equal(weights[1::2, :N_TRAINED], everyone[1::2, :N_TRAINED])


def test_a_damaged_member_leaves_the_others_bitwise_unchanged(device):
    pack = Pack(device)
    healthy, _ = pack.run()
    for damaged in (0, 5, len(RULES) - 1):
        weights, _ = pack.run(damaged=damaged)
        others = [m for m in range(len(RULES)) if m != damaged]
        assert weights[damaged, :N_TRAINED].isnan().all()
        assert torch.equal(weights[others, :N_TRAINED], healthy[others, :N_TRAINED])


@pytest.mark.parametrize(("kind", "form"), RULES)
def test_alone_and_packed_are_the_same_bits(device, kind, form):
    pack = Pack(device)
    together, _ = pack.run()
    m = RULES.index((kind, form))
    alone = Pack(device, rules=[RULES[m]])
    alone.rates, alone.l2, alone.decays = ([values[m]] for values in (pack.rates, pack.l2, pack.decays))
    alone.start, alone.gradients = pack.start[m : m + 1], pack.gradients[:, m : m + 1]
    assert torch.equal(alone.run()[0][0, :N_TRAINED], together[m, :N_TRAINED])


def test_codes_cover_the_reference():
    assert set(packed.KIND_CODES) == set(STATE_SLOTS)
