"""Convolutions of ragged packs against float64 PyTorch, on odd shapes, in memory full of NaN.

Without a GPU these run in Triton's interpreter; packs of a real size are left to the tests marked ``gpu``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from wse.kernels.conv import reference
from wse.kernels.conv.shapes import ConvShape, Tiling, gradient_product, known_shapes
from wse.kernels.conv.triton import convolve, input_gradient
from wse.kernels.conv.triton_gradient import weight_gradient
from wse.kernels.packs import Pack

from ..conftest import ROUNDED, off

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN and infinity in the interpreter's numpy

EXACT = 1e-5 if torch.cuda.is_available() else 2e-6
"""Allowed error of float32 products, in the largest value: a GPU makes them of three of lesser precision."""

ROWS = [0, 3, 3, 4]  # the second member has no image, the third has one


@dataclass(frozen=True)
class Case:
    """A convolution, the margin of its input, and tiles small enough for the interpreter to need several."""

    shape: ConvShape
    margin: int
    forward: Tiling | None = None
    gradient: Tiling | None = None
    weights: Tiling | None = None
    split: int | None = None
    rows: tuple[int, ...] = tuple(ROWS)


def small(pixels: int, chunk: int, rows: int = 64) -> Tiling:
    return Tiling(pixels=pixels, chunk=chunk, rows=rows, num_stages=1)


CASES = {
    "k5 3 of 4 channels, S4": Case(
        ConvShape(height=6, width=8, channels=4, outputs=4, kernel=5), 2,
        small(4, 64, 16), small(4, 16, 16), small(4, 16, 128), 32,
    ),
    "k3 S2": Case(
        ConvShape(height=4, width=4, channels=4, outputs=8, kernel=3), 1,
        small(2, 16, 16), small(4, 32, 16), small(2, 16), 16,
    ),
    "k7 odd channels, no margin": Case(
        ConvShape(height=3, width=4, channels=6, outputs=5, kernel=7), 0,
        small(2, 32, 16), small(2, 16, 16), small(2, 16, 512), 16,
    ),
    "k3 odd width": Case(
        ConvShape(height=3, width=5, channels=4, outputs=12, kernel=3), 1,
        small(2, 16, 16), small(4, 32, 16), small(2, 16), 16,
    ),
    "k3 stride 2 valid": Case(
        ConvShape(height=7, width=7, channels=4, outputs=16, kernel=3, stride=2, padding="valid"), 0,
        small(2, 16, 16), small(4, 32, 16), small(2, 16), 16,
    ),
    "k3 stride 2 valid, even": Case(
        ConvShape(height=6, width=8, channels=4, outputs=6, kernel=3, stride=2, padding="valid"), 1,
        small(4, 32, 16), small(2, 16, 16), small(1, 16), 16,
    ),
    "k4 stride 2 same, uneven border": Case(
        ConvShape(height=5, width=6, channels=4, outputs=4, kernel=4, stride=2), 1,
        small(2, 32, 16), small(4, 16, 16), small(2, 16), 16,
    ),
    "k1 of one pixel": Case(
        ConvShape(height=1, width=1, channels=4, outputs=3, kernel=1), 0,
        small(1, 16, 16), small(1, 16, 16), small(1, 16), 16, (0, 5, 5, 6),
    ),
}  # fmt: skip


def images(values_RHWC: Tensor, margin: int, fill: float, dtype: torch.dtype, device: str) -> Tensor:
    """Those, with margins of ``fill``."""
    rows, height, width, channels = values_RHWC.shape
    made = torch.full((rows, height, width + 2 * margin, channels), fill, dtype=dtype, device=device)
    made[:, :, margin : margin + width] = values_RHWC.to(made)
    return made


class Pass:
    """Inputs of a case, what float64 makes of them, and what the kernels do."""

    def __init__(self, case: Case, device: str, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        shape, members = case.shape, len(case.rows) - 1
        self.case, self.device, self.dtype = case, device, dtype
        self.pack = Pack.of(case.rows, device)
        self.x = torch.randn(case.rows[-1], shape.height, shape.width, shape.channels)
        if shape.channels == 4:
            self.x[..., 3] = 0  # stored, but not there
        self.dy = torch.randn(case.rows[-1], shape.out_height, shape.out_width, shape.outputs)
        # As in the members' vectors: with other things around it, a multiple of 16 values apart.
        sizes = (shape.kernel, shape.kernel, shape.channels, shape.outputs)
        count = torch.Size(sizes).numel()
        room = -(-(count + shape.outputs) // 16) * 16 + 16
        self.arena = torch.randn(members, room)
        self.x, self.dy, self.arena = (part.to(dtype).float() for part in (self.x, self.dy, self.arena))
        self.x, self.dy, self.arena = (part.to(device) for part in (self.x, self.dy, self.arena))
        self.w = self.arena[:, :count].unflatten(1, sizes)
        self.bias = self.arena[:, count : count + shape.outputs]

    def expected(self) -> dict[str, Tensor]:
        x, w, bias = (part.double().requires_grad_() for part in (self.x, self.w, self.bias))
        y = reference.convolve(x, w, bias, self.case.rows, self.case.shape)
        dx, dw, db = torch.autograd.grad(y, (x, w, bias), self.dy.double())
        return {"y": y.detach(), "dx": dx, "dw": dw, "db": db}

    def made(self, x: Tensor | None = None, dy: Tensor | None = None) -> dict[str, Tensor]:
        """What the kernels write, in memory full of NaN, with what they must not touch."""
        case, pack, shape = self.case, self.pack, self.case.shape
        y = images(torch.full_like(self.dy, torch.nan), 1, torch.nan, self.dtype, self.device)
        dx = images(torch.full_like(self.x, torch.nan), 1, torch.nan, self.dtype, self.device)
        grads = torch.full_like(self.arena, torch.nan)
        dw, db = grads[:, : self.w[0].numel()].view_as(self.w), grads[:, self.w[0].numel() :][:, : shape.outputs]
        x_in = images(self.x if x is None else x, case.margin, 0.0, self.dtype, self.device)
        dy_in = images(self.dy if dy is None else dy, case.margin, 0.0, self.dtype, self.device)
        moments = convolve(
            x_in, self.w, y, shape=shape, pack=pack, bias=self.bias, moments=True, tiling=case.forward
        )
        assert moments is not None
        input_gradient(dy_in, self.w, dx, shape=shape, pack=pack, tiling=case.gradient)
        weight_gradient(x_in, dy_in, dw, shape=shape, pack=pack, db=db, tiling=case.weights, split=case.split)
        for margin in (y[:, :, :1], y[:, :, -1:], dx[:, :, :1], dx[:, :, -1:], grads[:, -1:]):
            assert margin.isnan().all()  # nobody wrote there
        parts = moments.parts.unflatten(2, (-1, moments.parts.shape[2]))[:, :, 0]
        used = parts[:, :, : moments.copies * shape.outputs].unflatten(2, (moments.copies, shape.outputs))
        return {"y": y[:, :, 1:-1], "dx": dx[:, :, 1:-1], "dw": dw, "db": db, "moments": used}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_forward_and_gradients(case: Case, dtype: torch.dtype, device: str) -> None:
    run = Pass(case, device, dtype)
    made, expected = run.made(), run.expected()
    for name in ("y", "dx", "dw", "db"):
        rounded = ROUNDED if dtype == torch.bfloat16 and name in ("y", "dx") else 0.0
        assert off(made[name], expected[name]) < rounded + EXACT, name
    assert (made["dw"][1] == 0).all()
    assert (made["db"][1] == 0).all()
    # The moments of all tiles together are those of the output as it is stored.
    tiles = run.pack.tiles(items_per_image=items(case), size=case.forward.rows)
    for member, (first, end) in enumerate(pairwise(case.rows)):
        y = made["y"][first:end].double().flatten(0, 2)
        count, mean, squares = made["moments"][tiles.first[member] : tiles.first[member + 1]].double().unbind(1)
        assert (count.sum((0, 1)) == len(y)).all()
        if len(y):
            total = (count * mean).sum((0, 1)) / len(y)
            spread = (squares + count * (mean - total) ** 2).sum((0, 1))
            assert off(total, y.mean(0)) < 10 * EXACT  # of numbers larger than it is
            assert off(spread, ((y - y.mean(0)) ** 2).sum(0)) < EXACT


@pytest.mark.parametrize("name", ["k5 3 of 4 channels, S4", "k3 odd width", "k3 stride 2 valid"])
def test_without_a_bias_it_is_zero(name: str, device: str) -> None:
    """Also in the moments, which then leave masks out."""
    case = CASES[name]
    run = Pass(case, device)
    run.bias.zero_()
    expected = run.made()
    y = torch.full_like(images(run.dy, 1, torch.nan, run.dtype, device), torch.nan)
    x = images(run.x, case.margin, 0.0, run.dtype, device)
    moments = convolve(x, run.w, y, shape=case.shape, pack=run.pack, moments=True, tiling=case.forward)
    assert moments is not None
    assert torch.equal(y[:, :, 1:-1], expected["y"])
    live = [tile for tile, (_, first, end) in enumerate(tiles_of(case, run.pack)) if first < end]
    used = moments.parts[live, :, : moments.copies * case.shape.outputs]
    assert torch.equal(used.flatten(1), expected["moments"][live].flatten(1))


def tiles_of(case: Case, pack: Pack) -> list[list[int]]:
    """(member, first item, end) of each tile of the forward pass."""
    assert case.forward is not None
    made: list[list[int]] = pack.tiles(items_per_image=items(case), size=case.forward.rows).table.tolist()
    return made


def items(case: Case) -> int:
    assert case.forward is not None
    return case.shape.out_height * -(-case.shape.out_width // case.forward.pixels)


@pytest.mark.parametrize("name", ["k5 3 of 4 channels, S4", "k3 odd width", "k3 stride 2 valid"])
def test_neighbours_of_diverged_members_keep_their_bits(name: str, device: str) -> None:
    case = CASES[name]
    case = Case(**{**case.__dict__, "rows": (0, 1, 2, 3)})
    run = Pass(case, device)
    x, dy = run.x.clone(), run.dy.clone()
    for part in (x, dy):
        part[0], part[2] = torch.nan, torch.inf
    alone, beside = run.made(), run.made(x, dy)
    for what in ("y", "dx", "dw", "db"):
        assert torch.equal(alone[what][1], beside[what][1]), what
        assert not beside[what][0].isfinite().any(), what


def test_a_member_has_the_same_bits_alone(device: str) -> None:
    case = CASES["k5 3 of 4 channels, S4"]
    packed, alone = Pass(case, device), Pass(Case(**{**case.__dict__, "rows": (0, 3)}), device)
    alone.x, alone.dy, alone.arena = packed.x[:3], packed.dy[:3], packed.arena[:1]
    alone.w, alone.bias = packed.w[:1], packed.bias[:1]
    among, single = packed.made(), alone.made()
    for what, first in {"y": 3, "dx": 3, "dw": 1, "db": 1}.items():
        assert torch.equal(among[what][:first], single[what]), what


REAL_SHAPES = [
    shape
    for shape in known_shapes()
    if (shape.kernel, shape.channels, shape.outputs) in {(5, 4, 8), (7, 8, 16), (3, 24, 48), (5, 48, 48)}
    or shape.stride == 2
]


@pytest.mark.gpu
@pytest.mark.parametrize("shape", REAL_SHAPES, ids=lambda s: f"k{s.kernel} {s.height} {s.channels}-{s.outputs}")
def test_real_sizes(shape: ConvShape, dtype: torch.dtype, ragged: tuple[int, ...], device: str) -> None:
    run = Pass(Case(shape, (shape.kernel - 1) // 2 if shape.padding == "same" else 0, rows=ragged), device, dtype)
    made, again, expected = run.made(), run.made(), run.expected()
    for name in ("y", "dx", "dw", "db"):
        assert torch.equal(made[name], again[name])
        rounded = ROUNDED if dtype == torch.bfloat16 and name in ("y", "dx") else 0.0
        # Gradients of weights are float32 sums of some 10,000 products.
        assert off(made[name], expected[name]) < rounded + 1e-4, name


def test_shapes_that_do_not_fit_are_refused() -> None:
    shape = ConvShape(height=4, width=4, channels=4, outputs=4, kernel=3)
    pack = Pack.of([0, 2])
    x, w = torch.zeros(2, 4, 6, 4), torch.zeros(1, 3, 3, 4, 4)
    with pytest.raises(ValueError, match=r"`source`.*must be contiguous images"):
        convolve(x[:, :, :-1], w, x, shape=shape, pack=pack)
    with pytest.raises(ValueError, match=r"`w`.*must be float32"):
        convolve(x, w[:, :, :, :3], x, shape=shape, pack=pack)
    with pytest.raises(ValueError, match="room for 2 images"):
        convolve(x[:1], w, x, shape=shape, pack=pack)
    with pytest.raises(ValueError, match="must be a multiple of the stride"):
        gradient_product(ConvShape(height=4, width=4, channels=4, outputs=4, kernel=3, stride=2), small(3, 16))
