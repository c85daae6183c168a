"""Whole networks of any architecture as sets of tokens: pieces of the rows of their tensors.

A row holds the values that lead into one channel or unit; a vector (biases, batch normalisation) is one row. A
token is up to `CHUNK` consecutive values of a row. With it goes what is known of its place: the kind of the
tensor, how many layers lie before and behind, where in the tensor it is, and the tensor's shape.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...nets import Layout
from ...zoo import Items
from ...zoo.items import mix
from .source import Indices

CHUNK = 64
# Tokens of a network that are read in training, and in an evaluation: other ones in every epoch.
TRAINING_TOKENS, TOKENS = 128, 512

KINDS = ("conv.weight", "fc.weight", "bias", "beta", "gamma", "moving_mean", "moving_variance")
# Layers before and behind are told apart up to this many.
MAX_DEPTH = 15
# Row and column as fractions, and sines and cosines of them; logarithms of rows, columns and field.
WAVES = (1, 2, 4)
SCALARS = 2 + 4 * len(WAVES) + 3


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenTable:
    """The tokens of an architecture.

    Attributes:
        start: of each token in the flat vector [T].
        count: of its values [T].
        codes: index in `KINDS`, layers before, layers behind [T, 3] int64.
        scalars: position and shape [T, SCALARS] float32.
        weight: how likely a token is to be read, where not all are [T].
    """

    start: NDArray[np.int64]
    count: NDArray[np.int64]
    codes: NDArray[np.int64]
    scalars: NDArray[np.float32]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def of(cls, layout: Layout) -> TokenTable:
        """The tokens of a layout."""
        starts, counts, codes, scalars, weights = [], [], [], [], []
        for spec in layout.tensors.values():
            rows = spec.shape[0] if len(spec.shape) > 1 else 1
            columns = spec.size // rows
            pieces = math.ceil(columns / CHUNK)
            row, piece = (part.reshape(-1) for part in np.indices((rows, pieces)))
            starts.append(spec.offset + row * columns + piece * CHUNK)
            counts.append(np.minimum(columns - piece * CHUNK, CHUNK))
            before = layout.layers.index(spec.layer)
            behind = len(layout.layers) - 1 - before
            code = [_kind(spec.layer, spec.kind), min(before, MAX_DEPTH), min(behind, MAX_DEPTH)]
            codes.append(np.tile(code, (len(row), 1)))
            places = np.stack([row / rows, piece / pieces], axis=1)
            angles = 2 * np.pi * np.concatenate([wave * places for wave in WAVES], axis=1)
            shape = np.log2([rows, columns, math.prod(spec.shape[2:])]) / 8
            scalars.append(
                np.concatenate([places, np.sin(angles), np.cos(angles), np.tile(shape, (len(row), 1))], axis=1)
            )
            # Large tensors would crowd out the small ones, which say as much.
            weights.append(np.full(len(row), len(row) ** -0.5))
        return cls(
            start=np.concatenate(starts),
            count=np.concatenate(counts),
            codes=np.concatenate(codes).astype(np.int64),
            scalars=np.concatenate(scalars).astype(np.float32),
            weight=np.concatenate(weights),
        )


def _kind(layer: str, kind: str) -> int:
    return KINDS.index(f"{layer.rstrip('0123456789')}.{kind}" if kind == "weight" else kind)


class TokenSource:
    """Networks as tokens, padded to the most that one of the batch has.

    `inputs` gives values [B, T, CHUNK] float32, counts [B, T] int64 (how many of them there are; 0: no token),
    codes [B, T, 3] int64 and scalars [B, T, SCALARS] float32.

    Args:
        items: whose weights.
    """

    def __init__(self, items: Items) -> None:
        self.items = items
        self._tables = [TokenTable.of(items.zoo.layout(name)) for name in items.architectures]
        self._epoch = 0

    @property
    def random(self) -> bool:
        """Whether a network has more tokens than are read."""
        return max(map(len, self._tables)) > TOKENS

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        """Choose other tokens."""
        self._epoch = epoch

    def inputs(self, indices: Indices) -> dict[str, torch.Tensor]:
        """Some networks."""
        tables = [self._tables[architecture] for architecture in self.items.architecture[indices]]
        chosen = [self._choose(index, table) for index, table in zip(indices.tolist(), tables, strict=True)]
        size = (len(indices), max(map(len, chosen)))
        values = np.zeros((*size, CHUNK), np.float32)
        counts = np.zeros(size, np.int64)
        codes = np.zeros((*size, 3), np.int64)
        scalars = np.zeros((*size, SCALARS), np.float32)
        for row, (index, table, tokens) in enumerate(zip(indices.tolist(), tables, chosen, strict=True)):
            place = row, slice(len(tokens))
            flat = self.items.weights(index)
            counts[place], codes[place], scalars[place] = (
                table.count[tokens],
                table.codes[tokens],
                table.scalars[tokens],
            )
            inside = np.arange(CHUNK) < table.count[tokens, None]
            where = np.where(inside, table.start[tokens, None] + np.arange(CHUNK), 0)
            values[place] = np.where(inside, flat[where], 0)
        arrays = {"values": values, "counts": counts, "codes": codes, "scalars": scalars}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _choose(self, index: int, table: TokenTable) -> Indices:
        """Which tokens of an item are read: a weighted draw without replacement, in ascending order.

        Efraimidis and Spirakis: "Weighted random sampling with a reservoir", 2006.
        """
        limit = TRAINING_TOKENS if self._epoch > 0 else TOKENS
        every = np.arange(len(table))
        if len(table) <= limit:
            return every
        bits = np.zeros(1, np.uint64)
        for part in (self._epoch, self.items.members[index], self.items.snapshots[index]):
            bits = mix(bits ^ np.asarray(part, np.int64).astype(np.uint64))
        uniform = (mix(bits ^ every.astype(np.uint64)) >> np.uint64(11)) * 2.0**-53 + 2.0**-54
        keys = np.log(uniform) / table.weight
        return np.sort(np.argpartition(keys, -limit)[-limit:])

    def only(self, chosen: NDArray[Any]) -> TokenSource:
        """Some of the networks, with the same tokens."""
        part = copy.copy(self)
        part.items = self.items.only(chosen)
        return part
