"""An architecture as a chain of blocks, as the CUDA backend computes it.

A block is a convolution or linear layer with what follows it up to the next: normalisation, activation, pooling
and dropout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import WseError
from ..nets import (
    Activate,
    Architecture,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A layer with weights, and what follows it.

    Attributes:
        name: of the layer, as in the layout.
        layer: a convolution or a linear layer.
        shape: of one sample that comes in.
        made: of one sample that the layer makes.
        out: of one sample that the block makes, flattened or averaged if it is.
        norm: whether it is batch-normalised.
        frozen: whether its bias is.
        active: whether an activation follows.
        activation_first: whether that comes before the normalisation.
        pool: side of the windows of max-pooling, 1 for none.
        drop: index of the dropout layer, None for none.
        ending: what an image becomes at the end of the block.
    """

    name: str
    layer: Conv | Linear
    shape: tuple[int, ...]
    made: tuple[int, ...]
    out: tuple[int, ...]
    norm: bool = False
    frozen: bool = False
    active: bool = False
    activation_first: bool = False
    pool: int = 1
    drop: int | None = None
    ending: type[Flatten] | type[GlobalAveragePool] | None = None


def blocks_of(architecture: Architecture) -> list[Block]:
    """The blocks of an architecture.

    Raises:
        WseError: it has layers in an order that there are no kernels for.
    """
    blocks: list[Block] = []
    drops = 0
    shapes, owners = architecture.shapes(), architecture.owners()
    for index, layer in enumerate(architecture.layers):
        out = shapes[index + 1]
        if isinstance(layer, (Conv, Linear)):
            blocks.append(Block(name=owners[index], layer=layer, shape=shapes[index], made=out, out=out))
            continue
        change = _change(blocks[-1], layer, drops) if blocks else None
        if change is None:
            raise WseError(
                f"architecture {architecture.name}: the CUDA backend has no kernels for layer {index + 1} "
                f"({type(layer).__name__}) after what comes before it; train it with --device cpu"
            )
        drops += isinstance(layer, Dropout)
        blocks[-1] = replace(blocks[-1], out=out, **change)
    if last := next((block for block in blocks[:-1] if not block.active), None):
        raise WseError(f"architecture {architecture.name}: the CUDA backend needs an activation after {last.name}")
    return blocks


def _change(block: Block, layer: Layer, drops: int) -> dict[str, Any] | None:
    """What a further layer makes of a block; None if it cannot follow."""
    is_conv, ended = isinstance(block.layer, Conv), block.ending is not None or block.drop is not None
    match layer:
        case BatchNorm() if not block.norm and block.pool == 1 and not ended and not (is_conv and block.active):
            return {"norm": True, "activation_first": block.active, "frozen": not block.active}
        case Activate() if not block.active:
            return {"active": True}
        case MaxPool() if is_conv and block.active and block.pool == 1 and not ended:
            return {"pool": layer.size}
        case Dropout() if block.active and not ended:
            return {"drop": drops}
        case Flatten() | GlobalAveragePool() if is_conv and block.active and block.ending is None:
            return {"ending": type(layer)}
        case _:
            return None
