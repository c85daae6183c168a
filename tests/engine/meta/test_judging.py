from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn import metrics

from wse.engine.meta.judging import Predictions, confusion, judge
from wse.engine.meta.targets import Target

RNG = np.random.default_rng(3)


def classified(truth, predicted, probabilities=None, members=None, classes: int = 3) -> Predictions:
    truth = np.asarray(truth, np.int64)
    names = tuple("abcdef"[:classes])
    present = np.ones(len(truth), bool)
    target = Target(name="x", kind="classification", classes=names, values=truth, present=present)
    members = np.arange(len(truth)) if members is None else np.asarray(members)
    return Predictions(target=target, members=members, values=np.asarray(predicted), probabilities=probabilities)


def regressed(truth, predicted, members=None) -> Predictions:
    truth = np.asarray(truth, np.float64)
    target = Target(name="x", kind="regression", classes=(), values=truth, present=np.ones(len(truth), bool))
    members = np.arange(len(truth)) if members is None else np.asarray(members)
    return Predictions(target=target, members=members, values=np.asarray(predicted, np.float64))


def test_classification_against_sklearn() -> None:
    truth = RNG.integers(3, size=200)
    probabilities = RNG.dirichlet(np.ones(3), 200)
    probabilities[np.arange(200), truth] += 0.5
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    judged = judge(classified(truth, predicted, probabilities, RNG.integers(40, size=200)))
    assert judged["accuracy"].value == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert judged["balanced_accuracy"].value == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert judged["log_loss"].value == pytest.approx(metrics.log_loss(truth, probabilities))
    assert (confusion(classified(truth, predicted)) == metrics.confusion_matrix(truth, predicted)).all()


def test_calibration_error_by_hand() -> None:
    # Two bins: [0.9] three times right of four, [0.6] one of two.
    probabilities = np.array([[0.92, 0.08]] * 4 + [[0.64, 0.36]] * 2)
    judged = judge(classified([0, 0, 0, 1, 0, 1], [0] * 6, probabilities, members=[7] * 6, classes=2))
    expected = (4 * abs(0.92 - 0.75) + 2 * abs(0.64 - 0.5)) / 6
    assert judged["calibration_error"].value == pytest.approx(expected)


def test_chance_is_no_calibration_error() -> None:
    """Of probabilities that are right, or 0.1 too high; the plain figure of the first is 0.054."""
    rng = np.random.default_rng(0)
    for true, told in ((0.0, 0.7), (0.1, 0.8)):
        errors, covered = [], 0
        for _ in range(100):
            confidence = rng.uniform(told - 0.15, told + 0.15, 150)
            hits = rng.random(150) < confidence - true
            probabilities = np.column_stack([confidence, 1 - confidence])
            judged = judge(classified(np.where(hits, 0, 1), np.zeros(150), probabilities, classes=2))
            interval = judged["calibration_error"]
            assert 0 <= interval.low <= interval.value <= interval.high
            errors.append(interval.value)
            covered += interval.low <= true <= interval.high
        assert abs(np.mean(errors) - true) < 0.04
        assert covered >= 80


def test_a_class_without_items_is_left_out_of_the_balance() -> None:
    judged = judge(classified([0, 0, 1, 1], [0, 1, 1, 1]))
    assert judged["balanced_accuracy"].value == pytest.approx(0.75)
    assert "log_loss" not in judged


def test_regression_against_sklearn_and_scipy() -> None:
    truth = 1e4 + np.round(RNG.normal(size=150), 1)
    predicted = truth + RNG.normal(size=150)
    judged = judge(regressed(truth, predicted, RNG.integers(50, size=150)))
    assert judged["r2"].value == pytest.approx(metrics.r2_score(truth, predicted))
    assert judged["mae"].value == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    assert judged["kendall_tau"].value == pytest.approx(kendalltau(truth, predicted).statistic)
    assert judged["kendall_tau"].low < judged["kendall_tau"].value < judged["kendall_tau"].high
    assert "kendall_tau" not in judge(regressed(truth, predicted), ranks=False)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_r2_has_no_unit(unit: float) -> None:
    truth, predicted = np.arange(20.0), np.arange(20.0) + RNG.normal(size=20)
    judged = judge(regressed(unit * truth, unit * predicted))["r2"]
    assert judged.value == pytest.approx(metrics.r2_score(truth, predicted))
    assert "r2" not in judge(regressed(np.full(20, 0.1 * unit), unit * predicted))


def test_ceiling_is_what_a_perfect_ranking_without_ties_reaches() -> None:
    truth = np.array([0.1] * 10 + [0.3, 0.5, 0.5, 0.9])
    perfect = np.arange(len(truth))
    judged = judge(regressed(truth, perfect))
    assert judged["kendall_tau_ceiling"].value == pytest.approx(kendalltau(truth, perfect).statistic)
    assert judged["kendall_tau_ceiling"].value < 0.8
    assert (
        judged["kendall_tau_ceiling"].low
        < judged["kendall_tau_ceiling"].value
        < judged["kendall_tau_ceiling"].high
    )


def test_a_member_that_is_drawn_twice_is_no_tie() -> None:
    truth = np.repeat(RNG.normal(size=40), 2) + RNG.normal(size=80)
    ceiling = judge(regressed(truth, RNG.normal(size=80), np.repeat(np.arange(40), 2)))["kendall_tau_ceiling"]
    assert (ceiling.low, ceiling.value, ceiling.high) == pytest.approx((1, 1, 1))


def test_what_is_not_defined_is_left_out() -> None:
    judged = judge(regressed([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]))
    assert judged.keys() == {"mae"}


def test_intervals_cover() -> None:
    """Of 200 samples of 60 members with an accuracy of 0.7, about 190 intervals hold 0.7."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        hits = rng.random(60) < 0.7
        interval = judge(classified(np.zeros(60, int), np.where(hits, 0, 1)), seed=seed)["accuracy"]
        covered += interval.low <= 0.7 <= interval.high
    assert 180 <= covered <= 198


def test_items_of_a_member_are_no_new_evidence() -> None:
    truth = RNG.integers(2, size=60)
    predicted = np.where(RNG.random(60) < 0.7, truth, 1 - truth)
    once = judge(classified(truth, predicted, classes=2))["accuracy"]
    again = judge(
        classified(np.repeat(truth, 20), np.repeat(predicted, 20), members=np.repeat(np.arange(60), 20), classes=2)
    )
    assert again["accuracy"] == once
    apart = judge(classified(np.repeat(truth, 20), np.repeat(predicted, 20), classes=2))["accuracy"]
    assert apart.high - apart.low < 0.4 * (once.high - once.low)


def test_ranks_are_compared_within_a_fit() -> None:
    """Two fits that rank alike, on scales of their own: the second says less of all."""
    truth = np.concatenate([np.arange(20.0), np.arange(20.0)])
    predicted = np.concatenate([np.arange(20.0) + 100, np.arange(20.0)])
    together = dataclasses.replace(regressed(truth, predicted), fits=np.repeat([0, 1], 20))
    judged = judge(together)
    assert judged["kendall_tau"].value == pytest.approx(1)
    assert judged["kendall_tau"].low == pytest.approx(1)
    assert judge(regressed(truth, predicted))["kendall_tau"].value < 0.6
    noisy = RNG.normal(size=40)
    mixed = dataclasses.replace(regressed(truth[:40], noisy), fits=np.repeat([0, 1], [30, 10]))
    parts = [kendalltau(truth[a:b], noisy[a:b]).statistic for a, b in ((0, 30), (30, 40))]
    assert judge(mixed)["kendall_tau"].value == pytest.approx((30 * parts[0] + 10 * parts[1]) / 40)


def test_a_constant_of_each_fit_has_no_ranks() -> None:
    """Means of different training networks, as the baseline says: their order means nothing."""
    truth, predicted = RNG.normal(size=60), np.repeat([0.1, -0.3, 0.2], 20)
    judged = judge(dataclasses.replace(regressed(truth, predicted), fits=np.repeat([0, 1, 2], 20)))
    assert "kendall_tau" not in judged
    assert "kendall_tau_ceiling" not in judged
