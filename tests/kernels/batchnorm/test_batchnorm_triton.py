"""Normalisation, activation and pooling of ragged packs against float64 PyTorch, in memory full of NaN."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from wse.kernels.activation import ACTIVATION_CODES
from wse.kernels.batchnorm import reference
from wse.kernels.batchnorm.constants import DECAY
from wse.kernels.batchnorm.moments import Moments
from wse.kernels.batchnorm.triton import (
    Statistics,
    activated_moments,
    batch_statistics,
    moving_statistics,
    normalise,
)
from wse.kernels.batchnorm.triton_gradient import normalise_gradient
from wse.kernels.packs import Pack
from wse.kernels.philox.triton_dropout import Keep, keep_layout

from ..conftest import ROUNDED, off

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN and infinity in the interpreter's numpy

ALL = tuple(ACTIVATION_CODES)


@dataclass(frozen=True)
class Case:
    """Images or features of members with one activation each."""

    height: int
    width: int
    channels: int
    stored: int
    rows: tuple[int, ...]
    activations: tuple[str, ...]
    pool: int = 1
    norm: bool = True
    activation_first: bool = False
    mean: float = 1.0
    drop: bool = False


CASES = {
    "pooled": Case(4, 6, 4, 4, (0, 3, 3, 4, 6, 7, 8, 9), ALL, pool=2, drop=True),
    "pooled, cut off": Case(5, 3, 12, 12, (0, 2, 2, 3), ("elu", "relu", "gelu"), pool=2, drop=True),
    "pooled, gelu": Case(6, 6, 6, 6, (0, 2, 4), ("gelu", "gelu"), pool=2, mean=-0.5),
    "pooled, stored wider": Case(2, 4, 6, 8, (0, 2, 3), ("sigmoid", "elu"), pool=2, drop=True),
    "pooled by 3": Case(7, 6, 5, 5, (0, 2, 3), ("tanh", "leaky_relu"), pool=3),
    "not pooled": Case(3, 3, 8, 8, (0, 2, 2, 3, 4, 5, 6, 7), ALL),
    "far from 0": Case(4, 4, 4, 4, (0, 8), ("sigmoid",), mean=300.0),
    "features": Case(1, 1, 10, 16, (0, 5, 5, 9, 14, 15, 20, 37), ALL, activation_first=True, drop=True),
    # 18 tiles, more than are added at a time
    "many features": Case(1, 1, 72, 72, (0, 1100, 1102), ("gelu", "relu"), activation_first=True, drop=True),
    "plain, pooled": Case(4, 4, 6, 6, (0, 2, 2, 3, 4, 5, 6, 8), ALL, pool=2, norm=False, mean=0.0),
    "plain, cut off": Case(3, 5, 4, 4, (0, 2, 3), ("gelu", "tanh"), pool=2, norm=False, mean=0.0, drop=True),
    "plain features": Case(1, 1, 10, 10, (0, 2, 2, 3, 4, 5, 6, 8), ALL, norm=False, activation_first=True),
    "dropped": Case(3, 3, 16, 16, (0, 2, 2, 9), ("relu", "tanh", "elu"), norm=False, drop=True),
    "dropped, wide": Case(1, 3, 24, 24, (0, 2, 3), ("relu", "tanh"), drop=True),
}


def part(members: int, channels: int, fill: Tensor, device: str) -> Tensor:
    """A part [P, C] of longer vectors that are NaN elsewhere."""
    whole = torch.full((members, -(-channels // 16) * 16 + 32), torch.nan, device=device)
    whole[:, 16 : 16 + channels] = fill.to(whole)
    return whole[:, 16 : 16 + channels]


class Pass:
    """Inputs of a case, what float64 makes of them, and what the kernels do."""

    def __init__(self, case: Case, device: str, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(1)
        members, images, channels = len(case.rows) - 1, case.rows[-1], case.channels
        self.case, self.device, self.dtype = case, device, dtype
        self.pack = Pack.of(case.rows, device)
        self.codes = torch.tensor([ACTIVATION_CODES[name] for name in case.activations], dtype=torch.int32)
        self.codes = self.codes.to(device)
        y = torch.randn(images, case.height, case.width, channels, device=device) + case.mean
        y[..., -1] = y[..., -1].round()  # so that some pixels of a window are equally large
        out = (images, case.height // case.pool, case.width // case.pool, channels)
        dout = torch.randn(out, device=device)
        self.y, self.dout = y.to(dtype).float(), dout.to(dtype).float()
        gamma = torch.randn(members, channels)
        gamma[:, 0] = 0  # everything in a window is equally large
        self.gamma = part(members, channels, gamma, device)
        self.beta = part(members, channels, torch.randn(members, channels), device)
        self.keep = self.keep_of(torch.rand(out) < 0.6) if case.drop else None
        self.moving = [part(members, channels, torch.rand(members, channels), device) for _ in range(2)]
        self.before = [average.clone().double() for average in self.moving]

    def keep_of(self, mask_RHWC: Tensor) -> Keep:
        """That as words, and scales that tell members apart."""
        (pixels, count), word = keep_layout(mask_RHWC[0, ..., 0].numel(), self.case.stored)
        bits = np.zeros((len(mask_RHWC), pixels, count * word.itemsize * 8), dtype=bool)
        bits[..., : self.case.channels] = mask_RHWC.flatten(1, 2)
        words = torch.from_numpy(np.packbits(bits, axis=-1, bitorder="little")).view(word)
        scales = 1.25 + torch.arange(len(self.case.rows) - 1)
        counts = torch.tensor(self.case.rows).diff()
        self.factors = mask_RHWC.to(self.device) * scales.repeat_interleave(counts)[:, None, None, None].to(
            self.device
        )
        return Keep(words=words.to(self.device), scales=scales.to(self.device))

    def expected(self, dtype: torch.dtype = torch.float64, *, evaluation: bool = False) -> dict[str, Tensor]:
        case = self.case
        y, gamma, beta = (
            values.to(dtype, copy=True).requires_grad_() for values in (self.y, self.gamma, self.beta)
        )
        out = reference.normalise(
            y,
            case.rows,
            case.activations,
            gamma_PC=gamma if case.norm else None,
            beta_PC=beta if case.norm else None,
            moving_PC=(self.before[0], self.before[1]) if evaluation else None,
            pool=case.pool,
            activation_first=case.activation_first,
        )
        if case.drop and not evaluation:
            out = out * self.factors
        leaves = (y, gamma, beta) if case.norm else (y,)
        gradients = torch.autograd.grad(out, leaves, self.dout.to(dtype))
        return {"out": out.detach(), **dict(zip(("dy", "dgamma", "dbeta"), gradients, strict=False))}

    def stored(self, values_RHWC: Tensor, *, margin: int = 0, fill: float = torch.nan) -> Tensor:
        """Those, with margins and channels that are only stored of ``fill``; features without pixels."""
        images, height, width, channels = values_RHWC.shape
        whole = torch.full((images, height, width + 2 * margin, self.case.stored), fill, device=self.device)
        whole[:, :, margin : margin + width, :channels] = values_RHWC
        whole = whole.to(self.dtype)
        return whole[:, 0, 0] if self.case.activation_first else whole

    def statistics(self, y: Tensor, gelu: bool) -> Statistics:
        """Those of the batch, from moments as a convolution or features leave them."""
        case = self.case
        if case.activation_first:
            moments = activated_moments(y, channels=case.channels, codes=self.codes, pack=self.pack, gelu=gelu)
        else:
            moments = moments_of(y[..., : case.channels].float(), self.pack, copies=2)
        return batch_statistics(moments, *self.moving)

    def made(self, y: Tensor | None = None, dout: Tensor | None = None, *, gelu: bool = True) -> dict[str, Tensor]:
        """What the kernels write, in memory full of NaN, with what they must not touch."""
        case, margin = self.case, 0 if self.case.activation_first else 1
        y_in = self.stored(self.y if y is None else y)
        dout_in = self.stored(self.dout if dout is None else dout, margin=margin)
        out = self.stored(torch.full_like(self.dout, torch.nan), margin=margin)
        dy = self.stored(torch.full_like(self.y, torch.nan), margin=2 * margin)
        members = len(case.rows) - 1
        nothing = torch.full((members, case.channels), torch.nan)
        dgamma, dbeta = (part(members, case.channels, nothing, self.device) for _ in range(2))
        norm = (
            {"statistics": self.statistics(y_in, gelu), "gamma": self.gamma, "beta": self.beta}
            if case.norm
            else {}
        )
        settings = {
            "codes": self.codes,
            "pack": self.pack,
            "pool": case.pool,
            "keep": self.keep,
            "gelu": gelu,
            **norm,
        }
        normalise(y_in, out, activation_first=case.activation_first, **settings)
        gradients = {"dgamma": dgamma, "dbeta": dbeta} if case.norm else {}
        normalise_gradient(y_in, dout_in, dy, activation_first=case.activation_first, **settings, **gradients)
        if margin:
            for border in (out[:, :, :1], out[:, :, -1:], dy[:, :, :2], dy[:, :, -2:]):
                assert border.isnan().all()  # nobody wrote there
            out, dy = out[:, :, 1:-1], dy[:, :, 2:-2]
        else:
            out, dy = out[:, None, None], dy[:, None, None]
        if case.norm:
            for rest in (out[..., case.channels :], dy[..., case.channels :]):
                assert (rest == 0).all()
        return {"out": out[..., : case.channels], "dy": dy[..., : case.channels], **gradients}


def moments_of(y_RHWC: Tensor, pack: Pack, *, copies: int) -> Moments:
    """Moments such as a convolution leaves, of tiles of one image row."""
    images, height, width, channels = y_RHWC.shape
    tiles = pack.tiles(items_per_image=height, size=1)
    columns = 1 << (copies * channels - 1).bit_length()
    parts = torch.full((len(tiles), 3, columns), torch.nan, device=y_RHWC.device)
    lines = y_RHWC.reshape(images * height, width, channels)
    for copy in range(copies):
        values = lines[:, copy::copies]
        mean = values.mean(1)
        at = slice(copy * channels, (copy + 1) * channels)
        parts[: len(lines), 0, at] = values.shape[1]
        parts[: len(lines), 1, at] = mean
        parts[: len(lines), 2, at] = ((values - mean[:, None]) ** 2).sum(1)
    return Moments(parts=parts, first=tiles.first, copies=copies)


# A GPU divides and takes roots to about two units in the last place.
EXACT = 5e-6 if torch.cuda.is_available() else 1e-6


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_forward_and_gradients(case: Case, dtype: torch.dtype, device: str) -> None:
    run = Pass(case, device, dtype)
    made, expected, single = run.made(), run.expected(), run.expected(torch.float32)
    for name in made:
        # Few images with nearly one value, or values far from 0, are hard for float32: PyTorch's own error counts.
        rounded = ROUNDED if dtype == torch.bfloat16 and name in ("out", "dy") else 0.0
        assert off(made[name], expected[name]) < rounded + EXACT + 2 * off(single[name], expected[name]), name
    if not case.norm:
        return
    for member, (first, end) in enumerate(pairwise(case.rows)):
        mean, variance = run.before[0][member], run.before[1][member]
        if first < end:
            values = run.y[first:end].double()
            if case.activation_first:
                values = reference.ACTIVATION_FUNCTIONS[case.activations[member]](values)
            mean = DECAY * mean + (1 - DECAY) * values.mean((0, 1, 2))
            variance = DECAY * variance + (1 - DECAY) * values.var((0, 1, 2), unbiased=False)
        else:
            assert (made["dgamma"][member] == 0).all()
            assert (made["dbeta"][member] == 0).all()
        assert off(run.moving[0][member], mean) < EXACT
        assert off(run.moving[1][member], variance) < EXACT


@pytest.mark.parametrize("name", ["pooled", "pooled, cut off", "not pooled", "features", "plain, pooled"])
def test_where_no_member_has_gelu_it_makes_no_difference(name: str, device: str) -> None:
    case = replace(CASES[name], activations=tuple(a.replace("gelu", "elu") for a in CASES[name].activations))
    made, expected = Pass(case, device).made(gelu=False), Pass(case, device).made()
    for what in made:
        torch.testing.assert_close(made[what], expected[what], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["pooled, cut off", "features"])
def test_evaluation_uses_moving_averages(name: str, device: str) -> None:
    case = CASES[name]
    run = Pass(case, device)
    out = run.stored(torch.full_like(run.dout, torch.nan))
    normalise(
        run.stored(run.y), out, codes=run.codes, pack=run.pack, statistics=moving_statistics(*run.moving),
        gamma=run.gamma, beta=run.beta, pool=case.pool, activation_first=case.activation_first,
    )  # fmt: skip
    made = out.reshape(*run.dout.shape[:3], case.stored)[..., : case.channels]
    assert off(made, run.expected(evaluation=True)["out"]) < 2e-6


@pytest.mark.parametrize("name", ["pooled", "features", "plain, pooled"])
def test_neighbours_of_diverged_members_keep_their_bits(name: str, device: str) -> None:
    case = Case(**{**CASES[name].__dict__, "rows": (0, 2, 4, 6), "activations": ("elu", "relu", "gelu")})
    y, dout = Pass(case, device).y, Pass(case, device).dout
    alone = Pass(case, device)
    made = alone.made()
    for diverged in (y, dout):
        diverged[:2], diverged[4:] = torch.nan, torch.inf
    beside = Pass(case, device)
    spoilt = beside.made(y, dout)
    for what in ("out", "dy"):
        assert torch.equal(made[what][2:4], spoilt[what][2:4]), what
        assert spoilt[what][:2].isnan().any(), what
    assert spoilt["out"][:2].isnan().all()
    for what in set(made) - {"out", "dy"}:
        assert torch.equal(made[what][1], spoilt[what][1]), what
    for one, other in zip(alone.moving, beside.moving, strict=True):
        assert torch.equal(one[1], other[1])
        assert not case.norm or other[0].isnan().all()


@pytest.mark.parametrize("activation", ALL)
def test_one_nan_in_a_window_is_seen(activation: str, device: str) -> None:
    y = torch.randn(1, 2, 2, 4, device=device)
    codes = torch.tensor([ACTIVATION_CODES[activation]], dtype=torch.int32, device=device)
    for place in range(4):
        spoilt = y.clone()
        spoilt.view(4, 4)[place] = torch.nan
        out = torch.zeros(1, 1, 1, 4, device=device)
        normalise(spoilt, out, codes=codes, pack=Pack.of([0, 1], device), pool=2)
        assert out.isnan().all()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("size", "channels", "pool", "features", "norm"),
    [
        (32, 8, 2, False, True),
        (16, 24, 1, False, True),
        (8, 48, 2, False, True),
        (15, 16, 1, False, False),
        (1, 192, 1, True, True),
    ],
    ids=["32 pooled", "16", "8 pooled", "15 plain", "features"],
)
def test_real_sizes(
    size: int, channels: int, pool: int, features: bool, norm: bool, dtype: torch.dtype,
    ragged: tuple[int, ...], device: str,
) -> None:  # fmt: skip
    activations = tuple(ALL[(member + 1) % len(ALL)] for member in range(len(ragged) - 1))
    case = Case(size, size, channels, channels, ragged, activations, pool, norm, activation_first=features)
    run = Pass(case, device, dtype)
    if features:  # normalising two or three rows is too hard for any precision
        run.gamma[torch.tensor(ragged).diff().to(device) < 4] = 0
    made, expected = run.made(), run.expected()
    again = Pass(case, device, dtype)
    again.gamma.copy_(run.gamma)
    second = again.made()
    for name in made:
        assert torch.equal(made[name], second[name])
        rounded = ROUNDED if dtype == torch.bfloat16 and name in ("out", "dy") else 0.0
        assert off(made[name], expected[name]) < rounded + 1e-4, name


def test_what_does_not_fit_is_refused() -> None:
    pack, y, codes = Pack.of([0, 2]), torch.zeros(2, 4, 4, 4), torch.zeros(1, dtype=torch.int32)
    vector = torch.zeros(1, 4)
    statistics = Statistics(mean=vector, inverse_std=vector)
    with pytest.raises(ValueError, match=r"`out`.*of 2 x 2 pixels"):
        normalise(y, torch.zeros(2, 4, 4, 4), codes=codes, pack=pack, pool=2)
    with pytest.raises(ValueError, match="room for 2"):
        normalise(y[:1], y, codes=codes, pack=pack)
    with pytest.raises(ValueError, match="must be 1 where the activation comes first"):
        normalise(y, y, codes=codes, pack=pack, pool=2, activation_first=True)
    with pytest.raises(ValueError, match="need `gamma` and `beta`"):
        normalise(y, y, codes=codes, pack=pack, statistics=statistics)
    keep = Keep(words=torch.zeros(2, 4, 1, dtype=torch.int8), scales=torch.ones(1))
    with pytest.raises(ValueError, match=r"`keep.words` .* must have 1 words of 16 pixels"):
        normalise(y, y, codes=codes, pack=pack, keep=keep)
    with pytest.raises(ValueError, match="need `dgamma` and `dbeta`"):
        normalise_gradient(y, y, y, codes=codes, pack=pack, statistics=statistics, gamma=vector, beta=vector)
