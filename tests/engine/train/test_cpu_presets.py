"""One step of members drawn from the presets themselves, by the CPU backend and by the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wse.engine.nets import Layout, initial_weights
from wse.engine.space import Member, Space

from .test_cpu import compare_step

EXAMPLES = {"nws-main": 130, "nws-fixed": 40, "small-cnn": 110}
# What makes a step cheap and single. Augmentation, whose arithmetic is float32 everywhere, has tests of its own.
OVERRIDES = {
    "dataset": "digits",
    "batch_size": 32,
    "images_per_epoch": [5, 16, 19, 32],
    "epochs": 1,
    "augmentation": False,
}
VARIED = (
    *("optimizer", "activation", "initialization", "filter_size", "depth_conv", "depth_fc", "width_conv"),
    *("width_fc", "images_per_epoch"),
)

# Where rounding is magnified without bound, so that PyTorch's float32 may be right by luck where ours is not, and
# the other way round; there, bounds follow from how much float64 itself moves when the weights are nudged by a
# rounding. With constant weights the gradient with respect to the last hidden layer is 0.1 times the sum of
# softmax - label, which is 0: all gradients below it are rounding, and normalisation divides by the deviation of
# units that all do the same. With weights of deviation 1 sums reach 20 and more, sigmoid and tanh come within a
# rounding of their limits, and a normalisation that follows divides by what is left of their deviation.
MAGNIFY = {"nws-main": ("constant", "normal"), "nws-fixed": ("constant", "normal"), "small-cnn": ()}


def first_weights(member: Member, space: Space, draw: int) -> np.ndarray:
    """What a member starts from (draw 0), or would with another seed."""
    setup = member.setup
    return initial_weights(
        Layout(member.architecture), setup.initialization, seed=member.seed + draw, member=member.id,
        std=setup.init_std or 1.0, constant=space.settings.init_constant, gamma_std=space.settings.gamma_std,
    )  # fmt: skip


@pytest.mark.parametrize("preset", EXAMPLES)
def test_one_step_of_members_of_the_presets(preset, context_of) -> None:
    space = Space.load(preset=preset, overrides=OVERRIDES)
    context = context_of(space)
    seen: dict[str, set[object]] = {name: set() for name in VARIED}

    @settings(max_examples=EXAMPLES[preset], suppress_health_check=list(HealthCheck))
    @given(number=st.integers(0, 2**32 - 1))
    def one_step(number: int) -> None:
        (member,) = space.members(0, [number])
        probes = 3 if member.setup.initialization in MAGNIFY[preset] else 0
        for name in VARIED:
            seen[name].add(getattr(member.setup, name))
        for draw in range(3):  # as in test_cpu.py: the two largest of a window may be a rounding apart
            try:
                compare_step(member, context, first_weights(member, space, draw), probes)
                return
            except AssertionError:
                if draw == 2:
                    raise

    one_step()
    for name in VARIED:
        assert seen[name] == set(space.choices(name)), name
