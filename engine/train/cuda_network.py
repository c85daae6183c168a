"""The passes of a pack through its network, by GPU kernels, and the memory that its images pass through.

Every tensor between blocks has memory of its own, for the way forward and for its gradient; margins are zero from
the beginning and nothing writes them. Letters of shapes: R images, H W pixels, M margin, C channels, C' stored
channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wse.kernels.batchnorm.triton import (
    Statistics,
    activated_moments,
    batch_statistics,
    moving_statistics,
    normalise,
)
from wse.kernels.batchnorm.triton_gradient import normalise_gradient
from wse.kernels.conv import triton as conv
from wse.kernels.conv.shapes import ConvShape
from wse.kernels.conv.triton_gradient import weight_gradient as conv_weight_gradient
from wse.kernels.inputs.triton import input_tiles
from wse.kernels.linear import triton as linear
from wse.kernels.packs import Pack
from wse.kernels.philox.triton_dropout import Keep, draw_keep, keep_layout
from wse.kernels.pool.triton import average, average_gradient

from ..nets import Architecture, Conv, Flatten, GlobalAveragePool, Linear
from .arrangement import round_up
from .cuda_blocks import Block, blocks_of
from .cuda_layout import FEATURES, INPUT_CHANNELS


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What a pass of a pack through its network needs besides memory.

    Attributes:
        pack: which images belong to whom.
        weights: the arena's tensors.
        gradient: their gradients'; empty where nothing is learnt.
        codes: of the members' activations, int32 [P].
        addresses: int64 [P, 4], see ``wse.kernels.philox.triton``.
        levels: drop levels, int32 [P].
        scales: what kept values are multiplied by, float32 [P].
        drops: whether units are dropped.
        batch_statistics: whether to normalise by the batch's statistics, and let the moving averages follow.
        gelu: whether a member may have GELU, now or later in the run.
    """

    pack: Pack
    weights: Mapping[str, Tensor]
    gradient: Mapping[str, Tensor]
    codes: Tensor
    addresses: Tensor
    levels: Tensor
    scales: Tensor
    drops: bool
    batch_statistics: bool
    gelu: bool


class Network:
    """The memory of a network for R images, and its passes.

    Args:
        architecture: the layers.
        images: R, how many images there is room for.
        dtype: bfloat16 or float32.
        device: where.

    Attributes:
        input: [R, H, W + 2 M, 4], written inside its margins.
        margin: M of the input.
        bytes: of all of it.
        logits: [R, C'].
        d_logits: the gradient of the loss with respect to them, to be written.
    """

    def __init__(
        self, architecture: Architecture, images: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        blocks = blocks_of(architecture)
        self.images, self.architecture = images, architecture
        wanted = [_margin(block) for block in blocks]
        self._passes: list[_ConvPass | _LinearPass] = []
        height = width = architecture.input.size
        self.margin = wanted[0]

        self.bytes = 0

        def room(*shape: int, of: torch.dtype = dtype) -> Tensor:
            made = torch.zeros(images, *shape, dtype=of, device=device)
            self.bytes += made.nbytes
            return made

        # What comes into a block, and the gradient of that; the images need none.
        x: Tensor = room(height, width + 2 * wanted[0], INPUT_CHANNELS)
        dx: Tensor | None = None
        self.input: Tensor = x
        for index, block in enumerate(blocks):
            margin_after = wanted[index + 1] if index + 1 < len(blocks) else 0
            made: _ConvPass | _LinearPass
            if isinstance(block.layer, Conv):
                made = _ConvPass(block, block.layer, x, dx, margin_after, room)
            else:
                made = _LinearPass(block, x, dx, room)
            self._passes.append(made)
            x, dx = made.out, made.d_out
        self.logits, self.d_logits = self._passes[-1].out, self._passes[-1].d_out

    def read(self, scene: Scene, *, images: Tensor, indices: Tensor, augments: Tensor, augment: bool) -> None:
        """Gather images into ``input``, as the architecture wants them.

        Args:
            scene: whose members' images, and where their draws are.
            images: uint8 [n, H, W, 4].
            indices: of the images, int32 [R].
            augments: which members augment, int32 [P].
            augment: whether one of them may.
        """
        wanted = self.architecture.input
        input_tiles(
            self.input,
            scene.pack,
            images=images,
            indices=indices,
            addresses=scene.addresses,
            augments=augments,
            margin=self.margin,
            grey=wanted.color == "grey",
            low=wanted.low,
            high=wanted.high,
            augment=augment,
        )

    def forward(self, scene: Scene) -> None:
        """From ``input`` to ``logits``."""
        for layer in self._passes:
            layer.forward(scene)

    def backward(self, scene: Scene) -> None:
        """From ``d_logits`` to the gradients of all that is trained; after ``forward``."""
        for layer in reversed(self._passes):
            layer.backward(scene)


def _margin(block: Block) -> int:
    """The zeros left and right of every row of pixels that a layer reads."""
    if isinstance(block.layer, Linear) or block.layer.padding == "valid":
        return 0
    return block.layer.kernel // 2


class _Pass:
    """What both kinds of blocks do after their product: normalise, activate, pool and drop.

    Attributes:
        y: what the product makes, [R, H, W, C] or [R, C'].
        dy: its gradient, [R, H, W + 2 M, C] or [R, C'].
        kept: what is left after pooling and dropout, [R, H', W' + 2 M', C] or [R, C'].
        d_kept: its gradient.
        words: which units stay; None without a dropout layer.
    """

    y: Tensor
    dy: Tensor
    kept: Tensor
    d_kept: Tensor

    def __init__(self, block: Block, margin_after: int, room: Any) -> None:
        self.block, self.margin_after = block, margin_after
        self._statistics: Statistics | None = None
        self._kept: Keep | None = None
        self.words: Tensor | None = None
        if block.drop is not None:
            *sides, channels = block.made
            stored = channels if sides else round_up(channels, FEATURES)
            shape, dtype = keep_layout(math.prod(side // block.pool for side in sides), stored)
            self.words = room(*shape, of=dtype)

    def _finish(self, scene: Scene, statistics: Statistics | None) -> None:
        block, name = self.block, self.block.name
        self._statistics = statistics
        normalise(
            self.y,
            self.kept,
            codes=scene.codes,
            pack=scene.pack,
            statistics=statistics,
            gamma=scene.weights.get(f"{name}.bn.gamma"),
            beta=scene.weights.get(f"{name}.bn.beta"),
            pool=block.pool,
            activation_first=block.activation_first,
            keep=self._keep(scene),
            gelu=scene.gelu,
        )

    def _begin_backward(self, scene: Scene) -> None:
        block, name = self.block, self.block.name
        normalise_gradient(
            self.y,
            self.d_kept,
            self.dy,
            codes=scene.codes,
            pack=scene.pack,
            statistics=self._statistics,
            gamma=scene.weights.get(f"{name}.bn.gamma"),
            beta=scene.weights.get(f"{name}.bn.beta"),
            dgamma=scene.gradient.get(f"{name}.bn.gamma"),
            dbeta=scene.gradient.get(f"{name}.bn.beta"),
            pool=block.pool,
            activation_first=block.activation_first,
            keep=self._kept,
            gelu=scene.gelu,
        )

    def _keep(self, scene: Scene) -> Keep | None:
        """Which units stay in this pass."""
        self._kept = None
        if self.words is not None and self.block.drop is not None and scene.drops:
            draw_keep(
                self.words,
                scene.pack,
                addresses=scene.addresses,
                levels=scene.levels,
                layer=self.block.drop,
                channels=self.block.made[-1],
            )
            self._kept = Keep(words=self.words, scales=scene.scales)
        return self._kept

    def _moving(self, scene: Scene) -> tuple[Tensor, Tensor]:
        prefix = f"{self.block.name}.bn.moving_"
        return scene.weights[prefix + "mean"], scene.weights[prefix + "variance"]


class _ConvPass(_Pass):
    def __init__(
        self, block: Block, layer: Conv, x: Tensor, dx: Tensor | None, margin_after: int, room: Any
    ) -> None:
        super().__init__(block, margin_after if block.ending is None else 0, room)
        height, width, channels = block.made
        self.x, self.dx = x, dx
        self.shape = ConvShape(
            height=block.shape[0],
            width=block.shape[1],
            channels=x.shape[3],
            outputs=channels,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
        )
        self.y = room(height, width, channels)
        self.dy = room(height, width + 2 * _margin(block), channels)
        kept = height // block.pool, width // block.pool + 2 * self.margin_after, channels
        self.kept, self.d_kept = room(*kept), room(*kept)
        if block.ending is GlobalAveragePool:
            features = round_up(channels, FEATURES)
            self.out, self.d_out = room(features), room(features)
        elif block.ending is Flatten:
            self.out, self.d_out = self.kept.flatten(1), self.d_kept.flatten(1)
        else:
            self.out, self.d_out = self.kept, self.d_kept

    def forward(self, scene: Scene) -> None:
        block, weights = self.block, scene.weights
        moments = conv.convolve(
            self.x,
            weights[f"{block.name}.weight"],
            self.y,
            shape=self.shape,
            pack=scene.pack,
            bias=None if block.frozen else weights[f"{block.name}.bias"],  # which is 0
            moments=block.norm and scene.batch_statistics,
        )
        statistics = None
        if moments is not None:
            statistics = batch_statistics(moments, *self._moving(scene))
        elif block.norm:
            statistics = moving_statistics(*self._moving(scene))
        self._finish(scene, statistics)
        if block.ending is GlobalAveragePool:
            average(self.kept, self.out, width=self.kept.shape[2])

    def backward(self, scene: Scene) -> None:
        block, name = self.block, self.block.name
        if block.ending is GlobalAveragePool:
            average_gradient(self.d_out, self.d_kept, width=self.d_kept.shape[2])
        self._begin_backward(scene)
        if self.dx is not None:
            weight = scene.weights[f"{name}.weight"]
            conv.input_gradient(self.dy, weight, self.dx, shape=self.shape, pack=scene.pack)
        conv_weight_gradient(
            self.x,
            self.dy,
            scene.gradient[f"{name}.weight"],
            shape=self.shape,
            pack=scene.pack,
            db=None if block.frozen else scene.gradient[f"{name}.bias"],
        )


class _LinearPass(_Pass):
    def __init__(self, block: Block, x: Tensor, dx: Tensor | None, room: Any) -> None:
        super().__init__(block, 0, room)
        stored = round_up(block.made[0], FEATURES)
        self.x, self.dx = x, dx
        self.y, self.dy = room(stored), room(stored)
        self.kept, self.d_kept = (room(stored), room(stored)) if block.active else (self.y, self.dy)
        self.out, self.d_out = self.kept, self.d_kept

    def forward(self, scene: Scene) -> None:
        block, weights = self.block, scene.weights
        bias = weights[f"{block.name}.bias"]
        linear.linear(self.x, weights[f"{block.name}.weight"], bias, self.y, pack=scene.pack)
        if not block.active:
            return
        statistics = None
        if block.norm and scene.batch_statistics:
            codes = scene.codes if block.activation_first else torch.zeros_like(scene.codes)  # identity
            moments = activated_moments(
                self.y, channels=block.made[0], codes=codes, pack=scene.pack, gelu=scene.gelu
            )
            statistics = batch_statistics(moments, *self._moving(scene))
        elif block.norm:
            statistics = moving_statistics(*self._moving(scene))
        self._finish(scene, statistics)

    def backward(self, scene: Scene) -> None:
        block, name = self.block, self.block.name
        if block.active:
            self._begin_backward(scene)
        if self.dx is not None:
            weight, outputs = scene.weights[f"{name}.weight"], block.made[0]
            linear.input_gradient(self.dy, weight, self.dx, outputs=outputs, pack=scene.pack)
        weight_gradient, bias_gradient = scene.gradient[f"{name}.weight"], scene.gradient[f"{name}.bias"]
        linear.weight_gradient(self.x, self.dy, weight_gradient, bias_gradient, pack=scene.pack)
