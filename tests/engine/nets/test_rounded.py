"""The network that rounds to bfloat16: where it does, and that it learns in full precision."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from wse.engine.nets import Layout, initial_weights
from wse.engine.nets.families import FAMILIES
from wse.engine.nets.module import Network
from wse.engine.nets.rounded import RoundedNetwork
from wse.engine.train.reference import bind

ARCHITECTURES = {
    "nws": FAMILIES["nws"].build(
        filter_size=3, depth_conv=3, width_conv=2, depth_fc=1, width_fc=8, batch_norm=True
    ),
    "small-cnn": FAMILIES["small-cnn"].build(filter_size=3, depth_conv=2, width_conv=4, batch_norm=False),
}


def is_bfloat16(values: torch.Tensor) -> bool:
    return torch.equal(values, values.to(torch.bfloat16).to(values.dtype))


@pytest.fixture(params=ARCHITECTURES)
def networks(request):
    """The same network plain and rounded, in training, with a dropout that keeps all and scales."""
    architecture = ARCHITECTURES[request.param]
    layout = Layout(architecture)
    weights = torch.from_numpy(initial_weights(layout, "glorot_uniform", seed=1, member=2, gamma_std=0.3))
    made = []
    for kind in (Network, RoundedNetwork):
        network = kind(architecture, "elu").train()
        bind(network, layout, weights.clone())
        network.dropout_function = lambda layer, values: values * (1.1 + layer)
        made.append(network)
    return made


def test_what_passes_between_blocks_is_bfloat16(networks):
    plain, rounded = networks
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen: dict[str, list[torch.Tensor]] = {"in": [], "gradient": []}
    for module in rounded.children():
        module.register_forward_pre_hook(lambda _, inputs: seen["in"].append(inputs[0]))
        module.register_full_backward_hook(lambda _, __, gradients: seen["gradient"].append(gradients[0]))
    logits = rounded(images)
    torch.nn.functional.cross_entropy(logits, torch.arange(6)).backward()
    assert len(seen["in"]) == len(seen["gradient"]) == len(list(rounded.children()))
    assert is_bfloat16(logits)
    assert all(is_bfloat16(values) for values in seen["in"])
    assert all(is_bfloat16(values) for values in seen["gradient"])
    # Weights and their gradients keep all their digits, and it is still the same network.
    torch.nn.functional.cross_entropy(plain(images), torch.arange(6)).backward()
    assert not is_bfloat16(plain(images))
    for (name, one), other in zip(rounded.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert "weight" not in name or not is_bfloat16(one.grad), name
    torch.testing.assert_close(logits, plain(images), rtol=0.05, atol=0.05)


def test_products_are_of_rounded_weights(networks):
    _, rounded = networks
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    coarse = copy.deepcopy(rounded)
    with torch.no_grad():
        for name, parameter in coarse.named_parameters():
            if name.endswith(".weight"):
                parameter.copy_(parameter.to(torch.bfloat16))
        assert torch.equal(rounded(images), coarse(images))
        coarse.fc1.weight.mul_(1.01)
        assert not torch.equal(rounded(images), coarse(images))


def test_it_can_be_pickled(networks):
    _, rounded = networks
    rounded.dropout_function = None
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(pickle.loads(pickle.dumps(rounded)).eval()(images), rounded.eval()(images))
