"""Values of networks as features: of which neurons, and brought to size.

Weights of different layers and networks differ by orders of magnitude, and that is part of what tells how they
were trained. So a value is shown in several ways, some of which keep its size and some its place among its
neighbours. Medians and scales are the same for all values of a tensor, so permuted neurons stay permuted neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...nets import Connection, TensorSpec
from .networks import NetworkSource

# What diverged is still finite; beyond this a square would not be.
LARGEST = 1e15
# Networks that scales are taken from, at most.
LOOKED_AT = 500
# Root mean squares of a tensor differ between networks; a value is seen at these quantiles of them.
QUANTILES = (0.1, 0.9)
# In units of a tensor's own standard deviation: where its tail begins, where it is cut off.
TAIL, END = 1.5, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Picked:
    """The values of some neurons of a connection, as places in the flat vector.

    Attributes:
        connection: it.
        pairs: of its weight [outputs, inputs, taps].
        own: of its vectors, each [outputs, places].
    """

    connection: Connection
    pairs: Tensor
    own: tuple[Tensor, ...]


def pick(wired: Sequence[Connection], most: int | None = None) -> list[Picked]:
    """Choose neurons of each hidden layer.

    Nets that only take means over neurons can be trained on a part of them, which is quicker, and on another part
    every time, which keeps them from learning networks by heart.

    Args:
        wired: the connections of an architecture.
        most: neurons of a layer, drawn anew from PyTorch's generator; None: all, in their order.
    """
    places = torch.arange(wired[-1].stop)
    picked = []
    before = torch.arange(wired[0].inputs)
    for connection in wired:
        after = torch.arange(connection.outputs)
        if most is not None and connection is not wired[-1] and connection.outputs > most:
            after = torch.randperm(connection.outputs)[:most]
        pairs = connection.pairs(places)[after][:, before]
        own = tuple(connection.own(vector, places)[after] for vector in connection.vectors)
        picked.append(Picked(connection=connection, pairs=pairs, own=own))
        before = after
    return picked


class Scaling(nn.Module):
    """Shows each value of a tensor in several ways.

    Less the tensor's median over networks, at several scales: sign(x) log(1 + |x| / scale), which is linear near 0
    and a logarithm far out. Standardised within its own network and tensor: the value, its size, and by how much
    it is in the tail.

    Args:
        source: the training items, which medians and scales are taken from.
        key: what has medians and scales in common: a tensor's name or its kind.
    """

    channels = len(QUANTILES) + 3

    def __init__(self, source: NetworkSource, key: Callable[[TensorSpec], str]) -> None:
        super().__init__()
        self._key = key
        chosen = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int))
        found: dict[str, list[Tensor]] = {}
        for layout, weights in source.inputs(chosen)[1].items():
            for spec in layout.tensors.values():
                values = _canonical(spec, weights[:, spec.offset : spec.stop])
                found.setdefault(key(spec), []).append(values)
        self._row = {name: row for row, name in enumerate(found)}
        self.table: Tensor
        # A row a key: the median and the scales. The last row is for keys that no training item has.
        rows = [*map(_median_and_scales, found.values()), [0.0] + [1.0] * len(QUANTILES)]
        self.register_buffer("table", torch.tensor(rows))

    def forward(self, spec: TensorSpec, places: Tensor, weights: Tensor) -> Tensor:
        """Features of values.

        Args:
            spec: the tensor they are of.
            places: of the values in the flat vector, of any shape [...].
            weights: networks [b, D].

        Returns:
            [b, ..., channels].
        """
        values = _canonical(spec, weights[:, places.flatten().to(weights.device)])
        median, *scales = self.table[self._row.get(self._key(spec), -1)]
        centred = values - median
        sign, size = centred.sign(), centred.abs()
        logs = [sign * (size / scale).log1p() for scale in scales]
        own = values - values.mean(dim=1, keepdim=True)
        own = own / own.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1 / LARGEST)
        own = own.clamp(-END, END)
        far = own.abs()
        features = torch.stack([*logs, own, far, (far - TAIL).relu()], dim=-1)
        return features.view(len(weights), *places.shape, self.channels)


def _canonical(spec: TensorSpec, values: Tensor) -> Tensor:
    """Values of a tensor; those of a weight in units of what keeps the size of activations (He et al., 2015)."""
    values = values.clamp(-LARGEST, LARGEST)
    return values * spec.fans[0] ** 0.5 if spec.kind == "weight" else values


def _median_and_scales(tensors: Iterable[Tensor]) -> list[float]:
    """Of one key's tensors, each [networks, size]."""
    median = torch.cat([values.median(dim=1).values for values in tensors]).median()
    sizes = torch.cat([(values - median).square().mean(dim=1).sqrt() for values in tensors])
    scales = np.quantile(sizes.numpy(), QUANTILES)
    return [float(median), *np.maximum(scales, 1e-3 * (scales[-1] or 1.0)).tolist()]
