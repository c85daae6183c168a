"""Compiled input tiles against the reference, element by element, in memory full of NaN."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy import ndimage

from wse.engine.nets.architecture import Input
from wse.engine.nets.module import _see
from wse.kernels.inputs import augment, gather
from wse.kernels.inputs.cpu import input_tiles
from wse.kernels.inputs.cpu_math import cos_sin, log

ADDRESS = {"seed": 2**63 + 5, "member": 3, "epoch": 2, "first_sample": 7}
SEES = [
    pytest.param(False, 0.0, 1.0, id="colour"),
    pytest.param(False, -1.0, 1.0, id="colour-signed"),
    pytest.param(True, 0.0, 1.0, id="grey"),
    pytest.param(True, -0.5, 2.0, id="grey-scaled"),
]


def make_images(kind):
    rng = np.random.default_rng(0)
    if kind == "noise":  # the hardest to resample: neighbours have nothing in common
        return rng.integers(0, 256, (90, 32, 32, 3), dtype=np.uint8)
    if kind == "extreme":  # black, white and pure colours: ties, clipping and empty chroma everywhere
        return (rng.integers(0, 2, (90, 32, 32, 3)) * 255).astype(np.uint8)
    blurred = ndimage.gaussian_filter(rng.random((90, 32, 32, 3)), (0, 2, 2, 0))
    smooth = ((blurred - blurred.min()) / np.ptp(blurred) * 255).astype(np.uint8)
    return np.repeat(smooth[..., :1], 3, axis=-1) if kind == "grey" else smooth


KINDS = ["noise", "extreme", "smooth", "grey"]


@pytest.fixture(scope="module")
def image_sets():
    return {kind: make_images(kind) for kind in KINDS}


def tiles(images, indices, V, *, grey=False, low=0.0, high=1.0, augmented=False, border=1, **address):
    """[batch, C, H, W], from tiles with borders and gaps of odd sizes; everything else must stay as it was."""
    address = ADDRESS | address
    batch, channels, (_, height, width, _) = len(indices), 1 if grey else 3, images.shape
    row = (width + 2 * border) * V + 3 * border
    channel = (height + 2 * border) * row + 5 * border
    group = channels * channel + 7 * border
    offset = border * (row + V)
    memory = np.full(offset + -(-batch // V) * group + 16, np.nan, np.float32)
    seed, rest = np.uint64(address["seed"]), [address[name] for name in ("member", "epoch", "first_sample")]
    input_tiles(images, indices, memory, offset, group, channel, row, V, grey, low, high, augmented, seed, *rest)
    lanes = np.arange(-(-batch // V) * V)
    places = (offset + lanes // V * group + lanes % V)[:, None, None, None]
    places = places + channel * np.arange(channels)[:, None, None] + row * np.arange(height)[:, None]
    places = places + V * np.arange(width)
    outside = np.ones(len(memory), bool)
    outside[places] = False
    assert np.isnan(memory[outside]).all()
    assert (memory[places[batch:]] == 0).all()
    return memory[places[:batch]]


def reference(images, indices, *, grey=False, low=0.0, high=1.0, augmented=False, **address):
    batch = gather(images, indices)
    if augmented:
        batch = augment(batch, **(ADDRESS | address))
    return _see(batch, Input(color="grey" if grey else "rgb", low=low, high=high)).numpy()


@pytest.mark.parametrize("V", [4, 8, 16])
@pytest.mark.parametrize("batch", [1, 5, 16, 33, 64])
@pytest.mark.parametrize(("grey", "low", "high"), SEES)
def test_plain_tiles_are_exact(image_sets, V, batch, grey, low, high):
    images = image_sets["noise"]
    indices = np.random.default_rng(batch).integers(0, len(images), batch)
    see = {"grey": grey, "low": low, "high": high}
    np.testing.assert_array_equal(tiles(images, indices, V, **see), reference(images, indices, **see))


@pytest.mark.parametrize("V", [4, 8, 16])
@pytest.mark.parametrize("batch", [1, 16, 33])
@pytest.mark.parametrize(("grey", "low", "high"), SEES)
def test_one_channel_of_images_without_colour_is_enough(image_sets, V, batch, grey, low, high):
    planes = np.ascontiguousarray(image_sets["noise"][..., :1])
    indices = np.random.default_rng(batch).integers(0, len(planes), batch)
    see = {"grey": grey, "low": low, "high": high}
    expected = reference(np.repeat(planes, 3, axis=-1), indices, **see)
    np.testing.assert_array_equal(tiles(planes, indices, V, **see), expected)


def test_every_byte_is_exact():
    images = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    got = tiles(images, np.array([0]), 4)
    expected = images.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("border", [0, 2])
@pytest.mark.parametrize("augmented", [False, True])
def test_other_sizes_and_borders(border, augmented):
    images = np.random.default_rng(3).integers(0, 256, (7, 16, 48, 3), dtype=np.uint8)
    indices = np.array([6, 0, 3, 3, 1])
    got = tiles(images, indices, 8, border=border, augmented=augmented)
    atol = 1e-4 if augmented else 0
    np.testing.assert_allclose(got, reference(images, indices, augmented=augmented), rtol=0, atol=atol)


@pytest.mark.parametrize("V", [4, 8, 16])
@pytest.mark.parametrize("batch", [1, 5, 16, 33, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_augmented_tiles(image_sets, kind, V, batch):
    images = image_sets[kind]
    indices = np.random.default_rng(batch).integers(0, len(images), batch)
    error = np.abs(tiles(images, indices, V, augmented=True) - reference(images, indices, augmented=True))
    assert error.mean() < 1e-6
    assert error.max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("grey", "low", "high"), SEES)
def test_augmented_images_as_they_are_seen(image_sets, kind, grey, low, high):
    images, indices = image_sets[kind], np.arange(80)
    see = {"grey": grey, "low": low, "high": high, "augmented": True}
    for epoch in (1, 2, 3):
        got = tiles(images, indices, 16, **see, epoch=epoch)
        error = np.abs(got - reference(images, indices, **see, epoch=epoch)) / (high - low)
        assert error.mean() < 1e-6
        assert error.max() < 1e-4


@pytest.mark.parametrize("kind", ["smooth", "grey"])
@pytest.mark.parametrize("V", [4, 8, 16])
@pytest.mark.parametrize(("first", "stop"), [(0, 1), (5, 6), (1, 4), (10, 27), (0, 33), (31, 64)])
def test_company_does_not_matter(image_sets, kind, V, first, stop):
    """The same bits in any split of a batch and with any number of lanes."""
    images = image_sets[kind]
    indices = np.random.default_rng(1).integers(0, len(images), 64)
    together = tiles(images, indices, 16, augmented=True)[first:stop]
    first_sample = ADDRESS["first_sample"] + first
    alone = tiles(images, indices[first:stop], V, augmented=True, first_sample=first_sample)
    np.testing.assert_array_equal(alone, together)


def test_grey_images_in_colourful_company(image_sets):
    """Whether an image is grey is its own affair, and a pixel of colour counts."""
    images = np.concatenate([image_sets["smooth"][:4], image_sets["grey"][:4]])
    for channel in range(3):
        images[5 + channel, 16, 16, channel] ^= 128
    indices = np.array([0, 4, 7, 1, 5, 6])
    error = np.abs(tiles(images, indices, 4, augmented=True) - reference(images, indices, augmented=True))
    assert error.max() < 1e-4


@pytest.mark.parametrize("changed", [{"seed": 6}, {"member": 4}, {"epoch": 3}, {"first_sample": 8}])
def test_every_part_of_the_address_matters(image_sets, changed):
    indices = np.zeros(8, np.int64)
    one = tiles(image_sets["smooth"], indices, 8, augmented=True)
    two = tiles(image_sets["smooth"], indices, 8, augmented=True, **changed)
    assert (np.abs(one - two).mean(axis=(1, 2, 3)) > 0.01).all()


def test_late_positions(image_sets):
    """Positions of noise blocks near the end of 32 bits."""
    images, indices, first = image_sets["smooth"], np.arange(3), 2**32 // 384 - 5
    got = tiles(images, indices, 4, augmented=True, first_sample=first)
    expected = reference(images, indices, augmented=True, first_sample=first)
    assert np.abs(got - expected).max() < 1e-4


def test_images_are_left_alone(image_sets):
    before = image_sets["smooth"].copy()
    tiles(image_sets["smooth"], np.arange(10), 8, augmented=True)
    np.testing.assert_array_equal(image_sets["smooth"], before)


@njit
def _elementary(logs, cosines, sines):
    for i in range(len(logs)):
        logs[i] = log(np.float32(i + 1) * np.float32(1 / 65536))
        cosines[i], sines[i] = cos_sin(np.int32(i))


def test_elementary_functions():
    """Every argument that noise can have."""
    logs, cosines, sines = np.full((3, 65536), np.nan, np.float32)
    _elementary(logs, cosines, sines)
    angles = 2 * np.pi * np.arange(65536) / 65536
    np.testing.assert_allclose(logs, np.log(np.arange(1, 65537) / 65536), rtol=1e-7, atol=0)
    np.testing.assert_allclose(cosines, np.cos(angles), rtol=0, atol=1e-7)
    np.testing.assert_allclose(sines, np.sin(angles), rtol=0, atol=1e-7)
