"""The kernels' lists of what they can be compiled to: they fit the kernels, and are what the presets launch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from wse.engine.nets import Architecture
from wse.engine.nets.families import FAMILIES
from wse.engine.space import Space
from wse.engine.train.cuda_forms import launch_measurement, launch_step
from wse.kernels.triton_check import modules, variants_of

POINTERS = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.uint8: "*u8",
    torch.int8: "*i8", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip

Form = tuple[str, int, frozenset[tuple[str, Any]], frozenset[tuple[str, str]]]


@pytest.mark.parametrize("module", modules())
def test_variants_name_every_argument_once(module: str) -> None:
    names = set()
    for variant in importlib.import_module(f"wse.kernels.{module}").variants():
        assert variant.name not in names
        names.add(variant.name)
        assert not set(variant.signature) & set(variant.constexprs)
        assert set(variant.signature) | set(variant.constexprs) == set(variant.kernel.arg_names), variant.name
        assert set(variant.aligned) <= set(variant.signature)
    assert names


def architectures(preset: str) -> Iterator[Architecture]:
    """All that it can ask for, with and without batch normalisation."""
    space = Space.load(preset=preset)
    family = FAMILIES[space.settings.family]
    choices: list[dict[str, Any]] = [{}]
    for name in family.properties:
        values = (False, True) if name == "batch_norm" else space.choices(name)
        choices = [{**chosen, name: value} for chosen in choices for value in values]
    for chosen in choices:
        yield family.build(**chosen)


def launch(architecture: Architecture, dtype: torch.dtype, *, augment: bool) -> None:
    """A training step and measurements of both kinds, of tensors that have no memory."""
    given: Any = {"classes": architecture.outputs, "augment": augment, "gelu": False}
    launch_step(architecture, dtype, **given)
    for batch_statistics in (False, True):
        launch_measurement(architecture, dtype, **given, batch_statistics=batch_statistics)


@pytest.mark.skipif(torch.cuda.is_available(), reason="launches are recorded in the interpreter")
def test_the_forms_are_those_that_the_presets_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    launched: set[Form] = set()

    def keep(self: Any, *arguments: Any, **options: Any) -> None:
        named = dict(zip(self.arg_names, arguments, strict=False)) | options
        constants = frozenset((name, named[name]) for name in self.constexprs if name in named)
        pointers = frozenset(
            (name, POINTERS[value.dtype]) for name, value in named.items() if isinstance(value, torch.Tensor)
        )
        launched.add((self.fn.__name__, options.get("num_warps", 4), constants, pointers))

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", keep)
    for preset in ("nws-main", "nws-fixed", "small-cnn"):
        for architecture in architectures(preset):
            for dtype in (torch.bfloat16, torch.float32):
                launch(architecture, dtype, augment=preset != "small-cnn")
    known: set[Form] = {
        (
            variant.kernel.__name__,
            variant.num_warps,
            frozenset(variant.constexprs.items()),
            frozenset((name, kind) for name, kind in variant.signature.items() if kind.startswith("*")),
        )
        for module in modules()
        if not module.startswith("slices")
        for variant in variants_of(module)
    }
    assert not launched - known, (
        "these would be compiled when they are first launched, and nobody has looked at them"
    )
    unasked = {form for form in known - launched if ("WITH_GELU", True) not in form[2]}
    assert not unasked, "nobody launches these"
