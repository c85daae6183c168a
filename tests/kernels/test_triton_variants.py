"""The kernels' lists of what they can be compiled to are complete, and fit the kernels."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from wse.engine.nets import (
    Activate,
    Architecture,
    BatchNorm,
    Conv,
    GlobalAveragePool,
    Linear,
    MaxPool,
)
from wse.engine.nets.families import FAMILIES
from wse.engine.space import Space
from wse.kernels.batchnorm.windows import known_features, known_windows
from wse.kernels.conv.shapes import ConvShape, known_shapes
from wse.kernels.linear.triton import known_layers

MODULES = (
    "wse.kernels.batchnorm.triton",
    "wse.kernels.batchnorm.triton_gradient",
    "wse.kernels.conv.triton",
    "wse.kernels.conv.triton_gradient",
    "wse.kernels.linear.triton",
    "wse.kernels.pool.triton",
    "wse.kernels.slices.triton",
)


@pytest.mark.parametrize("module", MODULES)
def test_variants_name_every_argument_once(module: str) -> None:
    names = set()
    for variant in importlib.import_module(module).variants():
        assert variant.name not in names
        names.add(variant.name)
        assert not set(variant.signature) & set(variant.constexprs)
        assert set(variant.signature) | set(variant.constexprs) == set(variant.kernel.arg_names), variant.name
        assert set(variant.aligned) <= set(variant.signature)
    assert names


def architectures() -> Iterator[Architecture]:
    """All that the presets can ask for, with and without batch normalisation."""
    for preset in ("nws-main", "nws-fixed", "small-cnn"):
        space = Space.load(preset=preset)
        family = FAMILIES[space.settings.family]
        choices = [{}]
        for name in family.properties:
            values = (False, True) if name == "batch_norm" else space.choices(name)
            choices = [{**chosen, name: value} for chosen in choices for value in values]
        for chosen in choices:
            yield family.build(**chosen)


def test_every_layer_of_the_presets_is_known() -> None:
    convolutions, features, layers = set(known_shapes()), set(known_features()), set(known_layers())
    windows = {(w.height, w.width, w.channels, w.pool, w.out_margin) for _, w, _ in known_windows(gradient=False)}
    back = {(w.height, w.width, w.channels, w.pool, w.margin) for _, w, _ in known_windows(gradient=True)}
    asked_convolutions, asked_layers = set(), set()
    for architecture in architectures():
        shapes = architecture.shapes()
        kernel = next(layer.kernel for layer in architecture.layers if isinstance(layer, Conv))
        same = next(layer.padding for layer in architecture.layers if isinstance(layer, Conv)) == "same"
        margin = (kernel - 1) // 2 if same else 0
        for index, layer in enumerate(architecture.layers):
            before, rest = shapes[index], architecture.layers[index + 1 :]
            after_norm = [other for other in rest if not isinstance(other, BatchNorm)]
            if isinstance(layer, Conv):
                shape = ConvShape(
                    height=before[0], width=before[1], channels=-(-before[2] // 4) * 4, outputs=layer.channels,
                    kernel=layer.kernel, stride=layer.stride, padding=layer.padding,
                )  # fmt: skip
                asked_convolutions.add(shape)
                pool = 2 if isinstance(after_norm[1], MaxPool) else 1
                last = not any(isinstance(other, Conv) for other in rest)
                size = (shape.out_height, shape.out_width, shape.outputs, pool)
                assert (*size, 0 if last else margin) in windows
                assert (*size, margin) in back
            elif isinstance(layer, Linear):
                asked_layers.add((before[0], layer.features))
                if after_norm and isinstance(after_norm[0], Activate):
                    assert layer.features in features
            elif isinstance(layer, GlobalAveragePool):
                assert before == (3, 3, 16)
    assert asked_convolutions == convolutions  # and none that nobody asks for
    assert asked_layers == layers
