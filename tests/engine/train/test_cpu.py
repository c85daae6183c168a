"""The CPU backend against the reference backend in float64: whole steps of whole networks."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wse.engine.nets import ACTIVATIONS, Layout, initial_weights
from wse.engine.space import Member
from wse.engine.train import Context, EvaluationRequest, Interrupted, ReferenceBackend
from wse.engine.train.cpu import CpuBackend, CpuPack
from wse.engine.train.schedule import learning_rate
from wse.kernels.optim import CONSTANTS, STATE_SLOTS, OptimizerForm, decay, initial_state, step

SEED = 3


def prepared(tiny_space, context_of, preset: str = "nws-main", draw: int = 0, **overrides: Any):
    """(member, context, weights) of a tiny space; ``draw`` chooses the weights."""
    if preset == "small-cnn":
        overrides = {key: value for key, value in overrides.items() if key not in ("width_fc", "depth_fc")}
        overrides.setdefault("init_std", 0.1)
    space = tiny_space(preset, **{"initialization": "glorot_uniform", **overrides})
    member = space.members(SEED, [5])[0]
    layout = Layout(member.architecture)
    weights = initial_weights(layout, "glorot_uniform", seed=SEED + draw, member=5, gamma_std=0.3)
    rng = np.random.default_rng(draw)
    for spec in layout.tensors.values():  # biases and moving statistics that matter
        if spec.kind in ("bias", "beta", "moving_mean"):
            weights[spec.offset : spec.stop] = rng.normal(size=spec.size) * 0.1
    return member, context_of(space, seed=SEED), weights


def trained(backend, member, context, weights, epochs: int = 1):
    """(weights, last gradient, last epoch's facts), all in layout order."""
    pack = backend.open(member.architecture, 1, context)
    pack.place(0, member, weights)
    for _ in range(epochs):
        (end,) = pack.advance()
    if isinstance(pack, CpuPack):
        gradient = pack._desk.packing.unpack(pack._desk.gradient)
    else:
        gradient = pack._training(0)._gradient.numpy()
    return pack.weights(0), gradient, end


def check_step(tiny_space, context_of, **setup: Any) -> None:
    """One step of a network, with at most two other draws of the weights if it fails.

    Where the two largest values of a pooling window are a rounding error apart, the gradient may go to the other
    one, in PyTorch's float32 too. That is an accident of some weights; a mistake would be there with all.
    """
    for draw in range(3):
        try:
            compare_step(*prepared(tiny_space, context_of, draw=draw, **setup))
            return
        except AssertionError:
            if draw == 2:
                raise


def compare_step(member, context, weights, probes: int = 0) -> None:
    """One step: loss, every gradient tensor, every tensor after the optimizer, moving statistics.

    Args:
        member: whose step.
        context: of the run.
        weights: before the step, float32 [D].
        probes: how many nudged steps widen the bounds. A nudge changes every weight by up to one rounding; what
            follows from it in float64 is what no arithmetic in float32 can be asked to get right.
    """
    exact_weights, exact, exact_end = trained(ReferenceBackend(torch.float64), member, context, weights)
    fast_weights, fast, end = trained(CpuBackend(), member, context, weights)
    others = [trained(ReferenceBackend(), member, context, weights)]
    for probe in range(probes):
        nudge = 1 + np.random.default_rng(probe).uniform(-1, 1, weights.shape) * 2.0**-23
        nudged = (weights.astype(np.float64) * nudge).astype(np.float32)
        others.append(trained(ReferenceBackend(torch.float64), member, context, nudged))
    assert (end.steps, end.images, end.finite) == (exact_end.steps, exact_end.images, exact_end.finite)
    # Four times the error of PyTorch's float32 (or what a nudge does), and what rounding leaves where a tensor's
    # terms nearly cancel: that is measured by the largest gradient of the network.
    spread = max(abs(other.loss - exact_end.loss) for _, _, other in others)
    assert abs(end.loss - exact_end.loss) <= 4 * spread + 1e-5 * exact_end.loss
    floor = 2e-6 * np.abs(exact).max()
    for spec in Layout(member.architecture).tensors.values():
        here = slice(spec.offset, spec.stop)
        if spec.is_statistic:
            spread = max(np.abs(other[here] - exact_weights[here]).max() for other, _, _ in others)
            np.testing.assert_allclose(
                fast_weights[here], exact_weights[here], rtol=2e-5, atol=4 * spread + 2e-6, err_msg=spec.name
            )
            continue
        error = np.abs(fast[here] - exact[here]).max()
        spread = max(np.abs(other[here] - exact[here]).max() for _, other, _ in others)
        assert error <= 4 * spread + floor, (spec.name, error, spread, floor)
        if spec.frozen:
            assert (fast[here] == 0).all()
    judge = OptimizerJudge(member, context, weights)
    judge.check(fast, fast_weights)


class OptimizerJudge:
    """The reference's optimizer in float64, fed with the gradients that a backend found.

    An optimizer that divides by the root of a mean square makes a step of full length of a gradient that is
    nothing but rounding, so weights after such a step cannot be compared with those of another gradient.

    Args:
        member: whose optimizer.
        context: of the run.
        weights: before the first step, float32 [D] in the layout's order.
    """

    def __init__(self, member: Member, context: Context, weights: np.ndarray) -> None:
        self._setup, self._settings = member.setup, context.settings
        specs = Layout(member.architecture).tensors.values()
        sizes = [spec.size for spec in specs]
        self._is_weight = torch.from_numpy(np.repeat([spec.kind == "weight" for spec in specs], sizes))
        self._trained = np.repeat([not (spec.is_statistic or spec.frozen) for spec in specs], sizes)
        self._before = weights
        self._state = initial_state(torch.from_numpy(weights).double(), self._setup.optimizer, self._form)
        self._count = 0

    @property
    def _form(self) -> OptimizerForm:
        return self._settings.optimizer_form

    def check(self, gradient: np.ndarray, after: np.ndarray, steps: int = 1) -> None:
        """Whether one of ``steps`` steps with this gradient, l2 included, leads to the weights ``after``."""
        setup, rate = self._setup, learning_rate(self._setup, self._count, steps)
        self._count += 1
        exact = torch.from_numpy(self._before).double()
        if setup.weight_decay:
            decay(exact, self._is_weight, learning_rate=rate, weight_decay=setup.weight_decay)
        step(
            exact, torch.from_numpy(gradient).double(), self._state, kind=setup.optimizer, form=self._form,
            learning_rate=rate, count=self._count, momentum=self._settings.momentum,
        )  # fmt: skip
        moved = np.abs(exact.numpy() - self._before)
        # A rounding or two of the weight, and a few of the step.
        allowed = 1.5e-7 * np.abs(exact.numpy()) + 3e-6 * moved
        assert (np.abs(after - exact.numpy()) <= allowed)[self._trained].all(), setup.optimizer
        assert moved[self._trained].any()
        self._before = after


@st.composite
def setups(draw) -> dict[str, Any]:
    batch_size = draw(st.sampled_from([1, 7, 16, 19, 32, 37]))
    preset = draw(st.sampled_from(["nws-main", "nws-main", "small-cnn"]))
    norm = draw(st.booleans()) and batch_size > 1
    sizes = [1, 2, 3, 5, 7, 9] if preset == "nws-main" else [1, 2, 3, 5]
    return {
        "preset": preset,
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "optimizer": draw(st.sampled_from(list(STATE_SLOTS))),
        "optimizer_form": draw(st.sampled_from(list(CONSTANTS))),
        "batch_size": batch_size,
        "images_per_epoch": draw(st.sampled_from([batch_size, max(batch_size - 3, 1)])),
        "batch_norm": norm,
        "filter_size": draw(st.sampled_from(sizes)),
        "depth_conv": draw(st.sampled_from([3, 4, 5] if preset == "nws-main" else [1, 2, 3])),
        "width_conv": draw(st.sampled_from([1, 2, 3, 4, 5])),
        "depth_fc": draw(st.sampled_from([0, 1, 2])),
        "width_fc": draw(st.sampled_from([5, 16, 21])),
        "dropout": draw(st.sampled_from([0.0, 0.3, 0.5])),
        "l2": draw(st.sampled_from([0.0, 0.01])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "learning_rate": 0.01,
        "augmentation": False,
    }


@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(setup=setups())
def test_one_step_of_any_network(setup, tiny_space, context_of) -> None:
    check_step(tiny_space, context_of, **setup)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_step_with_every_activation(activation, tiny_space, context_of) -> None:
    check_step(tiny_space, context_of, activation=activation, optimizer="sgd", width_conv=4,
                         batch_size=32, images_per_epoch=32, augmentation=False)  # fmt: skip


@pytest.mark.parametrize("filter_size", [3, 5, 7])
def test_one_step_with_every_fast_filter(filter_size, tiny_space, context_of) -> None:
    check_step(tiny_space, context_of, filter_size=filter_size, optimizer="sgd", activation="tanh",
                         depth_conv=5, width_conv=4, batch_size=20, images_per_epoch=20,
                         augmentation=False)  # fmt: skip


@pytest.mark.parametrize("form", CONSTANTS)
@pytest.mark.parametrize("optimizer", STATE_SLOTS)
def test_every_step_of_an_optimizer_is_the_references(optimizer, form, tiny_space, context_of) -> None:
    steps = 4
    member, context, weights = prepared(
        tiny_space, context_of, optimizer=optimizer, optimizer_form=form, activation="tanh", batch_size=24,
        images_per_epoch=24, epochs=steps, learning_rate=0.01, learning_rate_schedule="cosine", l2=0.003,
        weight_decay=0.1, augmentation=False,
    )  # fmt: skip
    judge = OptimizerJudge(member, context, weights)
    pack = CpuBackend().open(member.architecture, 1, context)
    pack.place(0, member, weights)
    for _ in range(steps):  # an epoch is a single step
        (end,) = pack.advance()
        assert end.steps == 1
        judge.check(pack._desk.packing.unpack(pack._desk.gradient), pack.weights(0), steps)


@pytest.mark.parametrize("batch_size", [20, 32], ids=["whole", "slices"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(
    "shape",
    [
        {"preset": "small-cnn", "width_conv": 5, "depth_conv": 3},  # strided input gradients end in derivatives
        {"preset": "small-cnn", "width_conv": 4, "depth_conv": 2, "filter_size": 5},  # those go the general way
        {"preset": "nws-main", "width_conv": 4, "depth_conv": 5},
    ],
    ids=["small-cnn", "small-cnn k5", "nws"],
)
def test_one_step_without_normalisation(shape, activation, batch_size, tiny_space, context_of) -> None:
    check_step(tiny_space, context_of, activation=activation, optimizer="sgd", dropout=0.5, batch_norm=False,
                         batch_size=batch_size, images_per_epoch=batch_size, augmentation=False,
                         **shape)  # fmt: skip


@pytest.mark.parametrize("preset", ["nws-main", "small-cnn"])
def test_two_epochs_stay_near_float64(preset, tiny_space, context_of) -> None:
    member, context, weights = prepared(
        tiny_space, context_of, preset, optimizer="momentum", activation="tanh", dropout=0.5,
        batch_size=32,  # two slices in each of two batches where there is no normalisation
        learning_rate=0.01, learning_rate_schedule="cosine", augmentation=False,
    )  # fmt: skip
    exact, _, _ = trained(ReferenceBackend(torch.float64), member, context, weights, 2)
    fast, _, _ = trained(CpuBackend(), member, context, weights, 2)
    moved = np.abs(exact - weights).max()
    assert moved > 1e-3
    np.testing.assert_allclose(fast, exact, rtol=0, atol=1e-3 * moved)


def test_augmented_images_train_like_the_reference(tiny_space, context_of) -> None:
    member, context, weights = prepared(
        tiny_space,
        context_of,
        augmentation=True,
        optimizer="sgd",
        activation="tanh",
        batch_size=16,
        learning_rate=0.05,
    )
    exact, _, _ = trained(ReferenceBackend(torch.float64), member, context, weights)
    fast, _, _ = trained(CpuBackend(), member, context, weights)
    np.testing.assert_allclose(fast, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("preset", ["nws-main", "small-cnn"])
@pytest.mark.parametrize("faithful", [False, True])
def test_evaluation_equals_the_reference(preset, faithful, tiny_space, context_of) -> None:
    member, context, weights = prepared(
        tiny_space, context_of, preset, batch_size=16, augmentation=False, batch_norm=True
    )
    expected, measured = (
        backend.open(member.architecture, 1, context).evaluate(
            [EvaluationRequest(member=member, weights=weights, part=part, faithful=faithful)
             for part in ("training", "validation", "test")]
        )
        for backend in (ReferenceBackend(torch.float64), CpuBackend())
    )  # fmt: skip
    for want, got in zip(expected, measured, strict=True):
        assert got.loss == pytest.approx(want.loss, rel=1e-5)
        assert (got.images, got.correct) == (want.images, want.correct)
        assert got.predicted.tolist() == want.predicted.tolist()


def three_members(tiny_space, context_of):
    space = tiny_space("nws-main", initialization="glorot_uniform")
    members = space.members(SEED, range(100))
    chosen = [member for member in members if member.architecture == members[0].architecture][:3]
    chosen = [
        dataclasses.replace(member, setup=msgspec.structs.replace(member.setup, batch_size=batch_size))
        for member, batch_size in zip(chosen, (16, 32, 21), strict=True)
    ]
    weights = [
        initial_weights(Layout(m.architecture), "glorot_uniform", seed=SEED, member=m.id, gamma_std=0.1)
        for m in chosen
    ]
    return chosen, weights, context_of(space, seed=SEED)


def test_company_does_not_matter(tiny_space, context_of) -> None:
    members, weights, context = three_members(tiny_space, context_of)
    alone = [trained(CpuBackend(), m, context, w, 2)[0] for m, w in zip(members, weights, strict=True)]
    pack = CpuBackend().open(members[0].architecture, 3, context)
    for row, (member, start) in enumerate(zip(members, weights, strict=True)):
        pack.place(row, member, start)
    for _ in range(6):
        (end,) = pack.advance()
        pack._desk._scratch[:] = np.nan  # what others leave behind is not seen
        pack.evaluate([EvaluationRequest(member=members[0], weights=weights[0], part="test")])
        assert end.finite
    for row, expected in enumerate(alone):
        assert (pack.weights(row) == expected).all()


def test_threads_do_not_matter(tiny_space, context_of) -> None:
    members, weights, context = three_members(tiny_space, context_of)
    alone = [trained(CpuBackend(), m, context, w, 2)[0] for m, w in zip(members, weights, strict=True)]
    backend, together = CpuBackend(), {}

    def work(index: int) -> None:
        together[index] = trained(backend, members[index], context, weights[index], 2)[0]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected in enumerate(alone):
        assert (together[index] == expected).all()


def test_memory_does_not_grow_with_the_members(tiny_space, context_of) -> None:
    members, weights, context = three_members(tiny_space, context_of)
    pack = CpuBackend().open(members[0].architecture, 3, context)
    pack.place(0, members[0], weights[0])
    pack.advance()
    before = pack._desk._scratch.size
    for row in (1, 2):
        pack.place(row, dataclasses.replace(members[0], id=row + 100), weights[0])
        pack.advance()
    assert pack._desk._scratch.size == before


def test_a_diverging_member_is_seen(tiny_space, context_of) -> None:
    member, context, weights = prepared(
        tiny_space,
        context_of,
        optimizer="sgd",
        batch_norm=False,
        activation="relu",
        batch_size=16,
        augmentation=False,
    )
    member = dataclasses.replace(member, setup=msgspec.structs.replace(member.setup, learning_rate=1e30))
    ends = [trained(backend, member, context, weights)[2] for backend in (ReferenceBackend(), CpuBackend())]
    assert not ends[1].finite
    assert ends[1].images == ends[0].images


def test_an_interrupt_is_heeded_within_an_epoch(tiny_space, context_of) -> None:
    member, context, weights = prepared(tiny_space, context_of, batch_size=16)
    asked = iter([False, True])
    context = dataclasses.replace(context, should_stop=lambda: next(asked))
    pack = CpuBackend().open(member.architecture, 1, context)
    pack.place(0, member, weights)
    with pytest.raises(Interrupted):
        pack.advance()
