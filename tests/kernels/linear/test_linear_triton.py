"""Linear layers of ragged packs against float64 PyTorch, on odd shapes, in memory full of NaN."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from wse.kernels.linear import reference
from wse.kernels.linear.triton import input_gradient, linear, weight_gradient
from wse.kernels.packs import Pack

from ..conftest import ROUNDED, off

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN and infinity in the interpreter's numpy


@dataclass(frozen=True)
class Case:
    """A layer: inputs and outputs, as many as there are and as many as are stored."""

    inputs: int
    x_stored: int
    outputs: int
    y_stored: int
    rows: tuple[int, ...] = (0, 5, 5, 6, 75)


CASES = {
    "one of each": Case(1, 1, 1, 1, (0, 1, 3)),
    "the logits": Case(8, 8, 20, 24),
    "stored wider": Case(10, 16, 12, 16),
    "more than a block": Case(72, 72, 70, 72),
    "long": Case(130, 136, 5, 8),
}


def part(values: Tensor) -> Tensor:
    """Those, as a part of longer vectors that are NaN elsewhere."""
    members, size = len(values), values[0].numel()
    whole = torch.full((members, -(-size // 16) * 16 + 32), torch.nan, device=values.device)
    whole[:, 16 : 16 + size] = values.flatten(1)
    return whole[:, 16 : 16 + size].view(values.shape)


class Pass:
    """Inputs of a case, what float64 makes of them, and what the kernels do."""

    def __init__(self, case: Case, device: str, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(2)
        members, rows = len(case.rows) - 1, case.rows[-1]
        self.case, self.dtype, self.device = case, dtype, device
        self.pack = Pack.of(case.rows, device)
        self.x = torch.randn(rows, case.inputs, device=device).to(dtype).float()
        self.dy = torch.randn(rows, case.outputs, device=device).to(dtype).float()
        w = torch.full((members, case.inputs, case.y_stored), torch.nan, device=device)
        w[:, :, : case.outputs] = torch.randn(members, case.inputs, case.outputs).to(dtype)
        self.w, self.bias = part(w), part(torch.randn(members, case.outputs, device=device))

    def expected(self) -> dict[str, Tensor]:
        w = self.w[:, :, : self.case.outputs]
        x, w, bias = (values.double().requires_grad_() for values in (self.x, w, self.bias))
        y = reference.linear(x, w, bias, self.case.rows)
        dx, dw, db = torch.autograd.grad(y, (x, w, bias), self.dy.double())
        return {"y": y.detach(), "dx": dx, "dw": dw, "db": db}

    def stored(self, rows: Tensor, stored: int) -> Tensor:
        """Those, with NaN where something is only stored."""
        whole = torch.full((len(rows), stored), torch.nan, dtype=self.dtype, device=self.device)
        whole[:, : rows.shape[1]] = rows
        return whole

    def made(self, x: Tensor | None = None, dy: Tensor | None = None) -> dict[str, Tensor]:
        """What the kernels write, in memory full of NaN."""
        case = self.case
        x = self.stored(self.x if x is None else x, case.x_stored)
        dy = self.stored(self.dy if dy is None else dy, case.y_stored)
        y, dx, dw, db = (torch.full_like(values, torch.nan) for values in (dy, x, self.w, self.bias))
        dw, db = part(dw), part(db)
        linear(x, self.w, self.bias, y, pack=self.pack)
        input_gradient(dy, self.w, dx, outputs=case.outputs, pack=self.pack)
        weight_gradient(x, dy, dw, db, pack=self.pack)
        for rest in (y[:, case.outputs :], dx[:, case.inputs :], dw[:, :, case.outputs :]):
            assert (rest == 0).all()
        for whole, size in ((dw._base, dw[0].numel()), (db._base, db[0].numel())):
            assert whole is not None
            assert whole[:, :16].isnan().all()  # nobody wrote there
            assert whole[:, 16 + size :].isnan().all()
        return {"y": y[:, : case.outputs], "dx": dx[:, : case.inputs], "dw": dw[:, :, : case.outputs], "db": db}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_forward_and_gradients(case: Case, dtype: torch.dtype, device: str) -> None:
    run = Pass(case, device, dtype)
    made, expected = run.made(), run.expected()
    for name in ("y", "dx", "dw", "db"):
        rounded = ROUNDED if dtype == torch.bfloat16 and name in ("y", "dx") else 0.0
        # A GPU makes a float32 product of three of lesser precision.
        assert off(made[name], expected[name]) < rounded + (1e-5 if device == "cuda" else 2e-6), name
    for member, images in enumerate(run.pack.row_offsets.diff().tolist()):
        assert images or (made["dw"][member] == 0).all()
        assert images or (made["db"][member] == 0).all()


def test_neighbours_of_diverged_members_keep_their_bits(device: str) -> None:
    case = Case(10, 16, 12, 16, (0, 2, 5, 7))
    run = Pass(case, device)
    x, dy = run.x.clone(), run.dy.clone()
    for diverged in (x, dy):
        diverged[:2], diverged[5:] = torch.nan, torch.inf
    alone, beside = run.made(), run.made(x, dy)
    for what in ("y", "dx"):
        assert torch.equal(alone[what][2:5], beside[what][2:5]), what
        assert beside[what][:2].isnan().all(), what
    for what in ("dw", "db"):
        assert torch.equal(alone[what][1], beside[what][1]), what
        assert beside[what][0].isnan().all(), what


@pytest.mark.gpu
@pytest.mark.parametrize(("inputs", "outputs"), [(512, 128), (128, 64), (64, 20), (16, 10)])
def test_real_sizes(inputs: int, outputs: int, dtype: torch.dtype, ragged: tuple[int, ...], device: str) -> None:
    run = Pass(Case(inputs, inputs, outputs, -(-outputs // 8) * 8, ragged), device, dtype)
    made, again, expected = run.made(), run.made(), run.expected()
    for name in ("y", "dx", "dw", "db"):
        assert torch.equal(made[name], again[name])
        rounded = ROUNDED if dtype == torch.bfloat16 and name in ("y", "dx") else 0.0
        assert off(made[name], expected[name]) < rounded + 1e-4, name


def test_what_does_not_fit_is_refused() -> None:
    pack = Pack.of([0, 2])
    x, w, bias, y = torch.zeros(2, 8), torch.zeros(1, 8, 8), torch.zeros(1, 5), torch.zeros(2, 8)
    with pytest.raises(ValueError, match=r"`y`.*at least 2"):
        linear(x, w, bias, y[:1], pack=pack)
    with pytest.raises(ValueError, match="for 8 stored inputs"):
        linear(x, torch.zeros(1, 9, 8), bias, y, pack=pack)
    with pytest.raises(ValueError, match=r"`w`.*must be float32 \[1, 8, 8\]"):
        linear(x, w.double(), bias, y, pack=pack)
    with pytest.raises(ValueError, match=r"`bias`.*for 8 stored outputs"):
        linear(x, w, torch.zeros(1, 9), y, pack=pack)
