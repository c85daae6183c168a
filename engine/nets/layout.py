"""The map between a network's flat weight vector [D] and its named tensors.

Order: the layers as they stand in the architecture; in each the weight, the bias, then the batch
normalisation that belongs to it: beta, gamma, moving mean, moving variance. Weights have PyTorch's shapes:
a convolution (out, in, height, width), a linear layer (out, in). The moving statistics are part of the vector
(a network cannot be run without them) but are not trained; they are flagged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..errors import UsageError
from .architecture import Activate, Architecture, BatchNorm, Conv, Dropout, Linear

Kind = Literal["weight", "bias", "beta", "gamma", "moving_mean", "moving_variance"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One named tensor of the flat vector.

    Attributes:
        name: for instance ``conv2.weight`` or ``fc1.bn.moving_mean``.
        layer: the layer it belongs to, for instance ``conv2``.
        kind: its role in the layer.
        shape: its shape.
        offset: where it starts in the flat vector, in values.
        frozen: it is a bias that batch normalisation follows directly, so mathematically it has no gradient.
            It is defined as exactly 0: what floating point leaves of it is rounding noise.
    """

    name: str
    layer: str
    kind: Kind
    shape: tuple[int, ...]
    offset: int
    frozen: bool = False

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        """One past its last place in the flat vector."""
        return self.offset + self.size

    @property
    def is_statistic(self) -> bool:
        """Whether it is a moving mean or variance: stored, needed to run the network, but not trained."""
        return self.kind in ("moving_mean", "moving_variance")

    @property
    def fans(self) -> tuple[int, int]:
        """(fan in, fan out) of a weight; those of a convolution count the receptive field."""
        receptive_field = math.prod(self.shape[2:])
        return self.shape[1] * receptive_field, self.shape[0] * receptive_field


class Layout:
    """The named tensors of an architecture, in the order of its flat vector.

    Args:
        architecture: the network.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.tensors: Mapping[str, TensorSpec] = {spec.name: spec for spec in _tensors(architecture)}

    @cached_property
    def size(self) -> int:
        """D, the length of the flat vector."""
        return sum(spec.size for spec in self.tensors.values())

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that have tensors, in order: conv1, conv2, ..., fc1, ..."""
        return tuple(dict.fromkeys(spec.layer for spec in self.tensors.values()))

    def part(self, name: str) -> tuple[int, int]:
        """Where a part lies in the flat vector.

        Args:
            name: ``all``, a kind of layer (``conv``, ``fc``), a layer (``conv3``), or what lies below it
                (``conv3.weight``, ``conv3.bn``, ``conv3.bn.gamma``).

        Returns:
            (start, stop), in values. A part is always one consecutive run.

        Raises:
            UsageError: there is no such part.
        """
        if name == "all":
            return 0, self.size
        inside = [
            spec
            for spec in self.tensors.values()
            if spec.name == name or spec.name.startswith(name + ".") or spec.layer.rstrip("0123456789") == name
        ]
        if not inside:
            known = ", ".join(dict.fromkeys(map(_kind_of_layer, self.layers)))
            raise UsageError(
                f"no part {name!r} in architecture {self.architecture.name}: "
                f"use all, {known}, {', '.join(self.layers)} or a tensor such as {next(iter(self.tensors))}"
            )
        return inside[0].offset, inside[-1].stop

    def runs(self, name: str, *, statistics: bool = False) -> tuple[tuple[int, int, str], ...]:
        """The values of a part, layer by layer.

        Args:
            name: of the part.
            statistics: whether moving means and variances are among them.

        Returns:
            (start, stop, layer) of consecutive values of one layer, in order. Without statistics what they take
            lies between runs; there is no run where a part has nothing else.

        Raises:
            UsageError: there is no such part.
        """
        start, stop = self.part(name)
        runs: list[tuple[int, int, str]] = []
        for spec in self.tensors.values():
            if spec.offset < start or spec.stop > stop or (spec.is_statistic and not statistics):
                continue
            if runs and runs[-1][1:] == (spec.offset, spec.layer):
                runs[-1] = (runs[-1][0], spec.stop, spec.layer)
            else:
                runs.append((spec.offset, spec.stop, spec.layer))
        return tuple(runs)

    def __repr__(self) -> str:
        return f"Layout({self.architecture.name}, {self.size:,} values in {len(self.tensors)} tensors)"


def _kind_of_layer(layer: str) -> str:
    return layer.rstrip("0123456789")


def _tensors(architecture: Architecture) -> Iterator[TensorSpec]:
    offset = 0
    shapes, owners = architecture.shapes(), architecture.owners()

    def spec(kind: Kind, shape: tuple[int, ...], prefix: str = "", frozen: bool = False) -> TensorSpec:
        nonlocal offset
        made = TensorSpec(
            name=f"{owner}.{prefix}{kind}", layer=owner, kind=kind, shape=shape, offset=offset, frozen=frozen
        )
        offset = made.stop
        return made

    for index, layer in enumerate(architecture.layers):
        owner, fan_in = owners[index], shapes[index][-1]  # channels of an image, length of a vector
        match layer:
            case Conv():
                yield spec("weight", (layer.channels, fan_in, layer.kernel, layer.kernel))
                yield spec("bias", (layer.channels,), frozen=_norm_follows(architecture, index))
            case Linear():
                yield spec("weight", (layer.features, fan_in))
                yield spec("bias", (layer.features,), frozen=_norm_follows(architecture, index))
            case BatchNorm():
                for kind in ("beta", "gamma", "moving_mean", "moving_variance"):
                    yield spec(kind, (fan_in,), prefix="bn.")
            case _:
                pass


def _norm_follows(architecture: Architecture, index: int) -> bool:
    """Whether batch normalisation comes before anything that would make the bias matter."""
    for layer in architecture.layers[index + 1 :]:
        if isinstance(layer, BatchNorm):
            return True
        if isinstance(layer, (Activate, Conv, Dropout, Linear)):
            return False
    return False
