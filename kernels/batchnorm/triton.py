"""Batch normalisation, activation and pooling of a pack on the GPU, forward.

Two orders occur: convolutions are normalised, activated and pooled, fully connected layers activated and then
normalised. Without normalisation, what is left of both is done by the same kernel.

Letters of shapes: R images of all members, H W pixels, M the margin left and right of every row of pixels, P
members, C channels, C' >= C of them stored, T tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..activation.triton import activate
from ..conv.shapes import Precision, forward_product, forward_tiling, known_shapes
from ..packs import Pack
from ..philox.triton_dropout import Keep
from ..triton_layout import check_part, power_of_two
from ..triton_variant import Variant
from .constants import DECAY, EPSILON
from .moments import Moments
from .triton_windows import channels_of, dropped, largest, windows_from
from .windows import WITH_GELU, Windows, known_windows

_TILES = 16  # of a member, added at a time


@triton.jit
def moments_kernel(
    y_ptr, code_ptr, parts_ptr, tile_ptr,
    CHANNELS: tl.constexpr, STORED: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    WITH_GELU: tl.constexpr,
):  # fmt: skip
    """Count, mean and sum of squares about it of one tile of activated rows."""
    tile, channel = tl.program_id(0), channels_of(STORED, BLOCK)
    member = tl.load(tile_ptr + 3 * tile)
    first, end = tl.load(tile_ptr + 3 * tile + 1), tl.load(tile_ptr + 3 * tile + 2)
    if first >= end:
        return
    row = first + tl.arange(0, ROWS)
    mask = (row < end)[:, None] & (channel < CHANNELS)[None, :]
    place = row.to(tl.int64)[:, None] * STORED + channel[None, :]
    number = tl.load(y_ptr + place, mask=mask, other=0.0).to(tl.float32)
    number = activate(number, tl.load(code_ptr + member), WITH_GELU)
    count = (end - first).to(tl.float32)
    mean = tl.sum(tl.where(mask, number, 0.0), 0) / count
    away = tl.where(mask, number - mean[None, :], 0.0)
    at = parts_ptr + tile.to(tl.int64) * (3 * COLUMNS) + channel
    tl.store(at, tl.zeros((BLOCK,), tl.float32) + count, mask=channel < COLUMNS)
    tl.store(at + COLUMNS, mean, mask=channel < COLUMNS)
    tl.store(at + 2 * COLUMNS, tl.sum(away * away, 0), mask=channel < COLUMNS)


@triton.jit
def statistics_kernel(
    parts_ptr, first_ptr, mean_ptr, inverse_std_ptr, moving_mean_ptr, moving_variance_ptr, mean_stride,
    variance_stride, epsilon, follow,
    CHANNELS: tl.constexpr, COPIES: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Put a member's tiles together, in order, and let its moving averages follow."""
    member, channel = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = channel < CHANNELS
    first, end = tl.load(first_ptr + member), tl.load(first_ptr + member + 1)
    count, total = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(first, end, TILES):
        tile = start + tl.arange(0, TILES)
        mask = (tile < end)[:, None] & there[None, :]
        for copy in tl.static_range(COPIES):
            at = parts_ptr + tile.to(tl.int64)[:, None] * (3 * COLUMNS) + (copy * CHANNELS + channel)[None, :]
            number = tl.load(at, mask=mask, other=0.0)
            count += tl.sum(number, 0)
            total += tl.sum(number * tl.load(at + COLUMNS, mask=mask, other=0.0), 0)
    mean = total / tl.maximum(count, 1.0)
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in range(first, end, TILES):
        tile = start + tl.arange(0, TILES)
        mask = (tile < end)[:, None] & there[None, :]
        for copy in tl.static_range(COPIES):
            at = parts_ptr + tile.to(tl.int64)[:, None] * (3 * COLUMNS) + (copy * CHANNELS + channel)[None, :]
            away = tl.load(at + COLUMNS, mask=mask, other=0.0) - mean[None, :]
            between = tl.load(at, mask=mask, other=0.0) * away * away
            squares += tl.sum(tl.load(at + 2 * COLUMNS, mask=mask, other=0.0) + between, 0)
    variance = squares / tl.maximum(count, 1.0)
    tl.store(mean_ptr + member * CHANNELS + channel, mean, mask=there)
    tl.store(inverse_std_ptr + member * CHANNELS + channel, 1.0 / tl.sqrt(variance + epsilon), mask=there)
    seen = there & (count > 0.0)  # without images, averages stay as they are
    at = moving_mean_ptr + member * mean_stride + channel
    before = tl.load(at, mask=there, other=0.0)
    tl.store(at, before + follow * (mean - before), mask=seen)
    at = moving_variance_ptr + member * variance_stride + channel
    before = tl.load(at, mask=there, other=0.0)
    tl.store(at, before + follow * (variance - before), mask=seen)


@triton.jit
def normalise_kernel(
    y_ptr, out_ptr, mean_ptr, inverse_std_ptr, gamma_ptr, beta_ptr, code_ptr, keep_ptr, keep_scale_ptr, tile_ptr,
    gamma_stride, beta_stride,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, STORED: tl.constexpr, POOL: tl.constexpr,
    OUT_MARGIN: tl.constexpr, NORM: tl.constexpr, ACTIVATION_FIRST: tl.constexpr, WITH_GELU: tl.constexpr,
    DROP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile of windows, ROWS at a time: normalised, activated, pooled (or activated, normalised), dropped."""
    tile, channel = tl.program_id(0), channels_of(STORED, BLOCK)
    member = tl.load(tile_ptr + 3 * tile).to(tl.int64)
    first, end = tl.load(tile_ptr + 3 * tile + 1), tl.load(tile_ptr + 3 * tile + 2)
    if first >= end:
        return
    OUT_PITCH: tl.constexpr = (WIDTH // POOL + 2 * OUT_MARGIN) * STORED
    code, there, keep_scale = tl.load(code_ptr + member), channel < CHANNELS, 1.0
    if DROP:
        keep_scale = tl.load(keep_scale_ptr + member)
    mean, scale, beta = 0.0, 1.0, 0.0
    if NORM:
        mean = tl.load(mean_ptr + member * CHANNELS + channel, mask=there, other=0.0)[None, :]
        scale = tl.load(inverse_std_ptr + member * CHANNELS + channel, mask=there, other=0.0)[None, :]
        scale *= tl.load(gamma_ptr + member * gamma_stride + channel, mask=there, other=0.0)[None, :]
        beta = tl.load(beta_ptr + member * beta_stride + channel, mask=there, other=0.0)[None, :]
    for start in range(first, end, ROWS):
        across, down, image, _, live = windows_from(start, end, HEIGHT, WIDTH, POOL, ROWS)
        mask = live[:, None] & there[None, :]
        row = (image * HEIGHT + down * POOL).to(tl.int64) * (WIDTH * STORED) + across * (POOL * STORED)
        at = row[:, None] + channel[None, :]
        if POOL > 1:
            value, _ = largest(y_ptr, at, mask, mean, scale, beta, code, WIDTH, STORED, POOL, NORM, WITH_GELU)
        else:
            value = tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32)
        if ACTIVATION_FIRST:
            value = activate(value, code, WITH_GELU)
        if NORM:
            value = (value - mean) * scale + beta
        if not ACTIVATION_FIRST:
            value = activate(value, code, WITH_GELU)
        out_line = image * (HEIGHT // POOL) + down
        if DROP:
            pixel = out_line * (WIDTH // POOL) + across
            value = dropped(value, keep_ptr, pixel, live, keep_scale, STORED, BLOCK)
        made = tl.where(there[None, :], value, 0.0).to(out_ptr.dtype.element_ty)
        at = out_line.to(tl.int64) * OUT_PITCH + (across + OUT_MARGIN) * STORED
        mask = live[:, None] & (channel < STORED)[None, :]
        tl.store(out_ptr + at[:, None] + channel[None, :], made, mask=mask)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Statistics:
    """What a pack is normalised by.

    Attributes:
        mean: float32 [P, C].
        inverse_std: 1 / sqrt(variance + epsilon), float32 [P, C].
    """

    mean: Tensor
    inverse_std: Tensor


def activated_moments(y: Tensor, *, channels: int, codes: Tensor, pack: Pack, gelu: bool = True) -> Moments:
    """The moments of activated features.

    Args:
        y: bfloat16 or float32 [R, C'].
        channels: C.
        codes: of the members' activations, int32 [P].
        pack: which rows belong to whom.
        gelu: whether a member may have GELU.

    Raises:
        ValueError: ``y`` is no such tensor.
    """
    windows = Windows.of(y, y, channels=channels, pool=1, images=pack.images)
    tiles = pack.tiles(items_per_image=windows.items, size=windows.rows)
    parts = torch.empty(len(tiles), 3, windows.columns, dtype=torch.float32, device=y.device)
    moments_kernel[(len(tiles), windows.blocks)](y, codes, parts, tiles.table, **_moments_constants(windows, gelu))
    return Moments(parts=parts, first=tiles.first, copies=1)


def batch_statistics(moments: Moments, moving_mean: Tensor, moving_variance: Tensor) -> Statistics:
    """A batch's statistics, from what its tiles left behind; the moving averages follow them.

    The moving variance averages the biased variance. The averages of a member without images stay as they are.

    Args:
        moments: of the values that are normalised.
        moving_mean: float32 [P, C], which may be a part of the members' vectors; changed.
        moving_variance: as ``moving_mean``.

    Raises:
        ValueError: the averages have another shape, dtype or memory layout.
    """
    members, channels = moving_mean.shape
    check_part("moving_mean", moving_mean, (members, channels))
    check_part("moving_variance", moving_variance, (members, channels))
    mean = torch.empty(members, channels, dtype=torch.float32, device=moving_mean.device)
    made = Statistics(mean=mean, inverse_std=torch.empty_like(mean))
    constants = _statistics_constants(channels, moments.copies, moments.parts.shape[2])
    statistics_kernel[(members, triton.cdiv(channels, constants["BLOCK"]))](
        moments.parts, moments.first, made.mean, made.inverse_std, moving_mean, moving_variance,
        moving_mean.stride(0), moving_variance.stride(0), EPSILON, 1 - DECAY, **constants,
    )  # fmt: skip
    return made


def moving_statistics(moving_mean: Tensor, moving_variance: Tensor) -> Statistics:
    """What evaluation normalises by, from the moving averages, float32 [P, C]."""
    return Statistics(mean=moving_mean.contiguous(), inverse_std=(moving_variance + EPSILON).rsqrt())


def normalise(
    y: Tensor, out: Tensor, *, codes: Tensor, pack: Pack, statistics: Statistics | None = None,
    gamma: Tensor | None = None, beta: Tensor | None = None, pool: int = 1, activation_first: bool = False,
    keep: Keep | None = None, gelu: bool = True,
) -> None:  # fmt: skip
    """Normalise, activate and pool, or activate and normalise; then drop units.

    Args:
        y: bfloat16 or float32 [R, H, W + 2 M, C'], or [R, C'].
        out: what is made, as ``y`` [R, H // pool, W // pool + 2 M', C'], or [R, C']; its margins are left as they
            are, channels that are only stored become 0.
        codes: of the members' activations, int32 [P].
        pack: which images belong to whom.
        statistics: what to normalise by; None leaves the normalisation out.
        gamma: scale, float32 [P, C], which may be a part of the members' vectors.
        beta: shift, as ``gamma``.
        pool: side of the windows whose largest value is kept; what does not fill a window is dropped.
        activation_first: whether the activation comes before the normalisation; nothing is pooled then.
        keep: which units of ``out`` stay; all if it is None.
        gelu: whether a member may have GELU.

    Raises:
        ValueError: tensors do not fit together.
    """
    if activation_first and pool > 1:
        raise ValueError(f"`pool` (={pool}) must be 1 where the activation comes first")
    mean, inverse_std, scale, shift, channels = parameters(y, statistics, gamma, beta, pack)
    windows = Windows.of(y, out, channels=channels, pool=pool, images=pack.images)
    tiles = pack.tiles(items_per_image=windows.items, size=windows.tile)
    words, scales = kept(keep, windows, mean)
    normalise_kernel[(len(tiles), windows.blocks)](
        y, out, mean, inverse_std, scale, shift, codes, words, scales, tiles.table, scale.stride(0),
        shift.stride(0), **_constants(windows, statistics is not None, activation_first, keep is not None, gelu),
    )  # fmt: skip


def parameters(
    y: Tensor, statistics: Statistics | None, gamma: Tensor | None, beta: Tensor | None, pack: Pack
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Mean, inverse deviation, scale, shift and C; without a normalisation, of something that is never read.

    Raises:
        ValueError: something is missing, or has another shape, dtype or memory layout.
    """
    if statistics is None:
        unread = y.new_empty(1, 1, dtype=torch.float32)
        return unread, unread, unread, unread, y.shape[-1]
    if gamma is None or beta is None:
        raise ValueError("`statistics` need `gamma` and `beta`")
    for name, part in (("gamma", gamma), ("beta", beta), ("mean", statistics.mean)):
        check_part(name, part, (pack.members, gamma.shape[1]))
    return statistics.mean, statistics.inverse_std, gamma, beta, gamma.shape[1]


def kept(keep: Keep | None, windows: Windows, unread: Tensor) -> tuple[Tensor, Tensor]:
    """Which units stay, and their scales; without dropout, something that is never read.

    Raises:
        ValueError: the words are not those of what comes out.
    """
    if keep is None:
        return unread, unread
    pixels = (windows.height // windows.pool) * (windows.width // windows.pool)
    if keep.words.shape[1:] != (pixels, windows.blocks) or 8 * keep.words.itemsize < windows.block:
        raise ValueError(
            f"`keep.words` ({list(keep.words.shape)}) must have {windows.blocks} words of {pixels} pixels"
        )
    return keep.words, keep.scales


def kept_signature(windows: Windows, drop: bool) -> dict[str, str]:
    """Of the two in a kernel that is compiled."""
    word = f"*i{max(8, windows.block)}" if drop else "*fp32"
    return {"keep_ptr": word, "keep_scale_ptr": "*fp32"}


def _moments_constants(windows: Windows, gelu: bool) -> dict[str, Any]:
    return {
        "CHANNELS": windows.channels,
        "STORED": windows.stored,
        "COLUMNS": windows.columns,
        "ROWS": windows.rows,
        "BLOCK": windows.block,
        "WITH_GELU": gelu,
    }


def _statistics_constants(channels: int, copies: int, columns: int) -> dict[str, Any]:
    return {
        "CHANNELS": channels,
        "COPIES": copies,
        "COLUMNS": columns,
        "TILES": _TILES,
        "BLOCK": power_of_two(min(channels, 64)),
    }


def _constants(windows: Windows, norm: bool, activation_first: bool, drop: bool, gelu: bool) -> dict[str, Any]:
    return {
        **windows.constants(),
        "OUT_MARGIN": windows.out_margin,
        "NORM": norm,
        "ACTIVATION_FIRST": activation_first,
        "DROP": drop,
        "WITH_GELU": gelu,
    }


def _normalise_variant(name: str, pointer: str, windows: Windows, constants: dict[str, Any]) -> Variant:
    what = "normalise" if constants["NORM"] else "activate"
    return Variant(
        kernel=normalise_kernel,
        name="-".join(
            [what, name, *["drop"] * constants["DROP"], *["gelu"] * constants["WITH_GELU"], pointer[1:]]
        ),
        signature={
            **dict.fromkeys(("y_ptr", "out_ptr"), pointer),
            **dict.fromkeys(("mean_ptr", "inverse_std_ptr", "gamma_ptr", "beta_ptr"), "*fp32"),
            **dict.fromkeys(("code_ptr", "tile_ptr"), "*i32"),
            **kept_signature(windows, constants["DROP"]),
            **dict.fromkeys(("gamma_stride", "beta_stride"), "i32"),
        },
        constexprs=constants,
        aligned=("gamma_stride", "beta_stride"),
    )


def variants() -> Iterator[Variant]:
    """Every form that the presets can ask for."""
    for (name, windows, may_drop), pointer in product(known_windows(), ("*bf16", "*fp32")):
        for norm, drop in product((False, True), (False, True)[: 1 + may_drop]):
            for gelu in (False, True)[: 1 + (windows.channels in WITH_GELU)]:
                constants = _constants(windows, norm, norm and windows.is_features, drop, gelu)
                yield _normalise_variant(name, pointer, windows, constants)
        if windows.is_features:
            yield Variant(
                kernel=moments_kernel,
                name=f"moments-{windows.channels}-{pointer[1:]}",
                signature={"y_ptr": pointer, "code_ptr": "*i32", "parts_ptr": "*fp32", "tile_ptr": "*i32"},
                constexprs=_moments_constants(windows, gelu=False),
            )
    sizes = {(windows.channels, 1, windows.columns) for _, windows, _ in known_windows() if windows.is_features}
    for shape, precision in product(known_shapes(), get_args(Precision)):
        made = forward_product(shape, forward_tiling(shape, precision))
        sizes.add((shape.outputs, made.tiling.pixels, made.columns))
    for channels, copies, columns in sorted(sizes):
        yield Variant(
            kernel=statistics_kernel,
            name=f"statistics-{channels}-{copies}-{columns}",
            signature={
                "parts_ptr": "*fp32",
                "first_ptr": "*i32",
                **dict.fromkeys(
                    ("mean_ptr", "inverse_std_ptr", "moving_mean_ptr", "moving_variance_ptr"), "*fp32"
                ),
                "mean_stride": "i32",
                "variance_stride": "i32",
                "epsilon": "fp32",
                "follow": "fp32",
            },
            constexprs=_statistics_constants(channels, copies, columns),
            aligned=("mean_stride", "variance_stride"),
        )
