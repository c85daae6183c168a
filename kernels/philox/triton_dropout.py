"""Which units a pack's members keep, for Triton, bit for bit those of ``dropout.py``.

Masks are drawn once a step, a bit a unit, and read by the kernels that make values and by those that pass their
gradients on. R images, P members; values have C' channels, of which C are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..packs import Pack
from ..triton_layout import power_of_two
from ..triton_variant import Variant
from .dropout import SAMPLES_PER_BLOCK
from .reference import Stream
from .triton import read_address

_MOST_BYTES = 128  # of a program, a thread each
_WORDS = {8: torch.int8, 16: torch.int16, 32: torch.int32, 64: torch.int64}
_SAMPLES = tl.constexpr(SAMPLES_PER_BLOCK)
# Of each byte of a word: the lowest bit, all but the highest, the highest, all.
_ONES, _LOW, _HIGHEST = tl.constexpr(0x01010101), tl.constexpr(0x7F7F7F7F), tl.constexpr(0x80808080)
_ALL = tl.constexpr(0xFFFFFFFF)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Keep:
    """Which units stay, and what they are multiplied by.

    Attributes:
        words: bits of a pixel's channels, the lowest first, as many a word as kernels have channels a program:
            int8, int16, int32 or int64 [R, pixels, words].
        scales: float32 [P], 1 / ``keep_probability`` of each member's rate.
    """

    words: Tensor
    scales: Tensor


def keep_layout(pixels: int, stored: int) -> tuple[tuple[int, int], torch.dtype]:
    """Shape and dtype of an image's words, for values [pixels, stored]."""
    bits = power_of_two(min(stored, 64), at_least=8)
    return (pixels, -(-stored // bits)), _WORDS[bits]


@triton.jit
def _kept(draws, levels):
    """Of four bytes each: the highest bit says whether the byte is at least the level's."""
    low = (draws | _HIGHEST) - (levels & _LOW)
    return ((draws & (levels ^ _ALL)) | ((draws ^ levels ^ _ALL) & low)) & _HIGHEST


@triton.jit
def keep_kernel(
    bytes_ptr, tiles_ptr, row_offsets_ptr, addresses_ptr, levels_ptr, stream,
    PIXELS: tl.constexpr, C: tl.constexpr, BYTES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some bytes of the sixteen images that share random words: eight channels of a pixel are a byte of each."""
    tile = tiles_ptr + tl.program_id(0) * 3
    member, first, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    if first == end:
        return
    level = tl.load(levels_ptr + member).to(tl.uint32)
    begin, stop = tl.load(row_offsets_ptr + member), tl.load(row_offsets_ptr + member + 1)
    seed, identity, epoch, first_place = read_address(addresses_ptr, member)
    samples_of_batch = (stop - begin).to(tl.uint32)
    blocks = (samples_of_batch + _SAMPLES - 1) // _SAMPLES
    block = first_place // samples_of_batch * blocks + ((first - begin) // _SAMPLES).to(tl.uint32)

    byte = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    unit = (byte // BYTES * C + byte % BYTES * 8).to(tl.uint32)
    none = unit * 0
    k0, k1, k2, k3 = none, none, none, none
    if level > 0:
        levels = level * _ONES
        for channel in tl.static_range(8):
            position = block * (PIXELS * C) + unit + channel
            w0, w1, w2, w3 = tl.philox(seed, position, none + epoch, none + identity, none + stream.to(tl.uint32))
            k0 |= _kept(w0, levels) >> (7 - channel)
            k1 |= _kept(w1, levels) >> (7 - channel)
            k2 |= _kept(w2, levels) >> (7 - channel)
            k3 |= _kept(w3, levels) >> (7 - channel)
    else:
        k0, k1, k2, k3 = none + _ALL, none + _ALL, none + _ALL, none + _ALL
    at = bytes_ptr + first.to(tl.int64) * (PIXELS * BYTES) + byte
    samples = tl.where(byte < PIXELS * BYTES, end - first, 0)
    for sample in tl.static_range(_SAMPLES):
        if sample < 4:
            word = k0
        elif sample < 8:
            word = k1
        elif sample < 12:
            word = k2
        else:
            word = k3
        kept = (word >> (sample % 4 * 8)).to(tl.uint8)
        tl.store(at + sample * (PIXELS * BYTES), kept, mask=sample < samples)


def draw_keep(words: Tensor, pack: Pack, *, addresses: Tensor, levels: Tensor, layer: int, channels: int) -> None:
    """Draw which units stay.

    Args:
        words: what is made, [R, pixels, words] as ``keep_layout`` says.
        pack: whose images they are.
        addresses: int64 [P, 4]: seed, member id, epoch, place of the batch's first image.
        levels: int32 [P], ``drop_level`` of each member's rate.
        layer: index among the network's dropout layers.
        channels: C. Bits of others mean nothing.
    """
    tiles = pack.tiles(items_per_image=1, size=SAMPLES_PER_BLOCK)
    _, pixels, count = words.shape
    constants = _constants(pixels, channels, count * words.element_size())
    block = constants["BLOCK"]
    keep_kernel[(len(tiles), triton.cdiv(pixels * constants["BYTES"], block))](
        words.view(torch.uint8), tiles.table, pack.row_offsets, addresses, levels, Stream.DROPOUT.indexed(layer),
        **constants, num_warps=block // 32,
    )  # fmt: skip


def _constants(pixels: int, channels: int, bytes_of_pixel: int) -> dict[str, int]:
    block = power_of_two(min(pixels * bytes_of_pixel, _MOST_BYTES), at_least=32)
    return {"PIXELS": pixels, "C": channels, "BYTES": bytes_of_pixel, "BLOCK": block}


def variants() -> Iterator[Variant]:
    """The hidden layers of the nws family, and the convolutions of the small-cnn family."""
    shapes = [(1, units) for units in sorted({width >> hidden for width in (64, 128, 192) for hidden in range(4)})]
    shapes += [(size, 16) for size in (15, 7, 3)]
    for size, channels in shapes:
        (pixels, words), dtype = keep_layout(size * size, channels)
        constants = _constants(pixels, channels, words * dtype.itemsize)
        yield Variant(
            kernel=keep_kernel,
            name=f"keep-{size}x{size}-{channels}",
            signature={
                "bytes_ptr": "*u8",
                "tiles_ptr": "*i32",
                "row_offsets_ptr": "*i32",
                "addresses_ptr": "*i64",
                "levels_ptr": "*i32",
                "stream": "i32",
            },
            constexprs=constants,
            num_warps=constants["BLOCK"] // 32,
        )
