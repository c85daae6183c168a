"""The order in which the CPU backend keeps a network's weights: what its kernels read, as one flat vector.

Convolutions lie as [out/4][in][rows][columns][4], linear layers as [out/V][in][V], both padded with zeros that
stay zero. They lie in stages (``arrangement.py``): l2, weight decay and the optimizer are a single loop each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from wse.kernels.linear.cpu import INPUTS
from wse.kernels.simd import V

from ..nets import Layout, TensorSpec, connections
from .arrangement import round_up, stages
from .backend import Weights

_ALIGNMENT = 16  # floats: a cache line
_SLACK = 64  # floats after the weights that a gradient kernel rewrites as they are

Places = npt.NDArray[np.int64]


class Packing:
    """Where each value of a layout lies in the CPU backend's vector.

    Args:
        layout: the layout.

    Attributes:
        offsets: tensor name -> where it begins, in values.
        weights: length of the prefix that holds weights (l2 and decay apply to it).
        trained: length of the prefix that an optimizer changes.
        size: length of the whole.
    """

    def __init__(self, layout: Layout) -> None:
        self.offsets: Mapping[str, int]
        offsets: dict[str, int] = {}
        seen = {wire.layer: (*wire.taps, wire.inputs) for wire in connections(layout)}
        places = np.empty(layout.size, dtype=np.int64)
        end = 0
        ends = []
        for specs in stages(layout):
            for spec in specs:
                inside, length = _places(spec, seen[spec.layer])
                offsets[spec.name] = end
                places[spec.offset : spec.stop] = end + inside
                end += round_up(length, _ALIGNMENT)
            ends.append(end)
            if len(ends) == 1:
                end += _SLACK
        self.offsets, self._places = offsets, places
        self.weights, self.trained, self.size = ends[0], ends[1], round_up(ends[2] + _SLACK, _ALIGNMENT)

    def pack(self, weights: Weights, packed: Weights) -> None:
        """Write weights [D] in layout order into a packed vector [size]."""
        packed[:] = 0
        packed[self._places] = weights

    def unpack(self, packed: Weights) -> Weights:
        """A packed vector [size] in layout order, float32 [D]."""
        return packed[self._places]


def _places(spec: TensorSpec, image: tuple[int, int, int]) -> tuple[Places, int]:
    """Where a tensor's values lie in its packed form, and how long that is.

    Args:
        spec: the tensor.
        image: [H, W, C] of the flattened image that its layer reads, if it is a linear one; of a vector 1, 1, C.
    """
    if spec.kind != "weight":
        return np.arange(spec.size), round_up(spec.size, max(V, 4))
    if len(spec.shape) == 4:
        outs, ins, size, _ = spec.shape
        out, channel, row, column = np.indices(spec.shape)
        places = (((out // 4 * ins + channel) * size + row) * size + column) * 4 + out % 4
        return places.reshape(-1), round_up(outs, 4) * ins * size * size
    outs, ins = spec.shape
    height, width, channels = image  # which stays as the kernels have it, [C, H, W]
    feature = np.arange(ins).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)
    out = np.arange(outs)[:, None]
    allotted = round_up(ins, INPUTS)
    return ((out // V * allotted + feature) * V + out % V).reshape(-1), round_up(outs, V) * allotted
