"""Which units a pack keeps against the reference's masks, bit for bit, in memory full of ones and zeros."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wse.kernels.packs import Pack
from wse.kernels.philox import drop_level, keep_mask
from wse.kernels.philox.triton_dropout import draw_keep, keep_layout

ADDRESSES = [(2**63 + 5, 7, 1, 0), (3, 2**31 + 9, 4, 12), (2**64 - 1, 0, 2**32 - 1, 3), (0, 1, 9, 1)]
RATES = [0.5, 0.1, 0.0, 0.999]


def as_signed(seed):
    return seed - 2**64 if seed >= 2**63 else seed


def drawn(device, offsets, *, layer, pixels, channels, stored, rates=RATES, before=0):
    """The bits of all channels that are stored, bool [R, pixels, C'], and of those behind them."""
    shape, dtype = keep_layout(pixels, stored)
    words = torch.full((offsets[-1] + 1, *shape), before, dtype=dtype, device=device)
    addresses = [
        (as_signed(seed), member, epoch, batch * (offsets[row + 1] - offsets[row]))
        for row, (seed, member, epoch, batch) in enumerate(ADDRESSES)
    ]
    draw_keep(
        words,
        Pack.of(offsets, device),
        addresses=torch.tensor(addresses, device=device),
        levels=torch.tensor([drop_level(rate) for rate in rates], dtype=torch.int32, device=device),
        layer=layer,
        channels=channels,
    )
    assert (words[-1] == before).all(), "an image of nobody"
    bits = np.unpackbits(words[:-1].cpu().view(torch.uint8).numpy(), axis=-1, bitorder="little").astype(bool)
    return bits.reshape(offsets[-1], pixels, -1)[:, :, :channels]


def expected(offsets, *, layer, pixels, channels, rates=RATES):
    made = []
    for row, ((seed, member, epoch, batch), rate) in enumerate(zip(ADDRESSES, rates, strict=True)):
        address = {"seed": seed, "member": member, "layer": layer, "epoch": epoch, "batch": batch}
        samples = offsets[row + 1] - offsets[row]
        made.append(keep_mask(rate, **address, samples=samples, units=pixels * channels))
    return np.concatenate(made).reshape(-1, pixels, channels)


@pytest.mark.parametrize("before", [0, -1])
@pytest.mark.parametrize(
    ("pixels", "channels", "stored"),
    [
        (1, 1, 8),
        (1, 10, 16),
        (1, 20, 24),
        (1, 64, 64),
        (1, 130, 136),
        (6, 5, 5),
        (9, 16, 16),
        (49, 4, 4),
        (70, 24, 24),
    ],
    ids=str,
)
@pytest.mark.parametrize("offsets", [[0, 5, 38, 38, 55], [0, 16, 17, 20, 21]], ids=str)
def test_masks_are_the_references(device, offsets, pixels, channels, stored, before):
    layer = pixels % 2
    got = drawn(device, offsets, layer=layer, pixels=pixels, channels=channels, stored=stored, before=before)
    np.testing.assert_array_equal(got, expected(offsets, layer=layer, pixels=pixels, channels=channels))


def test_every_level(device):
    offsets = [0, 16, 16, 16, 16]
    for level in range(256):
        rates = [level / 256] * 4
        got = drawn(device, offsets, layer=0, pixels=1, channels=16, stored=16, rates=rates)
        np.testing.assert_array_equal(got, expected(offsets, layer=0, pixels=1, channels=16, rates=rates))


def test_layers_differ(device):
    one, other = (drawn(device, [0, 9, 9, 9, 9], layer=layer, pixels=4, channels=8, stored=8) for layer in (0, 1))
    assert (one != other).mean() > 0.3
