"""Batches as a CPU backend reads them, V images side by side in lanes, compiled by numba.

Pixel (c, y, x) of image s = g * V + lane of a batch is value
``offset + g * group_stride + c * channel_stride + y * row_stride + x * V + lane`` of the tiles. What surrounds the
images there (the border that a convolution pads with) belongs to the caller and is left alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import float32, njit

from .cpu_augment import augment_image, new_scratch
from .cpu_lanes import colour_row_to_lanes, plane_row_to_lanes
from .reference import LUMA

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Tiles = npt.NDArray[np.float32]
Layout = tuple[int, int, int, int, int]  # offset, group stride, channel stride, row stride, V

_RED, _GREEN, _BLUE = (np.float32(weight) for weight in LUMA)

# 1/255 in two parts: the product of a byte and the first, of 16 bits, is exact, so that both products together
# round to what a division gives, at a third of its price.
_255TH = np.float32(round(2**23 / 255) / 2**23)
_REST_OF_255TH = np.float32(1 / 255 - float(_255TH))


@njit(nogil=True, error_model="numpy")
def input_tiles(
    images: Images,
    indices: Indices,
    tiles: Tiles,
    offset: int,
    group_stride: int,
    channel_stride: int,
    row_stride: int,
    V: int,
    grey: bool,
    low: float,
    high: float,
    augmented: bool,
    seed: int,
    member: int,
    epoch: int,
    first_sample: int,
) -> None:
    """The images of a batch, gathered, augmented if asked, and as an architecture's input sees them.

    Un-augmented values equal the reference's bit for bit. Augmented ones differ from it by what float32 rounds:
    less than 1e-6 on average, less than 1e-4 anywhere. They are the same bits in whatever batch and lane an image
    stands.

    Args:
        images: uint8 [n, H, W, 3], W a multiple of 16; or, not to be augmented, [n, H, W, 1] where all three
            channels are equal, which takes a third of the time.
        indices: int64 [batch], which images.
        tiles: float32, written where the images stand; lanes past the last image become 0.
        offset: where the first pixel of the first group stands, in values.
        group_stride: from a group of V images to the next, in values.
        channel_stride: from a channel to the next, in values.
        row_stride: from a row to the next, in values, at least W * V.
        V: images of a group: 4, 8 or 16.
        grey: one channel of luma instead of three.
        low: what black becomes.
        high: what white becomes.
        augmented: whether to augment.
        seed: the run's seed.
        member: member id.
        epoch: epoch, from 1.
        first_sample: position of the first image in the epoch.
    """
    layout = (offset, group_stride, channel_stride, row_stride, V)
    black, span = float32(low), float32(high - low)
    if augmented:
        address = (seed, member, epoch, first_sample)
        _augmented_tiles(images, indices, tiles, layout, grey, black, span, address)
    else:
        _plain_tiles(images, indices, tiles, layout, grey, black, span)
    _clear_unused_lanes(tiles, layout, len(indices), 1 if grey else 3, images.shape[1], images.shape[2])


@njit(nogil=True, error_model="numpy")
def _plain_tiles(
    images: Images,
    indices: Indices,
    tiles: Tiles,
    layout: Layout,
    grey: bool,
    black: np.float32,
    span: np.float32,
) -> None:
    offset, group_stride, channel_stride, row_stride, V = layout
    _, height, width, channels = images.shape
    size = width * V
    row_bytes = np.empty(channels * size, np.uint8)
    last = channels - 1  # 2, or 0 where one channel stands for all three
    red, green, blue = row_bytes[:size], row_bytes[last // 2 * size :][:size], row_bytes[last * size :]
    beginnings = np.empty(V, np.int64)
    for first in range(0, len(indices), V):
        for lane in range(V):  # unused lanes repeat the last image
            beginnings[lane] = indices[min(first + lane, len(indices) - 1)] * (height * width * channels)
        for y in range(height):
            if channels == 1:
                plane_row_to_lanes(row_bytes, 0, images, beginnings, y * width, width, V)
            else:
                colour_row_to_lanes(row_bytes, images, beginnings, y, V)
            start = offset + first // V * group_stride + y * row_stride
            if grey:
                out = tiles[start : start + size]
                for i in range(size):
                    luma = _RED * _unit(red[i]) + _GREEN * _unit(green[i]) + _BLUE * _unit(blue[i])
                    out[i] = black + span * luma
            else:
                for channel in range(3):
                    row = row_bytes[min(channel, last) * size :][:size]
                    out = tiles[start + channel * channel_stride : start + channel * channel_stride + size]
                    for i in range(size):
                        out[i] = black + span * _unit(row[i])


@njit(nogil=True, error_model="numpy")
def _unit(byte: np.uint8) -> np.float32:
    """``byte / 255`` in float32, bit for bit."""
    return float32(byte) * _255TH + float32(byte) * _REST_OF_255TH


@njit(nogil=True, error_model="numpy")
def _augmented_tiles(
    images: Images,
    indices: Indices,
    tiles: Tiles,
    layout: Layout,
    grey: bool,
    black: np.float32,
    span: np.float32,
    address: tuple[int, int, int, int],
) -> None:
    """Images are augmented one by one, pixels in lanes, and transposed when there are V of them."""
    offset, group_stride, channel_stride, row_stride, V = layout
    seed, member, epoch, first_sample = address
    _, height, width, _ = images.shape
    scratch = new_scratch(height, width)
    channels = 1 if grey else 3
    planes = np.empty((V, channels, height * width), np.float32)
    beginnings = np.arange(V) * (channels * height * width)
    for first in range(0, len(indices), V):
        for lane in range(min(V, len(indices) - first)):
            image, sample = images[indices[first + lane]], first_sample + first + lane
            augment_image(planes[lane], image, scratch, seed, member, epoch, sample)
            out = planes[lane].reshape(-1)
            for i in range(len(out)):
                out[i] = black + span * out[i]
        for channel in range(channels):
            for y in range(height):
                start = offset + first // V * group_stride + channel * channel_stride + y * row_stride
                plane_row_to_lanes(tiles, start, planes, beginnings, (channel * height + y) * width, width, V)


@njit(nogil=True, error_model="numpy")
def _clear_unused_lanes(tiles: Tiles, layout: Layout, batch: int, channels: int, height: int, width: int) -> None:
    offset, group_stride, channel_stride, row_stride, V = layout
    used = batch % V
    if used == 0:
        return
    for channel in range(channels):
        for y in range(height):
            start = offset + batch // V * group_stride + channel * channel_stride + y * row_stride
            for x in range(width):
                tiles[start + x * V + used : start + (x + 1) * V] = 0
