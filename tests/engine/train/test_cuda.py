"""The CUDA backend against the reference in float64: packs of members that differ in all but their architecture.

Without a GPU the kernels run in Triton's interpreter, in float32.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from wse.engine.nets import Layout, initial_weights
from wse.engine.nets.families import FAMILIES
from wse.engine.train import EvaluationRequest, Interrupted, ReferenceBackend
from wse.engine.train.cuda import CudaBackend

SEED = 2**63 + 3
NWS = {"filter_size": 3, "depth_conv": 3, "width_conv": 2, "depth_fc": 1, "width_fc": 8, "batch_norm": True}
SMALL = {"filter_size": 3, "depth_conv": 2, "width_conv": 4, "batch_norm": False}

# What members of a pack differ in.
DIFFERENCES: list[dict[str, Any]] = [
    {"optimizer": "adam", "batch_size": 5, "activation": "relu", "augmentation": True, "dropout": 0.5},
    {"optimizer": "sgd", "batch_size": 3, "activation": "tanh", "l2": 0.01, "dropout": 0.0},
    {"optimizer": "momentum", "batch_size": 4, "activation": "elu", "weight_decay": 0.1, "train_fraction": 0.3},
    {"optimizer": "rmsprop", "batch_size": 2, "activation": "sigmoid", "learning_rate_schedule": "cosine"},
]

# NumPy warns of exponentials in the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def context(tiny_space, context_of):
    return context_of(tiny_space(), seed=SEED)


def architecture_of(family: str = "nws", **changes: Any):
    return FAMILIES[family].build(**({"nws": NWS, "small-cnn": SMALL}[family] | changes))


def members_of(tiny_space, differences=DIFFERENCES, **common: Any):
    made = tiny_space().members(SEED, range(len(differences)))
    plain = {"augmentation": False, "learning_rate": 0.01, "learning_rate_schedule": "constant", "epochs": 3}
    return [
        dataclasses.replace(
            member, setup=msgspec.structs.replace(member.setup, **(plain | different | common))
        )
        for member, different in zip(made, differences, strict=True)
    ]


def weights_of(architecture, member: int):
    """With biases, shifts and moving statistics that matter."""
    layout = Layout(architecture)
    weights = initial_weights(layout, "glorot_uniform", seed=SEED, member=member, gamma_std=0.3)
    rng = np.random.default_rng(member)
    for spec in layout.tensors.values():
        if spec.kind in ("bias", "beta", "moving_mean") and not spec.frozen:
            weights[spec.offset : spec.stop] = rng.normal(size=spec.size) * 0.1
    return weights


def packed(device, architecture, rows, context, evaluation_images=12):
    return CudaBackend("fp32", device=device, evaluation_images=evaluation_images).open(architecture, rows, context)


def trained(pack, architecture, members, epochs):
    """Weights and facts of each member's epochs, when each has had as many."""
    for row, member in enumerate(members):
        pack.place(row, member, weights_of(architecture, member.id))
    ends: dict[int, list[Any]] = {row: [] for row in range(len(members))}
    weights = {}
    while len(weights) < len(members):
        for end in pack.advance():
            ends[end.row].append(end)
            if len(ends[end.row]) == epochs:
                weights[end.row] = pack.weights(end.row)
                pack.release(end.row)
    return [weights[row] for row in range(len(members))], ends


def alone(backend, architecture, member, context, epochs):
    pack = backend.open(architecture, 1, context)
    weights, ends = trained(pack, architecture, [member], epochs)
    return weights[0], ends[0]


def compare(device, architecture, members, context, epochs=1):
    weights, ends = trained(packed(device, architecture, len(members), context), architecture, members, epochs)
    for row, member in enumerate(members):
        exact, exact_ends = alone(ReferenceBackend(torch.float64), architecture, member, context, epochs)
        single, _ = alone(ReferenceBackend(), architecture, member, context, epochs)
        for end, exact_end in zip(ends[row], exact_ends, strict=True):
            assert (end.steps, end.images, end.finite) == (exact_end.steps, exact_end.images, exact_end.finite)
            assert end.loss == pytest.approx(exact_end.loss, rel=1e-4)
        start = weights_of(architecture, member.id)
        # By the change that training made: at most ten times the error of PyTorch's float32, or a ten-thousandth.
        change, error, allowed = (np.linalg.norm(other - exact) for other in (start, weights[row], single))
        assert change > 0
        assert error <= max(10 * allowed, 1e-4 * change), (member.setup, error / change, allowed / change)


def test_members_of_a_pack_are_the_references(device, tiny_space, context):
    members = members_of(tiny_space, images_per_epoch=5)
    compare(device, architecture_of(), members, context)


def test_two_epochs_of_several_steps(device, tiny_space, context):
    members = members_of(tiny_space, DIFFERENCES[:2], images_per_epoch=8)
    compare(device, architecture_of("small-cnn"), members, context, epochs=2)
