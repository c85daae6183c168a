"""The kernels' lists of what they can be compiled to: they fit the kernels, and are what the presets launch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from gpu_code import TYPES, step_without_memory

from wse.engine.nets import Architecture
from wse.engine.nets.families import FAMILIES
from wse.engine.space import Space
from wse.kernels.loss.triton import cross_entropy, tally
from wse.kernels.triton_check import modules, variants_of

MEMBERS, BATCH = 2, 3

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
    step = step_without_memory(architecture, MEMBERS, BATCH, dtype, augment=augment)
    step._launch()
    network, pack, labels = step.network, step.pack, step._resident.labels
    for batch_statistics in (False, True):
        network.forward(replace(step._scene, gradient={}, drops=False, batch_statistics=batch_statistics))
    integers = {"dtype": torch.int32, "device": labels.device}
    indices, answers = torch.zeros(2, MEMBERS * BATCH, **integers)
    losses = torch.zeros(MEMBERS * BATCH, device=labels.device)
    sums = torch.zeros(MEMBERS, dtype=torch.float64, device=labels.device)
    counts = torch.zeros(MEMBERS, architecture.outputs, **integers)
    given = {"indices": indices, "labels": labels, "losses": losses, "answers": answers}
    cross_entropy(network.logits, pack, **given, outputs=architecture.outputs, gradient=None)
    tally(sums, counts[:, 0].contiguous(), counts, pack, **given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="launches are recorded in the interpreter")
def test_the_forms_are_those_that_the_presets_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    launched: set[Form] = set()

    def keep(self: Any, *arguments: Any, **options: Any) -> None:
        named = dict(zip(self.arg_names, arguments, strict=False)) | options
        constants = frozenset((name, named[name]) for name in self.constexprs if name in named)
        pointers = frozenset(
            (name, TYPES[value.dtype]) for name, value in named.items() if isinstance(value, torch.Tensor)
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
