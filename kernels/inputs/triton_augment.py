"""The augmentation of one image for Triton: the reference's steps, in float32, a program an image.

Pixels lie in tiles of [groups, 8], because three blocks of random words make the noise of eight pixels of three
channels. These functions are called from the input kernel. Angles are small, so their sines and cosines are short
polynomials, the same on every device.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from ..philox import Stream
from .reference import (
    BLOCKS_PER_IMAGE,
    BRIGHTNESS,
    CONTRAST,
    HUE_TURNS,
    NOISE_STD,
    ROTATION_DEGREES,
    SATURATION,
    SHEAR_DEGREES,
    TRANSLATION_PIXELS,
    ZOOM,
)

_AUGMENTATION, _NOISE = tl.constexpr(int(Stream.AUGMENTATION)), tl.constexpr(int(Stream.NOISE))
_BLOCKS_PER_IMAGE = tl.constexpr(BLOCKS_PER_IMAGE)
_TRANSLATION, _ZOOM = tl.constexpr(TRANSLATION_PIXELS), tl.constexpr(ZOOM)
_ROTATION, _SHEAR = tl.constexpr(math.radians(ROTATION_DEGREES)), tl.constexpr(math.radians(SHEAR_DEGREES))
_BRIGHTNESS, _HUE_SIXTHS = tl.constexpr(BRIGHTNESS), tl.constexpr(6 * HUE_TURNS)
_CONTRAST_LOW, _CONTRAST_SPAN = tl.constexpr(CONTRAST[0]), tl.constexpr(CONTRAST[1] - CONTRAST[0])
_SATURATION_LOW, _SATURATION_SPAN = tl.constexpr(SATURATION[0]), tl.constexpr(SATURATION[1] - SATURATION[0])
_NOISE_STD = tl.constexpr(NOISE_STD)
_RADIANS = tl.constexpr(2 * math.pi / 65536)


@triton.jit
def augmented(
    image_ptr, seed, identity, epoch, sample, H: tl.constexpr, W: tl.constexpr, GROUPS: tl.constexpr
):  # fmt: skip
    """(red, green, blue) of an augmented image, float32 in [0, 1].

    Args:
        image_ptr: int32 [H, W], red, green and blue in the bytes of a pixel, the lowest first.
        seed: int64.
        identity: uint32, the member's id.
        epoch: uint32.
        sample: uint32, position of the image in the epoch.
        H: rows.
        W: columns.
        GROUPS: of eight pixels, a power of two; pixel group * 8 + place is column (pixel mod W) of row
            (pixel div W).

    Returns:
        Three of [GROUPS, 8].
    """
    pixels = tl.arange(0, GROUPS)[:, None] * 8 + tl.arange(0, 8)[None, :]
    inside = pixels < H * W
    first = sample * _BLOCKS_PER_IMAGE
    d0, d1, d2, d3 = _uniforms(seed, first, epoch, identity)
    d4, d5, d6, d7 = _uniforms(seed, first + 1, epoch, identity)
    d8, d9, _, _ = _uniforms(seed, first + 2, epoch, identity)
    at, right, below, next_x, next_y = _sources(pixels, inside, d0, d1, d2, d3, d4, H, W)
    at = image_ptr + at
    upper_left, upper_right = tl.load(at), tl.load(at + next_x)
    lower_left, lower_right = tl.load(at + next_y), tl.load(at + next_x + next_y)
    red = _interpolated(upper_left, upper_right, lower_left, lower_right, right, below, 0)
    green = _interpolated(upper_left, upper_right, lower_left, lower_right, right, below, 1)
    blue = _interpolated(upper_left, upper_right, lower_left, lower_right, right, below, 2)
    red = _brightened(red, inside, d5, d6, H * W)
    green = _brightened(green, inside, d5, d6, H * W)
    blue = _brightened(blue, inside, d5, d6, H * W)
    red, green, blue = _recoloured(red, green, blue, d7, d8)
    sigma = d9 * _NOISE_STD
    groups = tl.arange(0, GROUPS)
    noise_red, noise_green, noise_blue = _noise(seed, sample, epoch, identity, groups, H * W * 3 // 8)
    red = _clipped(red + sigma * noise_red)
    green = _clipped(green + sigma * noise_green)
    blue = _clipped(blue + sigma * noise_blue)
    return red, green, blue


@triton.jit
def _uniforms(seed, position, epoch, identity):
    """The four uniforms of a block, rounded to float32 once, as scalars."""
    stream = position * 0 + _AUGMENTATION
    w0, w1, w2, w3 = tl.philox(seed, position, epoch, identity, stream)
    return _uniform(w0), _uniform(w1), _uniform(w2), _uniform(w3)


@triton.jit
def _uniform(word):
    return ((word.to(tl.float64) + 0.5) * 2.3283064365386963e-10).to(tl.float32)


@triton.jit
def _sin_cos(angle):
    """Sine and cosine of an angle of at most 15 degrees, within 1e-9."""
    square = angle * angle
    sine = angle * (1 + square * (-1 / 6 + square * (1 / 120 - square * (1 / 5040))))
    cosine = 1 + square * (-1 / 2 + square * (1 / 24 + square * (-1 / 720 + square * (1 / 40320))))
    return sine, cosine


@triton.jit
def _sources(pixels, inside, d0, d1, d2, d3, d4, H: tl.constexpr, W: tl.constexpr):
    """Where each pixel reads: the one above and left, how far past it, the steps to its neighbours."""
    shift_x, shift_y = (2 * d0 - 1) * (_TRANSLATION / (W / 2)), (2 * d1 - 1) * (_TRANSLATION / (W / 2))
    sine, cosine = _sin_cos((2 * d2 - 1) * _ROTATION)
    scale = 1 / (1 + (2 * d3 - 1) * _ZOOM)
    shear_sine, shear_cosine = _sin_cos((2 * d4 - 1) * _SHEAR)
    shear = shear_sine / shear_cosine
    xx, xy = scale * (cosine + shear * sine), scale * (shear * cosine - sine)
    yx, yy = scale * sine, scale * cosine
    # In half images from the centre, as grid_sample counts.
    x = ((pixels % W * 2 + 1).to(tl.float32) / W - 1) - shift_x
    y = ((pixels // W * 2 + 1).to(tl.float32) / H - 1) - shift_y
    source_x = ((xx * x + xy * y + 1) * W - 1) / 2
    source_y = ((yx * x + yy * y + 1) * H - 1) / 2
    source_x = tl.minimum(tl.maximum(source_x, 0.0), W - 1.0)
    source_y = tl.minimum(tl.maximum(source_y, 0.0), H - 1.0)
    cell_x, cell_y = source_x.to(tl.int32), source_y.to(tl.int32)
    at = tl.where(inside, cell_y * W + cell_x, 0)
    # What would be read past the border has a weight of 0.
    next_x, next_y = tl.where(cell_x < W - 1, 1, 0), tl.where(cell_y < H - 1, W, 0)
    return at, source_x - cell_x.to(tl.float32), source_y - cell_y.to(tl.float32), next_x, next_y


@triton.jit
def channel_of(pixels, channel: tl.constexpr):
    """A byte of words, float32."""
    return (pixels >> (8 * channel) & 0xFF).to(tl.float32)


@triton.jit
def _interpolated(upper_left, upper_right, lower_left, lower_right, right, below, channel: tl.constexpr):
    upper_left, upper_right = channel_of(upper_left, channel), channel_of(upper_right, channel)
    lower_left, lower_right = channel_of(lower_left, channel), channel_of(lower_right, channel)
    upper = upper_left + right * (upper_right - upper_left)
    lower = lower_left + right * (lower_right - lower_left)
    return (upper + below * (lower - upper)) * (1 / 255)


@triton.jit
def _brightened(values, inside, brightness, contrast, PIXELS: tl.constexpr):
    """Brightness, and contrast about the mean."""
    mean = tl.sum(tl.sum(tl.where(inside, values, 0.0), 1), 0) / PIXELS
    level = mean + (2 * brightness - 1) * _BRIGHTNESS
    return _clipped((values - mean) * (contrast * _CONTRAST_SPAN + _CONTRAST_LOW) + level)


@triton.jit
def _recoloured(red, green, blue, hue, saturation):
    """Add to the hue and multiply the saturation."""
    value = tl.maximum(tl.maximum(red, green), blue)
    spread = value - tl.minimum(tl.minimum(red, green), blue)
    safe = tl.where(spread > 0, spread, 1.0)
    # The first of equally bright channels counts as the brightest.
    blue_wins, green_wins = blue > tl.maximum(red, green), green > red
    difference = tl.where(blue_wins, red - green, tl.where(green_wins, blue - red, green - blue))
    angle = tl.where(blue_wins, 4.0, tl.where(green_wins, 2.0, 0.0))
    sixths = difference / safe + angle + (2 * hue - 1) * _HUE_SIXTHS
    chroma = tl.minimum(spread * (saturation * _SATURATION_SPAN + _SATURATION_LOW), value)
    red = value - chroma * _below_value(sixths + 5)
    green = value - chroma * _below_value(sixths + 3)
    blue = value - chroma * _below_value(sixths + 1)
    return red, green, blue


@triton.jit
def _below_value(place):
    """How far a channel is below the value, in units of chroma, at a place on the hexagon in sixths of a turn."""
    place = place - 6 * tl.floor(place * (1 / 6))
    return _clipped(tl.minimum(place, 4 - place))


@triton.jit
def _noise(seed, sample, epoch, identity, groups, BLOCKS: tl.constexpr):
    """The red, green and blue noise of eight pixels a group, each [groups, 8].

    The 24 values of a group, counted over pixels and channels, are those of twelve words, two a word.
    """
    position = sample * BLOCKS + groups.to(tl.uint32) * 3
    a0, a1, a2, a3, a4, a5, a6, a7 = _normals_of_block(seed, position, epoch, identity)
    b0, b1, b2, b3, b4, b5, b6, b7 = _normals_of_block(seed, position + 1, epoch, identity)
    c0, c1, c2, c3, c4, c5, c6, c7 = _normals_of_block(seed, position + 2, epoch, identity)
    red = _row_of_eight(a0, a3, a6, b1, b4, b7, c2, c5)
    green = _row_of_eight(a1, a4, a7, b2, b5, c0, c3, c6)
    blue = _row_of_eight(a2, a5, b0, b3, b6, c1, c4, c7)
    return red, green, blue


@triton.jit
def _row_of_eight(v0, v1, v2, v3, v4, v5, v6, v7):
    """[n, 8] of eight [n]. What is joined last changes fastest."""
    even = tl.join(tl.join(v0, v4), tl.join(v2, v6))
    odd = tl.join(tl.join(v1, v5), tl.join(v3, v7))
    return tl.reshape(tl.join(even, odd), (v0.shape[0], 8))


@triton.jit
def _normals_of_block(seed, position, epoch, identity):
    zero = position * 0
    w0, w1, w2, w3 = tl.philox(seed, position, zero + epoch, zero + identity, zero + _NOISE)
    n0, n1 = _normals(w0)
    n2, n3 = _normals(w1)
    n4, n5 = _normals(w2)
    n6, n7 = _normals(w3)
    return n0, n1, n2, n3, n4, n5, n6, n7


@triton.jit
def _normals(words):
    """The two normals that a word makes: the reference's ``normal_pairs``, with Cephes' polynomials.

    The library's sine keeps a table in a thread's memory for large angles, which there are none of.
    """
    radius = tl.sqrt(-2 * tl.log(((words >> 16).to(tl.int32) + 1).to(tl.float32) * (1 / 65536)))
    # The lower half counts 65536ths of a turn: quarters of a turn, and what is left of it.
    angle = (words & 0xFFFF).to(tl.int32)
    quarter = (angle + 8192) >> 14
    x = (angle - (quarter << 14)).to(tl.float32) * _RADIANS
    z = x * x
    sine = x + x * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4))
    cosine = 1 - z * 0.5 + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5))
    # A cosine is the sine of a quarter more.
    return radius * _turned(sine, cosine, quarter + 1), radius * _turned(sine, cosine, quarter)


@triton.jit
def _turned(sine, cosine, quarter):
    turned = tl.where(quarter % 2 == 0, sine, cosine)
    return tl.where(quarter % 4 < 2, turned, -turned)


@triton.jit
def _clipped(values):
    return tl.minimum(tl.maximum(values, 0.0), 1.0)
