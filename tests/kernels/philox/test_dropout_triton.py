"""Dropout of a pack against the reference's masks: the same units, the scaled values, nothing else touched."""

from __future__ import annotations

import pytest
import torch

from wse.kernels.packs import Pack
from wse.kernels.philox import drop_level, keep_mask, keep_probability
from wse.kernels.philox.triton_dropout import dropout

from ..conftest import ROUNDED

ADDRESSES = [(2**63 + 5, 7, 1, 0), (3, 2**31 + 9, 4, 12), (2**64 - 1, 0, 2**32 - 1, 3), (0, 1, 9, 1)]
RATES = [0.5, 0.1, 0.0, 0.999]


def as_signed(seed):
    return seed - 2**64 if seed >= 2**63 else seed


def run(device, values, offsets, *, layer, margin, channels=None):
    pack = Pack.of(offsets, device)
    addresses = [
        (as_signed(seed), member, epoch, batch * (offsets[row + 1] - offsets[row]))
        for row, (seed, member, epoch, batch) in enumerate(ADDRESSES)
    ]
    values = values.clone().to(device)
    dropout(
        values,
        pack,
        addresses=torch.tensor(addresses, device=device),
        levels=torch.tensor([drop_level(rate) for rate in RATES], dtype=torch.int32, device=device),
        scales=torch.tensor([1 / keep_probability(rate) for rate in RATES], device=device),
        layer=layer,
        channels=channels or values.shape[-1],
        margin=margin,
    )
    return values.cpu()


def masks(offsets, units, layer):
    made = []
    for row, ((seed, member, epoch, batch), rate) in enumerate(zip(ADDRESSES, RATES, strict=True)):
        address = {"seed": seed, "member": member, "layer": layer, "epoch": epoch, "batch": batch}
        samples = offsets[row + 1] - offsets[row]
        keep = torch.from_numpy(keep_mask(rate, **address, samples=samples, units=units))
        made.append(keep / keep_probability(rate))
    return torch.cat(made).float()


@pytest.mark.parametrize("units", [1, 7, 20, 300])
@pytest.mark.parametrize("offsets", [[0, 5, 38, 38, 55], [0, 16, 17, 20, 21]], ids=str)
def test_vectors(device, offsets, units):
    values = torch.randn(offsets[-1], units)
    got = run(device, values, offsets, layer=1, margin=0)
    torch.testing.assert_close(got, values * masks(offsets, units, 1), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("shape", "margin"), [((3, 3, 2), 0), ((2, 3, 5), 2)], ids=str)
def test_images_keep_their_margins(device, shape, margin, dtype):
    offsets = [0, 3, 20, 22, 22]
    H, W, C = shape
    values = torch.randn(offsets[-1], H, W + 2 * margin, C).to(dtype)
    inside = slice(margin, W + margin)
    values[:, :, :margin] = values[:, :, W + margin :] = torch.nan
    got = run(device, values, offsets, layer=0, margin=margin)
    expected = values.float()
    expected[:, :, inside] *= masks(offsets, H * W * C, 0).view(-1, H, W, C)
    rounded = ROUNDED if dtype == torch.bfloat16 else 0.0
    torch.testing.assert_close(got.float(), expected, rtol=rounded + 1e-6, atol=0, equal_nan=True)


def test_channels_that_are_only_stored_are_left_alone(device):
    offsets = [0, 5, 9, 10, 20]
    values = torch.randn(20, 8)
    values[:, 5:] = torch.nan
    got = run(device, values, offsets, layer=0, margin=0, channels=5)
    assert got[:, 5:].isnan().all()
    torch.testing.assert_close(got[:, :5], values[:, :5] * masks(offsets, 5, 0), rtol=1e-6, atol=0)


def test_images_with_channels_that_are_only_stored(device):
    offsets, (H, W, C) = [0, 3, 5, 6, 6], (2, 3, 3)
    values = torch.randn(offsets[-1], H, W, C + 1)
    values[..., C:] = torch.nan
    got = run(device, values, offsets, layer=0, margin=0, channels=C)
    assert got[..., C:].isnan().all()
    expected = values[..., :C] * masks(offsets, H * W * C, 0).view(-1, H, W, C)
    torch.testing.assert_close(got[..., :C], expected, rtol=1e-6, atol=0)


def test_a_damaged_member_leaves_the_others_unchanged(device):
    offsets = [0, 5, 9, 10, 20]
    values = torch.randn(20, 6)
    healthy = run(device, values, offsets, layer=0, margin=0)
    values[5:9] = torch.nan
    damaged = run(device, values, offsets, layer=0, margin=0)
    assert torch.equal(damaged[:5], healthy[:5])
    assert torch.equal(damaged[9:], healthy[9:])
