"""A network as neurons and connections: the view in which its symmetries are seen.

A neuron is a channel of the input or of a convolution, or a unit of a linear layer. A connection is a layer with
weights: it leads from all neurons of the layer before it to all of its own, with a value or several for each pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .architecture import Conv, Flatten, Linear
from .layout import Layout, TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """The tensors of one layer.

    Attributes:
        layer: its name, ``conv1``, ``fc2``, ...
        weight: its weight.
        vectors: what belongs to its neurons one by one: its bias, then the batch normalisation's four.
        inputs: neurons before it.
        outputs: its own neurons.
        taps: rows and columns of the values for a pair of neurons: a convolution's filter; the pixels of an image
            that was flattened before a linear layer; 1 x 1 for other linear layers.
        linear: whether it is a linear layer, and no convolution.
    """

    layer: str
    weight: TensorSpec
    vectors: tuple[TensorSpec, ...]
    inputs: int
    outputs: int
    taps: tuple[int, int]
    linear: bool

    @property
    def stop(self) -> int:
        """One past its last place in the flat vector."""
        return self.vectors[-1].stop

    def pairs(self, weights: Any) -> Any:
        """Its weight in flat vectors [..., D], arrays or tensors, as [..., outputs, inputs, taps].

        Of an array whose values lie one after the other it is a view.
        """
        values = weights[..., self.weight.offset : self.weight.stop]
        taps = self.taps[0] * self.taps[1]
        if self.linear:  # pixels are the outer index of what comes in: see `Flatten`
            return values.reshape(*values.shape[:-1], self.outputs, taps, self.inputs).swapaxes(-1, -2)
        return values.reshape(*values.shape[:-1], self.outputs, self.inputs, taps)

    def own(self, vector: TensorSpec, weights: Any) -> Any:
        """One of its vectors in flat vectors [..., D], as [..., outputs, places]; a view as in `pairs`.

        A neuron has one place, but for a batch normalisation that stands after the flattening: there it has as
        many as there are pixels.
        """
        values = weights[..., vector.offset : vector.stop]
        return values.reshape(*values.shape[:-1], -1, self.outputs).swapaxes(-1, -2)


def connections(layout: Layout) -> tuple[Connection, ...]:
    """The connections of a network, from the input to the logits."""
    architecture = layout.architecture
    shapes = architecture.shapes()
    names = iter(layout.layers)
    found = []
    neurons, pixels = shapes[0][-1], (1, 1)
    for shape, layer in zip(shapes, architecture.layers, strict=False):
        match layer:
            case Conv(channels=outputs, kernel=kernel):
                taps = (kernel, kernel)
            case Linear(features=outputs):
                taps = pixels
            case Flatten() if len(shape) == 3:
                pixels = shape[:2]
                continue
            case _:
                continue
        name = next(names)
        weight, *vectors = (spec for spec in layout.tensors.values() if spec.layer == name)
        found.append(
            Connection(
                layer=name,
                weight=weight,
                vectors=tuple(vectors),
                inputs=neurons,
                outputs=outputs,
                taps=taps,
                linear=isinstance(layer, Linear),
            )
        )
        neurons, pixels = outputs, (1, 1)
    return tuple(found)
