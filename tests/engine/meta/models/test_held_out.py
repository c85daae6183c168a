from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from wse.engine.meta.models.held_out import calibrated_loss, hold_out, temperature


@pytest.mark.parametrize("share", [0.1, 0.15, 0.5])
def test_whole_groups_are_held_out_evenly_over_the_classes(share: float) -> None:
    groups = np.repeat(np.arange(100) * 7, 3)
    classes = groups // 7 % 4
    held = hold_out(groups, classes, share, seed=1)
    chosen = np.unique(groups[held])
    assert len(chosen) == round(share * 100)
    assert set(groups[~held]).isdisjoint(chosen)
    counts = np.bincount(chosen // 7 % 4, minlength=4)
    assert counts.max() - counts.min() <= 1
    assert (hold_out(groups, classes, share, seed=1) == held).all()
    assert (hold_out(groups, classes, share, seed=2) != held).any()


def test_numbers_are_held_out_over_their_range() -> None:
    targets = np.random.default_rng(0).permutation(1000) / 1000
    held = hold_out(np.arange(1000), targets, 0.1, seed=0)
    np.testing.assert_allclose(np.sort(targets[held]), np.arange(100) / 100 + 0.005, atol=0.006)


def test_every_group_can_be_held_out() -> None:
    seen = np.zeros(20, bool)
    for seed in range(200):
        seen |= hold_out(np.arange(20), np.zeros(20), 0.1, seed)
    assert seen.all()


def test_few_items_are_all_trained_on() -> None:
    assert not hold_out(np.arange(2), np.array([0, 1]), 0.5, seed=0).any()
    assert not hold_out(np.zeros(9), np.zeros(9), 0.2, seed=0).any()


@pytest.mark.parametrize("true", [0.3, 1.0, 5.0])
def test_temperature_mends_outputs_that_are_scaled(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 3, generator=generator)
    targets = logits.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    found = temperature(true * logits, targets)
    assert found == pytest.approx(true, rel=0.05)
    assert calibrated_loss(true * logits, targets) == pytest.approx(
        functional.cross_entropy(logits, targets).item(), abs=1e-3
    )


def test_few_items_say_little() -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    right = temperature(outputs, torch.tensor([0, 1]))
    wrong = temperature(outputs, torch.tensor([1, 0]))
    assert math.exp(-1) < right < 1 < wrong < math.exp(2)
