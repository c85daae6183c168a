from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wse.engine.meta.models import tokens
from wse.engine.meta.models.spec import Making
from wse.engine.meta.models.tokens import CHUNK, KINDS, TokenSource, TokenTable
from wse.engine.meta.models.transformer import SPECS, WeightTransformer, encode
from wse.engine.nets import Layout
from wse.engine.zoo import Zoo

from .conftest import LAYOUTS


def noise(member: int, layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.standard_normal(layout.size)


def scaled(member: int, layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
    """Every second pair of members has a first layer three times as large."""
    values = noise(member, layout, rng)
    spec = layout.tensors["conv1.weight"]
    values[spec.offset : spec.stop] *= 1 + 2 * (member // 2 % 2)
    return values


@pytest.mark.parametrize("name", LAYOUTS)
def test_tokens_hold_every_value_once_and_keep_to_rows(name: str) -> None:
    layout = LAYOUTS[name]
    table = TokenTable.of(layout)
    seen = np.concatenate([np.arange(a, a + n) for a, n in zip(table.start, table.count, strict=True)])
    assert sorted(seen) == list(range(layout.size))
    assert 1 <= table.count.min() <= table.count.max() == CHUNK
    for start, count, code in zip(table.start, table.count, table.codes, strict=True):
        (spec,) = (spec for spec in layout.tensors.values() if spec.offset <= start < spec.stop)
        columns = spec.size // spec.shape[0] if len(spec.shape) > 1 else spec.size
        assert (start - spec.offset) // columns == (start - spec.offset + count - 1) // columns
        kind = f"{spec.layer[:-1]}.weight" if spec.kind == "weight" else spec.kind
        assert KINDS[code[0]] == kind
        assert tuple(code[1:]) == ((0, 1) if spec.layer == "conv1" else (1, 0))


def test_inputs_are_the_weights(planted: Callable[..., Zoo]) -> None:
    items = planted(noise, 4).items()
    inputs = TokenSource(items).inputs(np.arange(4))
    for index in range(4):
        table = TokenTable.of(items.layout(index))
        inside = inputs["counts"][index] > 0
        assert inside.sum() == len(table)
        for token, (start, count) in enumerate(zip(table.start, table.count, strict=True)):
            values = inputs["values"][index, token]
            np.testing.assert_array_equal(values[:count], items.weights(index, start, start + count))
            assert not values[count:].any()


def test_padding_and_the_order_of_tokens_change_nothing(planted: Callable[..., Zoo]) -> None:
    source = TokenSource(planted(noise, 4).items())
    torch.manual_seed(0)
    net = WeightTransformer(3).eval()
    with torch.no_grad():
        together = net(source.inputs(np.arange(4)))
        for index in range(4):
            alone = source.inputs(np.array([index]))
            order = torch.randperm(alone["counts"].shape[1])
            for inputs in (alone, {name: value[:, order] for name, value in alone.items()}):
                torch.testing.assert_close(net(inputs)[0], together[index], rtol=1e-4, atol=1e-5)
    assert (together[0] - together[2]).abs().max() > 1e-3


def test_extreme_values_are_finite() -> None:
    values = torch.stack([torch.full((1, CHUNK), size) for size in (0.0, 1e-30, 1e30, 1e38)])
    for told in encode(values, torch.full((4, 1), CHUNK)):
        assert told.isfinite().all()


def test_tokens_are_drawn_anew_in_each_epoch(planted: Callable[..., Zoo], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "TRAINING_TOKENS", 6)
    monkeypatch.setattr(tokens, "TOKENS", 10)
    source = TokenSource(planted(noise, 40, architectures=("wide",)).items())
    assert source.random
    every = np.arange(40)

    def drawn(epoch: int) -> torch.Tensor:
        source.set_epoch(epoch)
        return source.inputs(every)["values"]

    assert drawn(1).shape[1] == 6
    assert drawn(0).shape[1] == drawn(-1).shape[1] == 10
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(0), drawn(-1))
    torch.testing.assert_close(drawn(1), drawn(1), rtol=0, atol=0)
    torch.testing.assert_close(source.only(every % 2 == 0).inputs(every[:20]), source.inputs(every[::2]))
    # 4 + 1 + 4 tokens of conv1 and 30 of fc1: a token that is alone in its tensor is read more often.
    source.set_epoch(3)
    kinds = source.inputs(every)["codes"][:, :, 0]
    assert (kinds == KINDS.index("gamma")).sum() > (kinds == KINDS.index("fc.weight")).sum() / 20 * 1.5


def test_a_planted_scale_is_found_in_networks_of_two_architectures(planted: Callable[..., Zoo]) -> None:
    items = planted(scaled, 160).items(snapshots="all")
    train, test = items.split((0.75, 0.25))
    (spec,) = SPECS
    model = spec.make(Making(kind="classification", seed=0)).set_params(
        epochs=20, batch_size=16, learning_rate=2e-3
    )
    model.fit(train, train.members // 2 % 2, train.members)
    assert model.score(test, test.members // 2 % 2) > 0.9
    shuffled = np.random.default_rng(0).integers(2, size=160)
    model.set_params(epochs=8).fit(train, shuffled[train.members], train.members)
    assert model.score(test, shuffled[test.members]) == pytest.approx(0.5, abs=0.25)


def test_a_planted_number_is_found(planted: Callable[..., Zoo]) -> None:
    sizes = np.random.default_rng(3).uniform(1, 3, 200)
    items = planted(lambda member, layout, rng: sizes[member] * noise(member, layout, rng), 200).items()
    train, test = items.split((0.75, 0.25))
    (spec,) = SPECS
    model = spec.make(Making(kind="regression")).set_params(epochs=20, batch_size=16, learning_rate=2e-3)
    model.fit(train, sizes[train.members], train.members)
    assert model.score(test, sizes[test.members]) > 0.8
