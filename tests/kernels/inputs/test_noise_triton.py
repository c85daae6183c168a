"""The noise of augmentation: a word's two normals against Box and Muller's formula in float64."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from wse.kernels.inputs.triton_augment import _normals

BLOCK = 8192


@triton.jit
def normals_kernel(words_ptr, first_ptr, second_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    words = tl.load(words_ptr + at).to(tl.uint32, bitcast=True)
    first, second = _normals(words)
    tl.store(first_ptr + at, first)
    tl.store(second_ptr + at, second)


def test_normals_of_all_angles_and_radii(device: str) -> None:
    """Every angle there is, and every radius, in an order that pairs near and far ones."""
    angles = np.arange(65536, dtype=np.uint32)
    radii = np.uint32(40503) * angles % np.uint32(65536)
    words = (radii << np.uint32(16)) | angles
    made = torch.full((2, len(words)), torch.nan, device=device)
    there = torch.from_numpy(words.view(np.int32)).to(device)
    normals_kernel[(len(words) // BLOCK,)](there, made[0], made[1], BLOCK=BLOCK)
    radius = np.sqrt(-2 * np.log((radii.astype(np.float64) + 1) / 65536))
    turn = 2 * np.pi * angles / 65536
    exact = np.stack([radius * np.cos(turn), radius * np.sin(turn)])
    # A few roundings of numbers up to 4.8; a GPU's logarithm is off by 1e-7 near 1, where its root magnifies that.
    allowed = 1.5e-6 if device == "cpu" else 5e-5
    assert np.abs(made.cpu().numpy() - exact).max() < allowed
