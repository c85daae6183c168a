"""A transformer over weight tokens: it reads whole networks, of any architecture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .fitting import deep_estimator
from .spec import Making, ModelSpec
from .tokens import CHUNK, KINDS, MAX_DEPTH, SCALARS, TokenSource

WIDTH, HEADS, BLOCKS = 64, 4, 2
# Smaller values count as this much; it is about the rounding noise of a weight in float32.
TINY = 1e-8


class Block(nn.Module):
    """Attention and a perceptron, each added to a normalised input (Xiong et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x_BTC: Tensor, there_BT: Tensor) -> Tensor:
        """Tokens that are not there are not attended to."""
        batch, tokens, _ = x_BTC.shape
        projected = self.query_key_value(self.norm1(x_BTC)).view(batch, tokens, 3, HEADS, -1)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        mask = None if bool(there_BT.all()) else there_BT[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x_BTC = x_BTC + self.out(mixed.transpose(1, 2).reshape(batch, tokens, WIDTH))
        result: Tensor = x_BTC + self.perceptron(self.norm2(x_BTC))
        return result


class WeightTransformer(nn.Module):
    """Networks as tokens (see `TokenSource`) -> [B, outputs].

    Args:
        outputs: classes, or 1 for a number.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        # Apart, so that the few numbers of the summary are as loud as all values together.
        self.values, self.summary = nn.Linear(2 * CHUNK, WIDTH), nn.Linear(3, WIDTH)
        self.place = nn.Linear(SCALARS, WIDTH)
        self.codes = nn.ModuleList(
            nn.Embedding(size, WIDTH) for size in (len(KINDS), MAX_DEPTH + 1, MAX_DEPTH + 1)
        )
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Sequential(nn.Linear(3 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, outputs))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """The outputs."""
        there = inputs["counts"] > 0
        values, summary = encode(inputs["values"], inputs["counts"])
        x = self.values(values) + self.summary(summary) + self.place(inputs["scalars"])
        for table, code in zip(self.codes, inputs["codes"].unbind(dim=2), strict=True):
            x = x + table(code)
        for block in self.blocks:
            x = block(x, there)
        x = self.norm(x)
        absent = ~there[:, :, None]
        count = there.sum(dim=1)[:, None]
        mean = x.masked_fill(absent, 0).sum(dim=1) / count
        variance = (x - mean[:, None]).square().masked_fill(absent, 0).sum(dim=1) / count
        largest = x.masked_fill(absent, -torch.inf).amax(dim=1)
        result: Tensor = self.head(torch.cat([mean, (variance + TINY).sqrt(), largest], dim=1))
        return result


def encode(values_BTK: Tensor, counts_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Values at all scales.

    Returns:
        values [B, T, 2 K]: squashed in units of their token's scale, and as logarithms; 0 where there is none.
        summary [B, T, 3] of each token: the logarithm of its mean size, its mean and its root mean square in units
        of that size.
    """
    there = torch.arange(values_BTK.shape[2], device=values_BTK.device) < counts_BT[:, :, None]
    count = counts_BT.clamp(min=1)[:, :, None]
    size = values_BTK.abs()
    scale = (size.sum(dim=2, keepdim=True) / count + TINY).clamp(max=torch.finfo(size.dtype).max)
    relative = values_BTK / scale
    mean = relative.sum(dim=2, keepdim=True) / count
    square = (relative.square().sum(dim=2, keepdim=True) / count + TINY).sqrt()
    values = torch.cat([values_BTK / (scale + size), torch.where(there, _log(size), 0)], dim=2)
    return values, torch.cat([_log(scale), mean, square], dim=2)


def _log(sizes: Tensor) -> Tensor:
    """Logarithms, centred on the usual size of weights."""
    return (sizes + TINY).log() / 3 + 1.5


def _build(source: Any, outputs: int) -> WeightTransformer:
    return WeightTransformer(outputs)


def _make(making: Making) -> Any:
    epochs = 50
    return deep_estimator(making, _build, source=TokenSource, epochs=epochs, patience=epochs, weight_decay=1e-2)


SPECS = (
    ModelSpec(
        name="transformer",
        title="a transformer over pieces of all tensors",
        reads="networks",
        make=_make,
        deep=True,
    ),
)
