"""Bytes that the kernels of the CUDA backend cannot do without: each tensor once for each kernel that uses it.

That is what goes through a GPU's memory if caches help within a kernel and never between two. A rate above the
memory's says that they did help between kernels, which the second-level cache can where a step is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..nets import Architecture, Conv, GlobalAveragePool, Layout
from ..train.cuda_blocks import blocks_of
from ..train.cuda_layout import INPUT_CHANNELS, ArenaLayout

_WEIGHT_BYTES = 4


def least_bytes(architecture: Architecture, batches: Sequence[int], value_bytes: int) -> float:
    """Bytes of one step of a pack; margins, tables and the bits of dropout aside.

    Args:
        architecture: what its members share.
        batches: the members' batch sizes.
        value_bytes: of a value that passes through the network, 2 or 4.
    """
    images = sum(batches)
    weights = ArenaLayout(Layout(architecture)).size * len(batches)
    # Weights are read forward, for the input gradient and by the optimizer, which also reads the gradient and two
    # states and writes the weights and the states; the gradient is written before.
    return value_bytes * images * _values(architecture) + _WEIGHT_BYTES * weights * 9


def _values(architecture: Architecture) -> int:
    """Values read and written for one image."""
    size = architecture.input.size
    stored = size * size * INPUT_CHANNELS  # images come as bytes, a quarter of that: not counted
    total = stored  # written by the input kernel
    comes_in, has_gradient = stored, False
    for block in blocks_of(architecture):
        made = math.prod(block.made)
        kept = made // block.pool**2
        total += comes_in + made  # forward product
        if block.active:
            total += made + kept  # normalised, activated, pooled
            total += made * (
                block.norm and not isinstance(block.layer, Conv)
            )  # its moments are a pass of their own
            total += (made + kept) * block.norm  # the two sums of normalisation's gradient
            total += 2 * made + kept  # the gradient through all three
        if block.ending is GlobalAveragePool:
            total += 2 * (kept + block.made[-1])
        total += (made + comes_in) * (1 + has_gradient)  # weight gradient, and input gradient where there is one
        comes_in = block.made[-1] if block.ending is GlobalAveragePool else kept
        has_gradient = True
    return total
