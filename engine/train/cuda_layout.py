"""The order in which the CUDA backend keeps a network's weights: what its kernels read, as one row of an arena.

Convolutions lie as [rows][columns][in][out], linear layers as [in][out]. Images' channels and the outputs of
linear layers are padded with zeros that stay zero. They lie in stages (``arrangement.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..nets import Layout, TensorSpec
from .arrangement import round_up, stages

ALIGNMENT = 16  # values: vectors of 64 bytes can be read wherever a tensor or a member begins
INPUT_CHANNELS = 4  # of images, whether they have one or three
FEATURES = 8  # features are stored in multiples of this many


class ArenaLayout:
    """Where each value of a layout lies in a row of the arena.

    Args:
        layout: the layout.

    Attributes:
        weights: length of the prefix that holds weights (l2 and decay apply to it).
        trained: length of the prefix that an optimizer changes.
        size: D, the length of a row.
        places: where each value of the layout lies, int64 [layout.size].
    """

    def __init__(self, layout: Layout) -> None:
        self._stored: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.places = np.empty(layout.size, dtype=np.int64)
        ends, end = [], 0
        for specs in stages(layout):
            for spec in specs:
                shape, inside = _stored(spec)
                self._stored[spec.name] = end, shape
                self.places[spec.offset : spec.stop] = end + inside
                end += round_up(math.prod(shape), ALIGNMENT)
            ends.append(end)
        self.weights, self.trained, self.size = ends

    def views(self, arena: Tensor) -> Mapping[str, Tensor]:
        """The tensors of all rows of an arena [P, D]: name -> [P, ...] as kernels see it."""
        tensors = {}
        for name, (offset, shape) in self._stored.items():
            first = arena[0, offset : offset + math.prod(shape)].view(shape)
            # Of a single row, too, the stride says where the next one would begin: kernels are compiled for it.
            tensors[name] = first.as_strided((len(arena), *shape), (arena.stride(0), *first.stride()))
        return tensors


def _stored(spec: TensorSpec) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
    """The shape a tensor is stored in, and where its values lie in there."""
    if spec.kind != "weight":
        return spec.shape, np.arange(spec.size)
    if len(spec.shape) == 4:
        outs, ins, height, width = spec.shape
        stored_ins = INPUT_CHANNELS if spec.layer == "conv1" else ins
        out, channel, row, column = np.indices(spec.shape)
        places = ((row * width + column) * stored_ins + channel) * outs + out
        return (height, width, stored_ins, outs), places.reshape(-1)
    outs, ins = spec.shape
    stored_outs = round_up(outs, FEATURES)
    out, feature = np.indices(spec.shape)
    return (ins, stored_outs), (feature * stored_outs + out).reshape(-1)
