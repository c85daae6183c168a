"""The loss of a pack against PyTorch's in float64, and the counts of an evaluation against NumPy's."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from wse.kernels.loss.reference import cross_entropy as reference
from wse.kernels.loss.triton import cross_entropy, mean_loss, tally
from wse.kernels.packs import Pack

from ..conftest import ROUNDED

# NumPy warns of NaN in the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")

IMAGES = 90
OFFSETS = [0, 5, 38, 38, 70]


def labels_of_all(outputs):
    return torch.from_numpy(np.random.default_rng(2).integers(0, outputs, IMAGES).astype(np.uint8))


class Case:
    """Rows of OFFSETS with random images; memory behind the rows and past the outputs is NaN."""

    def __init__(self, device, outputs, columns, offsets=OFFSETS, dtype=torch.float32):
        rng = np.random.default_rng(outputs)
        self.device, self.outputs, self.offsets = device, outputs, offsets
        self.rows = rows = offsets[-1]
        self.labels = labels_of_all(outputs)
        self.indices = torch.from_numpy(rng.integers(0, IMAGES, rows).astype(np.int32))
        self.logits = torch.full((rows, columns), torch.nan)
        self.logits[:, :outputs] = torch.from_numpy(rng.standard_normal((rows, outputs)).astype(np.float32) * 4)
        self.logits = self.logits.to(dtype)
        self.pack = Pack.of(offsets, device)

    def run(self, *, learns=True):
        self.losses = torch.full((self.rows + 3,), torch.nan, device=self.device)
        self.answers = torch.full((self.rows + 3,), -7, dtype=torch.int32, device=self.device)
        gradient = torch.full((self.rows + 1, self.logits.shape[1]), torch.nan, dtype=self.logits.dtype)
        gradient = gradient.to(self.device)
        cross_entropy(
            self.logits.to(self.device),
            self.pack,
            indices=self.indices.to(self.device),
            labels=self.labels.to(self.device),
            losses=self.losses,
            answers=self.answers,
            outputs=self.outputs,
            gradient=gradient if learns else None,
        )
        return self.losses.cpu(), self.answers.cpu(), gradient.cpu()

    def expected(self, dtype=torch.float64):
        """Losses, answers and gradient of each member alone."""
        labels = self.labels[self.indices.long()].long()
        parts = [
            reference(self.logits[first:stop, : self.outputs].to(dtype), labels[first:stop])
            for first, stop in pairwise(self.offsets)
            if first < stop
        ]
        return [torch.cat(values) for values in zip(*parts, strict=True)]


@pytest.mark.parametrize(("outputs", "columns"), [(10, 10), (10, 16), (20, 20), (20, 32), (3, 4)])
def test_losses_answers_and_gradient(device, outputs, columns, dtype):
    case = Case(device, outputs, columns, dtype=dtype)
    losses, answers, gradient = case.run()
    exact_losses, exact_answers, exact = case.expected()
    plain_losses, _, plain = case.expected(torch.float32)
    rows = case.rows
    assert losses[rows:].isnan().all()
    assert (answers[rows:] == -7).all()
    assert gradient[rows:].isnan().all()
    assert (gradient[:rows, outputs:] == 0).all()
    assert torch.equal(answers[:rows].long(), exact_answers)
    # At most twice PyTorch's own error, or a few roundings of values of this size.
    worst = (losses[:rows].double() - exact_losses).abs().max()
    assert worst <= max(2 * (plain_losses - exact_losses).abs().max(), 2e-6)
    error = (gradient[:rows, :outputs].double() - exact).abs()
    rounded = ROUNDED * exact.abs() if dtype == torch.bfloat16 else 0.0
    assert (error <= rounded + max(2 * (plain - exact).abs().max(), 1e-7)).all()


def test_measuring_writes_no_gradient(device):
    case = Case(device, 10, 10)
    losses, answers, _ = case.run()
    again, same, gradient = case.run(learns=False)
    assert gradient.isnan().all()
    assert torch.equal(losses[: case.rows], again[: case.rows])
    assert torch.equal(answers, same)


def test_answers_among_equals_and_with_nan(device):
    case = Case(device, 10, 16, offsets=[0, 4])
    case.logits[0, :10] = 1.0
    case.logits[1, :10] = torch.tensor([0.0, 2, 2, 1, 0, 0, 0, 0, 0, 2])
    case.logits[2, 6] = torch.nan
    case.logits[2, 3] = 9.0
    case.logits[3, 3] = torch.inf
    _, answers, _ = case.run()
    assert answers[:4].tolist() == [0, 1, 6, 3]


def test_extreme_logits_stay_finite(device):
    case = Case(device, 10, 10)
    case.logits *= 1e4
    losses, _, gradient = case.run()
    assert losses[: case.rows].isfinite().all()
    assert gradient[: case.rows].isfinite().all()


def test_a_damaged_member_leaves_the_others_bitwise_unchanged(device):
    case = Case(device, 20, 32)
    healthy = case.run()
    case.logits[5:38, :20] = torch.nan
    damaged = case.run()
    for before, after in zip(healthy, damaged, strict=True):
        assert torch.equal(before[:5], after[:5])
        assert torch.equal(before[38:70], after[38:70])


def test_mean_loss_of_a_step(device):
    case = Case(device, 10, 10)
    losses, _, _ = case.run()
    means = torch.full((3, 4), torch.nan, device=device)
    mean_loss(means, case.losses, case.pack, tick=torch.tensor([1], dtype=torch.int32, device=device))
    means = means.cpu()
    assert means[[0, 2]].isnan().all()
    assert means[1, 2].isnan(), "a member without images"
    expected = [losses[first:stop].double().mean() for first, stop in ((0, 5), (5, 38), (38, 70))]
    torch.testing.assert_close(means[1, [0, 1, 3]].double(), torch.stack(expected), rtol=3e-7, atol=0)


@pytest.mark.parametrize("outputs", [10, 20, 3])
def test_tally_adds(device, outputs):
    offsets = [0, 5, 150, 150, 278]
    case = Case(device, outputs, outputs, offsets=offsets)
    losses, answers, _ = case.run()
    sums = torch.arange(4.0, dtype=torch.float64, device=device)
    correct = torch.arange(4, dtype=torch.int32, device=device)
    predicted = torch.arange(4 * outputs, dtype=torch.int32, device=device).view(4, outputs)
    before = sums.cpu().clone(), correct.cpu().clone(), predicted.cpu().clone()
    tables = {"indices": case.indices.to(device), "labels": case.labels.to(device)}
    tally(sums, correct, predicted, case.pack, losses=case.losses, answers=case.answers, **tables)
    truth = case.labels[case.indices.long()].int()
    for m, (first, stop) in enumerate(pairwise(offsets)):
        right = int((answers[first:stop] == truth[first:stop]).sum())
        counts = torch.bincount(answers[first:stop].long(), minlength=outputs)
        assert correct[m].item() == before[1][m] + right
        assert torch.equal(predicted[m].cpu(), before[2][m] + counts.int())
        expected = before[0][m] + losses[first:stop].double().sum()
        torch.testing.assert_close(sums[m].cpu(), expected, rtol=1e-12, atol=0)
