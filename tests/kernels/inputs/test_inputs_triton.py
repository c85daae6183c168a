"""The input tiles of a pack against the reference, element by element, in memory full of NaN."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from wse.engine.nets.architecture import Input
from wse.engine.nets.module import _see
from wse.kernels.inputs import augment, gather
from wse.kernels.inputs.triton import input_tiles
from wse.kernels.packs import Pack

from ..conftest import ROUNDED

ADDRESSES = [(2**63 + 5, 3, 2, 0), (7, 2**31 + 1, 2**32 - 1, 5), (1, 0, 1, 1)]
OFFSETS = [0, 2, 5, 6]
SEES = [
    pytest.param(False, 0.0, 1.0, id="colour"),
    pytest.param(False, -1.0, 1.0, id="colour-signed"),
    pytest.param(True, 0.0, 1.0, id="grey"),
    pytest.param(True, -0.5, 2.0, id="grey-scaled"),
]


def make_images(kind, shape=(32, 32)):
    rng = np.random.default_rng(0)
    if kind == "noise":  # the hardest to resample: neighbours have nothing in common
        return rng.integers(0, 256, (9, *shape, 3), dtype=np.uint8)
    if kind == "extreme":  # black, white and pure colours: ties, clipping and empty chroma everywhere
        return (rng.integers(0, 2, (9, *shape, 3)) * 255).astype(np.uint8)
    blurred = ndimage.gaussian_filter(rng.random((9, *shape, 3)), (0, 2, 2, 0))
    return ((blurred - blurred.min()) / np.ptp(blurred) * 255).astype(np.uint8)


def run(
    device,
    images,
    *,
    augments,
    margin=1,
    grey=False,
    low=0.0,
    high=1.0,
    indices=None,
    dtype=torch.float32,
    augment=True,
):
    """[R, H, W, 4] inside the margins, which must stay as they were."""
    indices = np.array([8, 0, 3, 3, 1, 5]) if indices is None else indices
    H, W = images.shape[1:3]
    values = torch.full((OFFSETS[-1] + 1, H, W + 2 * margin, 4), torch.nan, dtype=dtype, device=device)
    signed = [
        (seed - 2**64 if seed >= 2**63 else seed, member, epoch, batch * (OFFSETS[row + 1] - OFFSETS[row]))
        for row, (seed, member, epoch, batch) in enumerate(ADDRESSES)
    ]
    input_tiles(
        values,
        Pack.of(OFFSETS, device),
        images=torch.from_numpy(np.pad(images, ((0, 0),) * 3 + ((0, 1),), constant_values=255)).to(device),
        indices=torch.from_numpy(indices.astype(np.int32)).to(device),
        addresses=torch.tensor(signed, device=device),
        augments=torch.tensor(augments, dtype=torch.int32, device=device),
        margin=margin,
        grey=grey,
        low=low,
        high=high,
        augment=augment,
    )
    values = values.cpu()
    inside = slice(margin, W + margin)
    assert values[-1].isnan().all()
    outside = values[:-1].clone()
    outside[:, :, inside] = torch.nan
    assert outside.isnan().all()
    return values[:-1, :, inside], indices


def reference(images, indices, *, augments, grey=False, low=0.0, high=1.0):
    parts = []
    addressed = zip(pairwise(OFFSETS), ADDRESSES, augments, strict=True)
    for (first, stop), (seed, member, epoch, batch), is_augmented in addressed:
        part = gather(images, indices[first:stop])
        if is_augmented:
            address = {"seed": seed, "member": member, "epoch": epoch}
            part = augment(part, **address, first_sample=batch * (stop - first))
        parts.append(part)
    see = Input(color="grey" if grey else "rgb", low=low, high=high)
    return _see(torch.cat(parts), see).permute(0, 2, 3, 1)


@pytest.mark.parametrize("margin", [0, 1, 3])
@pytest.mark.parametrize(("grey", "low", "high"), SEES)
def test_plain_images(device, grey, low, high, margin, dtype):
    images = make_images("noise")
    see = {"grey": grey, "low": low, "high": high}
    got, indices = run(device, images, augments=[0, 0, 0], margin=margin, dtype=dtype, augment=False, **see)
    real = 1 if grey else 3
    expected = reference(images, indices, augments=[0, 0, 0], **see)
    rounded = ROUNDED if dtype == torch.bfloat16 else 0.0
    torch.testing.assert_close(got[..., :real].float(), expected, rtol=rounded, atol=1e-6)
    assert (got[..., real:] == 0).all()


def test_every_byte_is_exact(device):
    images = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    got, _ = run(device, images, augments=[0, 0, 0], indices=np.zeros(6))
    expected = torch.from_numpy(images.astype(np.float32) / np.float32(255))
    assert torch.equal(got[0, ..., :3], expected[0])


@pytest.mark.parametrize("kind", ["noise", "extreme", "smooth"])
@pytest.mark.parametrize(("grey", "low", "high"), SEES)
def test_augmented_images(device, kind, grey, low, high):
    images = make_images(kind)
    see = {"grey": grey, "low": low, "high": high}
    got, indices = run(device, images, augments=[1, 0, 1], **see)
    real = 1 if grey else 3
    error = (got[..., :real] - reference(images, indices, augments=[1, 0, 1], **see)).abs() / (high - low)
    assert error.mean() < 1e-6
    assert error.max() < 1e-4
    assert (got[..., real:] == 0).all()


@pytest.mark.parametrize("shape", [(8, 8), (16, 24), (5, 8)], ids=str)
def test_other_sizes(device, shape):
    images = make_images("noise", shape)
    got, indices = run(device, images, augments=[1, 1, 0])
    error = (got[..., :3] - reference(images, indices, augments=[1, 1, 0])).abs()
    assert error.max() < 1e-4
