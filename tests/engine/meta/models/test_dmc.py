from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from wse.engine.errors import UsageError
from wse.engine.meta.models.dmc import DMC, POOL, SPECS, body
from wse.engine.meta.models.spec import Making


@pytest.mark.parametrize(("length", "parameters"), [(5000, 10_395_285), (92_868, 10_936_341)])
def test_parameters_are_as_many_as_the_study_had(length: int, parameters: int) -> None:
    with torch.device("meta"):
        net = DMC(length, 5)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def convolutions(layers: list[int]) -> list[tuple[int, int, bool]]:
    """(channels in, channels out, whether a pool follows)."""
    widths = [layer for layer in layers if layer != POOL]
    pooled = [following == POOL for layer, following in itertools.pairwise([*layers, -1]) if layer != POOL]
    return list(zip([1, *widths], widths, pooled, strict=False))


def test_layers_of_the_local_form() -> None:
    assert convolutions(body(5000)) == [
        (1, 8, True),
        (8, 16, True),
        (16, 32, False),
        (32, 64, True),
        (64, 128, False),
        (128, 256, True),  # 625 values are over 50
        (256, 256, True),
        (256, 256, True),
        (256, 256, True),
        (256, 256, False),  # 39 are not
        (256, 256, False),
        (256, 256, True),
    ]
    assert [bool(pool) for *_, pool in convolutions(body(300))][5:] == [False] * 6 + [True]
    assert len(convolutions(body(40_000))) == 12


def test_layers_of_the_global_form() -> None:
    layers = convolutions(body(40_001))
    assert [out for _, out, _ in layers] == [8, 16, 32, 64, 128, 128, 128, 128, 128, 128, 256, 256, 256, 256, 256]
    assert [pool for *_, pool in layers] == [True] * 9 + [False, True] * 3


def test_order_of_layers_and_initial_weights() -> None:
    torch.manual_seed(0)
    net = DMC(200, 5)
    kinds = [type(layer) for layer in net.body]
    for index, kind in enumerate(kinds):
        if kind is nn.Conv1d:
            assert kinds[index : index + 3] == [nn.Conv1d, nn.ReLU, nn.BatchNorm1d]
    assert [type(layer) for layer in net.head] == [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout] * 5 + [
        nn.Linear
    ]
    assert [layer.out_features for layer in net.head if isinstance(layer, nn.Linear)] == [*[1024] * 4, 64, 5]
    assert {layer.p for layer in net.head if isinstance(layer, nn.Dropout)} == {0.5}
    for layer in net.modules():
        if isinstance(layer, (nn.Conv1d, nn.Linear)):
            field = 5 if isinstance(layer, nn.Conv1d) else 1
            weight = layer.weight.detach()
            std = math.sqrt(2 / (field * sum(weight.shape[:2])))
            assert weight.abs().max() <= 2 * std / 0.8796 * 1.001
            if weight.numel() > 1000:
                assert weight.std() == pytest.approx(std, rel=0.08)
            assert not layer.bias.any()
        if isinstance(layer, nn.BatchNorm1d):
            assert (layer.weight == 1).all()
            assert layer.eps == 1e-5
            assert layer.momentum == pytest.approx(0.1)  # the new value's share: the average decays by 0.9


@pytest.mark.parametrize("length", [16, 203])
def test_forward_is_the_formula(length: int) -> None:
    """In evaluation mode and float64, against loops over places and plain matrix products."""
    torch.manual_seed(1)
    net = DMC(length, 3).double().eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d):
            for values in (layer.weight, layer.bias, layer.running_mean):
                nn.init.normal_(values)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = np.random.default_rng(0).normal(size=(2, length))
    parameters = {name: value.numpy() for name, value in net.state_dict().items()}

    def normalised(z: np.ndarray, name: str) -> np.ndarray:
        """Over the second axis of z [B, features, ...]."""
        shape = (1, -1) + (1,) * (z.ndim - 2)
        weight, bias, mean, variance = (
            parameters[f"{name}.{part}"].reshape(shape)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return weight * (z - mean) / np.sqrt(variance + 1e-5) + bias

    z, index = x[:, None], 0
    for layer in body(length):
        if layer == POOL:
            places = z.shape[2] // 2
            z = np.maximum(z[:, :, 0 : 2 * places : 2], z[:, :, 1 : 2 * places : 2])
            index += 1
            continue
        w, b = parameters[f"body.{index}.weight"], parameters[f"body.{index}.bias"]
        padded = np.pad(z, ((0, 0), (0, 0), (2, 2)))
        sums = [np.einsum("bck,ock->bo", padded[:, :, at : at + 5], w) + b for at in range(z.shape[2])]
        z = normalised(np.maximum(np.stack(sums, axis=2), 0), f"body.{index + 2}")
        index += 3
    z = z.reshape(len(z), -1)
    for index in range(0, 20, 4):
        w, b = parameters[f"head.{index}.weight"], parameters[f"head.{index}.bias"]
        z = normalised(np.maximum(z @ w.T + b, 0), f"head.{index + 2}")
    z = z @ parameters["head.20.weight"].T + parameters["head.20.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(x)).numpy(), z, rtol=1e-10, atol=1e-12)


def test_lengths_it_cannot_read() -> None:
    with pytest.raises(UsageError, match="slices of 15 values are too short"):
        DMC(15, 2)
    with pytest.raises(ValueError, match="fitted to slices of 20 values, not 21"):
        DMC(20, 2)(torch.zeros(1, 21))


def test_recipe_is_the_study_s() -> None:
    (spec,) = SPECS
    model = spec.make(Making(kind="classification"))
    assert (model.epochs, model.batch_size, model.learning_rate, model.schedule) == (50, 64, 1e-3, "constant")
    assert model.weight_decay == 0


def test_a_planted_scale_is_found_by_its_recipe() -> None:
    rng = np.random.default_rng(0)
    members = np.arange(400) // 2
    X = ((1 + 2 * (members % 2))[:, None] * rng.normal(size=(400, 64))).astype(np.float32)
    train = members < 150
    (spec,) = SPECS
    model = spec.make(Making(kind="classification")).set_params(epochs=8)
    model.fit(X[train], members[train] % 2, members[train])
    assert model.score(X[~train], members[~train] % 2) > 0.9
    shuffled = rng.integers(2, size=200)[members]
    model.set_params(epochs=4).fit(X[train], shuffled[train], members[train])
    assert model.score(X[~train], shuffled[~train]) == pytest.approx(0.5, abs=0.25)
