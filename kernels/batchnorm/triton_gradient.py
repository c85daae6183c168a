"""Batch normalisation, activation and pooling of a pack on the GPU, backward.

No place of a largest value is stored: both passes find it again. The first sums the gradients of scale and shift,
which the second needs to make the gradient of what was normalised. Letters of shapes are those of ``triton.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..activation.triton import activate, slope
from ..packs import Pack
from ..philox.triton_dropout import Keep
from ..triton_layout import check_part, power_of_two
from ..triton_variant import Variant
from .triton import Statistics, kept, kept_signature, parameters
from .triton_windows import channels_of, dropped, largest, windows_from
from .windows import WITH_GELU, Windows, known_windows

_TILES = 16  # of a member, added at a time


@triton.jit
def _incoming(
    y_ptr, dout_ptr, keep_ptr, at, out_at, pixel, live, mask, mean, scale, beta, code, keep_scale,
    WIDTH: tl.constexpr, STORED: tl.constexpr, POOL: tl.constexpr, NORM: tl.constexpr,
    ACTIVATION_FIRST: tl.constexpr, DROP: tl.constexpr, WITH_GELU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of each window: the gradient before activation, the pixel it goes to, and that one's value less the mean."""
    gradient = tl.load(dout_ptr + out_at, mask=mask, other=0.0).to(tl.float32)
    if DROP:
        gradient = dropped(gradient, keep_ptr, pixel, live, keep_scale, STORED, BLOCK)
    if POOL > 1:
        value, winner = largest(y_ptr, at, mask, mean, scale, beta, code, WIDTH, STORED, POOL, NORM, WITH_GELU)
    else:
        value, winner = tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32), tl.zeros(mask.shape, tl.int32)
    if ACTIVATION_FIRST:
        value = activate(value, code, WITH_GELU)
    centred = value - mean
    if not ACTIVATION_FIRST:
        gradient *= slope(centred * scale + beta, code, WITH_GELU)
    return gradient, winner, centred


@triton.jit
def sums_kernel(
    y_ptr, dout_ptr, parts_ptr, mean_ptr, inverse_std_ptr, gamma_ptr, beta_ptr, code_ptr, keep_ptr, keep_scale_ptr,
    tile_ptr, gamma_stride, beta_stride,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, STORED: tl.constexpr, POOL: tl.constexpr,
    OUT_MARGIN: tl.constexpr, ACTIVATION_FIRST: tl.constexpr, DROP: tl.constexpr, WITH_GELU: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile's sums, ROWS windows at a time, of the gradient, and of it times the standardised value."""
    tile, channel = tl.program_id(0), channels_of(STORED, BLOCK)
    member = tl.load(tile_ptr + 3 * tile).to(tl.int64)
    first, end = tl.load(tile_ptr + 3 * tile + 1), tl.load(tile_ptr + 3 * tile + 2)
    if first >= end:
        return
    OUT_PITCH: tl.constexpr = (WIDTH // POOL + 2 * OUT_MARGIN) * STORED
    code, there, keep_scale = tl.load(code_ptr + member), channel < CHANNELS, 1.0
    if DROP:
        keep_scale = tl.load(keep_scale_ptr + member)
    mean = tl.load(mean_ptr + member * CHANNELS + channel, mask=there, other=0.0)
    inverse_std = tl.load(inverse_std_ptr + member * CHANNELS + channel, mask=there, other=0.0)
    scale = inverse_std * tl.load(gamma_ptr + member * gamma_stride + channel, mask=there, other=0.0)
    beta = tl.load(beta_ptr + member * beta_stride + channel, mask=there, other=0.0)
    total, aligned = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(first, end, ROWS):
        across, down, image, _, live = windows_from(start, end, HEIGHT, WIDTH, POOL, ROWS)
        mask = live[:, None] & there[None, :]
        row = (image * HEIGHT + down * POOL).to(tl.int64) * (WIDTH * STORED) + across * (POOL * STORED)
        out_line = image * (HEIGHT // POOL) + down
        out_row = out_line.to(tl.int64) * OUT_PITCH + (across + OUT_MARGIN) * STORED
        gradient, _, centred = _incoming(
            y_ptr, dout_ptr, keep_ptr, row[:, None] + channel[None, :], out_row[:, None] + channel[None, :],
            out_line * (WIDTH // POOL) + across, live, mask, mean[None, :], scale[None, :], beta[None, :], code,
            keep_scale, WIDTH, STORED, POOL, True, ACTIVATION_FIRST, DROP, WITH_GELU, BLOCK,
        )  # fmt: skip
        total += gradient
        aligned += gradient * centred
    at = parts_ptr + (tile.to(tl.int64) * 2 * tl.num_programs(1) + tl.program_id(1)) * BLOCK + tl.arange(0, BLOCK)
    tl.store(at, tl.sum(total, 0))
    tl.store(at + tl.num_programs(1) * BLOCK, tl.sum(aligned, 0) * inverse_std)


@triton.jit
def total_kernel(
    parts_ptr, first_ptr, dgamma_ptr, dbeta_ptr, dgamma_stride, dbeta_stride,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add a member's tiles, in order."""
    member, channel = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = channel < CHANNELS
    first, end = tl.load(first_ptr + member), tl.load(first_ptr + member + 1)
    total, aligned = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(first, end, TILES):
        tile = start + tl.arange(0, TILES)
        mask = (tile < end)[:, None] & there[None, :]
        at = parts_ptr + tile.to(tl.int64)[:, None] * (2 * COLUMNS) + channel[None, :]
        total += tl.sum(tl.load(at, mask=mask, other=0.0), 0)
        aligned += tl.sum(tl.load(at + COLUMNS, mask=mask, other=0.0), 0)
    tl.store(dbeta_ptr + member * dbeta_stride + channel, total, mask=there)
    tl.store(dgamma_ptr + member * dgamma_stride + channel, aligned, mask=there)


@triton.jit
def gradient_kernel(
    y_ptr, dout_ptr, dy_ptr, mean_ptr, inverse_std_ptr, gamma_ptr, beta_ptr, dgamma_ptr, dbeta_ptr, code_ptr,
    keep_ptr, keep_scale_ptr, row_offset_ptr, tile_ptr, gamma_stride, beta_stride, dgamma_stride, dbeta_stride,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, STORED: tl.constexpr, POOL: tl.constexpr,
    MARGIN: tl.constexpr, OUT_MARGIN: tl.constexpr, NORM: tl.constexpr, ACTIVATION_FIRST: tl.constexpr,
    DROP: tl.constexpr, WITH_GELU: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile of windows, ROWS at a time: the gradient of all their pixels."""
    tile, channel = tl.program_id(0), channels_of(STORED, BLOCK)
    member = tl.load(tile_ptr + 3 * tile).to(tl.int64)
    first, end = tl.load(tile_ptr + 3 * tile + 1), tl.load(tile_ptr + 3 * tile + 2)
    if first >= end:
        return
    PITCH: tl.constexpr = (WIDTH + 2 * MARGIN) * STORED
    OUT_PITCH: tl.constexpr = (WIDTH // POOL + 2 * OUT_MARGIN) * STORED
    code, there, keep_scale = tl.load(code_ptr + member), channel < CHANNELS, 1.0
    if DROP:
        keep_scale = tl.load(keep_scale_ptr + member)
    mean, scale, beta, level = 0.0, 1.0, 0.0, 0.0
    if NORM:
        images = tl.load(row_offset_ptr + member + 1) - tl.load(row_offset_ptr + member)
        share = 1.0 / (images.to(tl.float32) * (HEIGHT * WIDTH))
        mean = tl.load(mean_ptr + member * CHANNELS + channel, mask=there, other=0.0)[None, :]
        inverse_std = tl.load(inverse_std_ptr + member * CHANNELS + channel, mask=there, other=0.0)[None, :]
        scale = tl.load(gamma_ptr + member * gamma_stride + channel, mask=there, other=0.0)[None, :] * inverse_std
        beta = tl.load(beta_ptr + member * beta_stride + channel, mask=there, other=0.0)[None, :]
        # What all pixels have, and what they have for each unit that they are above the mean.
        level = tl.load(dbeta_ptr + member * dbeta_stride + channel, mask=there, other=0.0)[None, :]
        tilt = tl.load(dgamma_ptr + member * dgamma_stride + channel, mask=there, other=0.0)[None, :]
        level, tilt = level * (-share * scale), tilt * (-share * scale * inverse_std)
    for start in range(first, end, ROWS):
        across, down, image, live, whole = windows_from(start, end, HEIGHT, WIDTH, POOL, ROWS)
        row = (image * HEIGHT + down * POOL).to(tl.int64) * (WIDTH * STORED) + across * (POOL * STORED)
        out_line = image * (HEIGHT // POOL) + down
        out_row = out_line.to(tl.int64) * OUT_PITCH + (across + OUT_MARGIN) * STORED
        to_row = (image * HEIGHT + down * POOL).to(tl.int64) * PITCH + (across * POOL + MARGIN) * STORED
        gradient, winner, centred = _incoming(
            y_ptr, dout_ptr, keep_ptr, row[:, None] + channel[None, :], out_row[:, None] + channel[None, :],
            out_line * (WIDTH // POOL) + across, whole, whole[:, None] & there[None, :], mean, scale, beta, code,
            keep_scale, WIDTH, STORED, POOL, NORM, ACTIVATION_FIRST, DROP, WITH_GELU, BLOCK,
        )  # fmt: skip
        gradient = gradient * scale + level
        for place in tl.static_range(POOL * POOL):
            inside = live
            if HEIGHT % POOL != 0 or WIDTH % POOL != 0:
                inside = inside & (down * POOL + place // POOL < HEIGHT) & (across * POOL + place % POOL < WIDTH)
            mask = inside[:, None] & there[None, :]
            at = row[:, None] + (place // POOL * (WIDTH * STORED) + place % POOL * STORED) + channel[None, :]
            made = gradient
            if POOL > 1:
                made = tl.where(winner == place, gradient, level)
                if NORM:
                    centred = tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32) - mean
            if NORM:
                made += tilt * centred
            if ACTIVATION_FIRST:
                made *= slope(tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32), code, WITH_GELU)
            to = to_row[:, None] + (place // POOL * PITCH + place % POOL * STORED) + channel[None, :]
            mask = inside[:, None] & (channel < STORED)[None, :]
            tl.store(dy_ptr + to, made.to(dy_ptr.dtype.element_ty), mask=mask)


def normalise_gradient(
    y: Tensor, dout: Tensor, dy: Tensor, *, codes: Tensor, pack: Pack, statistics: Statistics | None = None,
    gamma: Tensor | None = None, beta: Tensor | None = None, dgamma: Tensor | None = None,
    dbeta: Tensor | None = None, pool: int = 1, activation_first: bool = False, keep: Keep | None = None,
    gelu: bool = True,
) -> None:  # fmt: skip
    """The gradients of ``normalise``, by the batch's own statistics.

    Args:
        y: what was normalised, bfloat16 or float32 [R, H, W, C'], or [R, C'].
        dout: the gradient of what came out, as ``y`` [R, H // pool, W // pool + 2 M, C'], or [R, C'].
        dy: what is made, as ``y`` [R, H, W + 2 M', C'], or [R, C']; its margins are left as they are, channels
            that are only stored become 0.
        codes: of the members' activations, int32 [P].
        pack: which images belong to whom.
        statistics: of the batch; None if nothing was normalised.
        gamma: scale, float32 [P, C], which may be a part of the members' vectors.
        beta: shift, as ``gamma``.
        dgamma: what is made, as ``gamma``; 0 for a member without images.
        dbeta: as ``dgamma``.
        pool: side of the windows whose largest value was kept.
        activation_first: whether the activation came before the normalisation.
        keep: as for ``normalise``.
        gelu: whether a member may have GELU.

    Raises:
        ValueError: tensors do not fit together.
    """
    if activation_first and pool > 1:
        raise ValueError(f"`pool` (={pool}) must be 1 where the activation comes first")
    mean, inverse_std, scale, shift, channels = parameters(y, statistics, gamma, beta, pack)
    windows = Windows.of(y, dout, channels=channels, pool=pool, images=pack.images, gradient=dy)
    tiles = pack.tiles(items_per_image=windows.items, size=windows.tile)
    words, scales = kept(keep, windows, mean)
    dscale, dshift = mean, mean  # never read nor written if nothing was normalised
    if statistics is not None:
        if dgamma is None or dbeta is None:
            raise ValueError("`statistics` need `dgamma` and `dbeta`")
        for name, part in (("dgamma", dgamma), ("dbeta", dbeta)):
            check_part(name, part, (pack.members, channels))
        dscale, dshift = dgamma, dbeta
        parts = torch.empty(len(tiles), 2, windows.columns, dtype=torch.float32, device=y.device)
        sums_kernel[(len(tiles), windows.blocks)](
            y, dout, parts, mean, inverse_std, scale, shift, codes, words, scales, tiles.table, scale.stride(0),
            shift.stride(0), **_sums_constants(windows, activation_first, keep is not None, gelu),
        )  # fmt: skip
        constants = _total_constants(channels, windows.columns)
        total_kernel[(pack.members, triton.cdiv(channels, constants["BLOCK"]))](
            parts, tiles.first, dscale, dshift, dscale.stride(0), dshift.stride(0), **constants
        )
    gradient_kernel[(len(tiles), windows.blocks)](
        y, dout, dy, mean, inverse_std, scale, shift, dscale, dshift, codes, words, scales, pack.row_offsets,
        tiles.table, scale.stride(0), shift.stride(0), dscale.stride(0), dshift.stride(0),
        **_gradient_constants(windows, statistics is not None, activation_first, keep is not None, gelu),
    )  # fmt: skip


def _sums_constants(windows: Windows, activation_first: bool, drop: bool, gelu: bool) -> dict[str, Any]:
    return {
        **windows.constants(),
        "OUT_MARGIN": windows.out_margin,
        "ACTIVATION_FIRST": activation_first,
        "DROP": drop,
        "WITH_GELU": gelu,
    }


def _total_constants(channels: int, columns: int) -> dict[str, Any]:
    return {
        "CHANNELS": channels,
        "COLUMNS": columns,
        "TILES": _TILES,
        "BLOCK": power_of_two(min(channels, 64)),
    }


def _gradient_constants(
    windows: Windows, norm: bool, activation_first: bool, drop: bool, gelu: bool
) -> dict[str, Any]:
    return {**_sums_constants(windows, activation_first, drop, gelu), "MARGIN": windows.margin, "NORM": norm}


_VECTORS = ("mean_ptr", "inverse_std_ptr", "gamma_ptr", "beta_ptr")
_STRIDES = ("gamma_stride", "beta_stride")
_GRADIENT_STRIDES = ("dgamma_stride", "dbeta_stride")


def variants() -> Iterator[Variant]:
    """Every form that the presets can ask for."""
    for channels, columns in sorted({(windows.channels, windows.columns) for _, windows, _ in known_windows()}):
        yield _total_variant(channels, columns)
    for (name, windows, drop), pointer in product(known_windows(), ("*bf16", "*fp32")):
        yield from _variants(f"{name}-{pointer[1:]}", pointer, windows, drop, gelu=False)
        if windows.channels in WITH_GELU:
            yield from _variants(f"{name}-gelu-{pointer[1:]}", pointer, windows, drop, gelu=True)


def _total_variant(channels: int, columns: int) -> Variant:
    return Variant(
        kernel=total_kernel,
        name=f"total-{channels}",
        signature={
            "parts_ptr": "*fp32",
            "first_ptr": "*i32",
            "dgamma_ptr": "*fp32",
            "dbeta_ptr": "*fp32",
            **dict.fromkeys(_GRADIENT_STRIDES, "i32"),
        },
        constexprs=_total_constants(channels, columns),
        aligned=_GRADIENT_STRIDES,
    )


def _variants(name: str, pointer: str, windows: Windows, drop: bool, *, gelu: bool) -> Iterator[Variant]:
    yield Variant(
        kernel=sums_kernel,
        name=f"sums-{name}",
        signature={
            **dict.fromkeys(("y_ptr", "dout_ptr"), pointer),
            **dict.fromkeys((*_VECTORS, "parts_ptr"), "*fp32"),
            **dict.fromkeys(("code_ptr", "tile_ptr"), "*i32"),
            **kept_signature(windows, drop),
            **dict.fromkeys(_STRIDES, "i32"),
        },
        constexprs=_sums_constants(windows, windows.is_features, drop, gelu),
        aligned=_STRIDES,
    )
    for norm in (False, True):
        yield Variant(
            kernel=gradient_kernel,
            name=f"{'normal' if norm else 'active'}-gradient-{name}",
            signature={
                **dict.fromkeys(("y_ptr", "dout_ptr", "dy_ptr"), pointer),
                **dict.fromkeys((*_VECTORS, "dgamma_ptr", "dbeta_ptr"), "*fp32"),
                **dict.fromkeys(("code_ptr", "row_offset_ptr", "tile_ptr"), "*i32"),
                **kept_signature(windows, drop),
                **dict.fromkeys((*_STRIDES, *_GRADIENT_STRIDES), "i32"),
            },
            constexprs=_gradient_constants(windows, norm, norm and windows.is_features, drop, gelu),
            aligned=(*_STRIDES, *_GRADIENT_STRIDES),
        )
