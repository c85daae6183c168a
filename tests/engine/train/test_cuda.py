"""The CUDA backend against the reference in float64: packs of members that differ in all but their architecture.

Without a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wse.engine.errors import WseError
from wse.engine.nets import Layout, initial_weights
from wse.engine.nets.families import FAMILIES
from wse.engine.train import EvaluationRequest, Interrupted, ReferenceBackend
from wse.engine.train.backend import DeviceMemoryError
from wse.engine.train.cuda import CudaBackend, evaluation_images, rows_that_fit
from wse.engine.train.cuda_network import Network
from wse.engine.train.options import PRECISIONS

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
        dataclasses.replace(member, setup=msgspec.structs.replace(member.setup, **(plain | different | common)))
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


def packed(device, architecture, rows, context, evaluation_images=12, precision="fp32"):
    backend = CudaBackend(precision, device=device, evaluation_images=evaluation_images)
    return backend.open(architecture, rows, context)


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


def bounds(device, precision):
    """How far losses may be off, and weights in the change that training made, where rounding alone makes no less.

    A GPU adds up in another order than the interpreter and the judge, and now and then a value that lies between
    two numbers of bfloat16 becomes the other one. In batches of a few images one such value, or another pixel that
    wins its window, can change a step by a fifth: PyTorch's float32, rounded alike, is off by 3e-3 and 0.06 here.
    """
    return (1e-2, 0.5) if device == "cuda" and precision == "bf16" else (1e-4, 1e-4)


def compare(device, architecture, members, context, precision, epochs=1):
    """With sums in float64 of what is rounded alike."""
    pack = packed(device, architecture, len(members), context, precision=precision)
    weights, ends = trained(pack, architecture, members, epochs)
    rounded = precision == "bf16"
    loss_bound, weight_bound = bounds(device, precision)
    for row, member in enumerate(members):
        judge = ReferenceBackend(torch.float64, rounded=rounded)
        exact, exact_ends = alone(judge, architecture, member, context, epochs)
        single, _ = alone(ReferenceBackend(rounded=rounded), architecture, member, context, epochs)
        for end, exact_end in zip(ends[row], exact_ends, strict=True):
            assert (end.steps, end.images, end.finite) == (exact_end.steps, exact_end.images, exact_end.finite)
            assert end.loss == pytest.approx(exact_end.loss, rel=loss_bound)
        start = weights_of(architecture, member.id)
        # By the change that training made: at most ten times the error of PyTorch's float32, or what bounds allow.
        change, error, allowed = (np.linalg.norm(other - exact) for other in (start, weights[row], single))
        assert change > 0
        assert error <= max(10 * allowed, weight_bound * change), (member.setup, error / change, allowed / change)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_members_of_a_pack_are_the_references(device, tiny_space, context, precision):
    members = members_of(tiny_space, images_per_epoch=5)
    compare(device, architecture_of(), members, context, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_epochs_of_several_steps(device, tiny_space, context, precision):
    """With a rate that changes at each step, several of which are taken at a time, into the next epoch too."""
    differences = [{"optimizer": "sgd", "batch_size": 4}, {"optimizer": "momentum", "batch_size": 3}]
    members = members_of(
        tiny_space, differences, images_per_epoch=12, learning_rate_schedule="cosine", dropout=0.3
    )
    compare(device, architecture_of("small-cnn"), members, context, precision, epochs=2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        pytest.param("nws", {"depth_conv": 4, "filter_size": 5, "depth_fc": 2}, id="deeper"),
        pytest.param("nws", {"filter_size": 5, "width_conv": 8, "depth_fc": 2, "width_fc": 128}, id="nws-fixed"),
        pytest.param("nws", {"batch_norm": False, "width_conv": 3}, id="plain"),
        pytest.param("small-cnn", {"batch_norm": True, "width_conv": 5, "filter_size": 5}, id="small-normalised"),
    ],
)
def test_other_architectures(device, tiny_space, context, family, changes, precision):
    differences = [
        {"optimizer": "sgd", "batch_size": 3, "activation": "gelu", "dropout": 0.3},
        {"optimizer": "momentum", "batch_size": 2, "activation": "leaky_relu", "dropout": 0.5},
    ]
    members = members_of(tiny_space, differences, images_per_epoch=3)
    compare(device, architecture_of(family, **changes), members, context, precision)


class Operations(TorchDispatchMode):
    """Keeps the names of what PyTorch does."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.add(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there a step is captured, which refuses by itself")
@pytest.mark.parametrize("family", ["nws", "small-cnn"])
def test_a_step_can_be_captured(tiny_space, context, family, monkeypatch):
    """Besides launches it takes memory, fills some, counts and looks up: nothing that waits or is the host's."""
    from triton.runtime import interpreter

    architecture = architecture_of(family)
    pack = packed("cpu", architecture, 2, context)
    for row, member in enumerate(members_of(tiny_space, DIFFERENCES[:2], images_per_epoch=5)):
        pack.place(row, member, weights_of(architecture, member.id))
    pack.advance()
    launches = []
    monkeypatch.setattr(
        interpreter.GridExecutor, "__call__", lambda self, *_, **__: launches.append(self.fn.__name__)
    )
    with Operations() as done:
        pack._step._launch()
    assert len(launches) > 10
    views = {
        "alias",
        "as_strided",
        "detach",
        "expand",
        "select",
        "slice",
        "t",
        "unsqueeze",
        "view",
        "_unsafe_view",
    }
    memory = {"empty", "empty_like", "empty_strided", "new_empty", "fill_", "zero_", "zeros_like"}
    assert done.names - views - memory <= {"add_", "index_select"}, "a step must be launches alone"


class Graph:
    """Stands for a CUDA graph where there is no GPU: what is launched between begin and end is not run."""

    def __init__(self, done):
        self.done = done

    def capture_begin(self, capture_error_mode):
        assert capture_error_mode == "thread_local"  # other threads use the device meanwhile
        self.done.append("begin")

    def capture_end(self):
        self.done.append("end")
        if "broken" in self.done:
            raise RuntimeError("the capture is void")

    def replay(self):
        self.done.append("replay")


@pytest.fixture
def a_pack(tiny_space, context):
    """With a member."""
    architecture = architecture_of("small-cnn")
    pack = packed("cpu", architecture, 1, context)
    pack.place(0, members_of(tiny_space, DIFFERENCES[:1])[0], weights_of(architecture, 0))
    return pack


@pytest.fixture
def capturing(a_pack, monkeypatch):
    """A step that believes to be on a GPU, and a list of what it does."""
    step, done = a_pack._prepared_step(), []
    monkeypatch.setattr(step, "_arena", SimpleNamespace(is_cuda=True))
    monkeypatch.setattr(step, "_launch", lambda: done.append("launch"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(done))
    return step, done


def test_a_step_is_captured_once_and_replayed(capturing):
    step, done = capturing
    step.launch(3)
    assert done == ["launch", "begin", "launch", "end", "replay", "replay"]
    step.launch(2)
    assert done[6:] == ["replay", "replay"]


@pytest.mark.parametrize(
    ("what", "told", "words"),
    [
        ("error", torch.OutOfMemoryError, "full"),
        ("broken", WseError, "captured .full., nor .*is void"),
    ],
)
def test_an_error_while_a_step_is_captured_is_told(capturing, monkeypatch, what, told, words):
    """As it is, unless the capture cannot be ended: then the run cannot go on with less."""
    step, done = capturing

    def launch():
        if "begin" in done:
            done.append(what)
            raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(step, "_launch", launch)
    with pytest.raises(told, match=words):
        step.launch(1)
    assert done == ["begin", what, "end"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("CUDA error: out of memory")])
def test_a_full_memory_is_told_in_our_words(error, a_pack, monkeypatch):
    def launch(steps):
        raise error

    monkeypatch.setattr(a_pack._prepared_step(), "launch", launch)
    with pytest.raises(DeviceMemoryError, match="too little memory"):
        a_pack.advance()


def test_another_error_is_told_as_it_is(a_pack, monkeypatch):
    def launch(steps):
        raise RuntimeError("why not")

    monkeypatch.setattr(a_pack._prepared_step(), "launch", launch)
    with pytest.raises(RuntimeError, match="why not"):
        a_pack.advance()


def test_rows_that_fit_a_memory():
    architecture = architecture_of()
    options = {"dtype": torch.bfloat16, "evaluation_images": 100}
    an_image = Network(architecture, 1, torch.bfloat16, "meta").bytes
    assert rows_that_fit(architecture, [64] * 9, bytes_free=10**12, **options) == 9
    assert rows_that_fit(architecture, [64] * 9, bytes_free=10, **options) == 1
    # The largest batches may come together.
    few = rows_that_fit(architecture, [8, 64, 512, 8], bytes_free=580 * an_image, **options)
    assert few == 2
    # Pixels are counted in 32 bits.
    assert rows_that_fit(architecture, [65536] * 99, bytes_free=10**15, **options) == 31


def test_a_quarter_of_the_memory_is_for_measuring():
    architecture = architecture_of()
    an_image = Network(architecture, 1, torch.bfloat16, "meta").bytes
    assert evaluation_images(architecture, torch.bfloat16, 8000 * an_image) == 2000
    assert evaluation_images(architecture, torch.bfloat16, 0) == 1024
    assert evaluation_images(architecture, torch.bfloat16, 10**12) == 16384
    assert evaluation_images(architecture, torch.float32, 16000 * an_image) < 3000  # wider


@pytest.mark.parametrize("choices", [{"activation": ("relu", "gelu")}, {"augmentation": (True,)}], ids=str)
def test_what_the_population_may_not_have_is_refused(device, tiny_space, context, choices):
    """Kernels are compiled for what its members may have."""
    architecture = architecture_of("small-cnn")
    (member,) = members_of(tiny_space, [{**DIFFERENCES[1], "activation": "tanh"}])
    pack = packed(device, architecture, 1, dataclasses.replace(context, choices=choices))
    with pytest.raises(ValueError, match="no member of the population has"):
        pack.place(0, member, weights_of(architecture, member.id))


def test_rows_are_alike(device, tiny_space, context):
    """Members that change places have the same bits, and run after run."""
    architecture = architecture_of("small-cnn")
    members = members_of(tiny_space, DIFFERENCES[:2], images_per_epoch=5)
    weights, _ = trained(packed(device, architecture, 2, context), architecture, members, 1)
    swapped, _ = trained(packed(device, architecture, 2, context), architecture, members[::-1], 1)
    for one, other in zip(weights, swapped[::-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_row_is_refilled_as_if_it_were_new(device, tiny_space, context):
    """Members of other batch sizes move in one after the other, one by Adam where Adam left its state."""
    architecture = architecture_of("small-cnn")
    differences = [{**DIFFERENCES[0], "batch_size": 4}, DIFFERENCES[3], {**DIFFERENCES[0], "batch_size": 6}]
    first, second, third = members_of(tiny_space, differences, images_per_epoch=6)
    pack = packed(device, architecture, 2, context)
    pack.place(0, first, weights_of(architecture, first.id))
    pack.place(1, second, weights_of(architecture, second.id))
    waiting, ended = [third], {}
    placed = {0: first, 1: second}
    while placed:
        for end in pack.advance():
            member = placed.pop(end.row)
            ended[member.id] = pack.weights(end.row)
            pack.release(end.row)
            if waiting:
                placed[end.row] = waiting.pop()
                pack.place(end.row, placed[end.row], weights_of(architecture, placed[end.row].id))
    for member in (first, second, third):
        exact, _ = alone(ReferenceBackend(torch.float64), architecture, member, context, 1)
        change = np.linalg.norm(exact - weights_of(architecture, member.id))
        assert np.linalg.norm(ended[member.id] - exact) <= 1e-3 * change, member.id


def test_a_member_goes_on_elsewhere_from_where_it_is(device, tiny_space, context):
    """One has ended its epoch of three steps, and is a step into the next, when the other ends one of four."""
    architecture = architecture_of("small-cnn")
    differences = [{"optimizer": "adam", "batch_size": 4}, {"optimizer": "rmsprop", "batch_size": 3}]
    members = members_of(tiny_space, differences, images_per_epoch=12)
    here, there = (packed(device, architecture, 2, context) for _ in range(2))
    for row, member in enumerate(members):
        here.place(row, member, weights_of(architecture, member.id))
    ended = here.advance()
    assert {end.row: end.images for end in ended} == {0: 12, 1: 12}
    states = [here.state(row) for row in (0, 1)]
    assert [(state.epoch, len(state.losses)) for state in states] == [(2, 1), (2, 0)]
    assert not np.array_equal(here.weights(0), states[0].weights), "its epoch ended a step before"
    np.testing.assert_array_equal(here.weights(1), states[1].weights)
    for row, (member, state) in enumerate(zip(members, states, strict=True)):
        there.restore(row, member, state)
    assert here.advance() == there.advance()
    for row in (0, 1):
        np.testing.assert_array_equal(here.weights(row), there.weights(row))


def test_a_diverging_member_leaves_the_others_bitwise_unchanged(device, tiny_space, context):
    architecture = architecture_of("small-cnn")
    members = members_of(tiny_space, DIFFERENCES[1:3], images_per_epoch=4, batch_size=1)
    healthy, _ = trained(packed(device, architecture, 2, context), architecture, members, 1)
    wild_setup = msgspec.structs.replace(members[1].setup, learning_rate=1e30)
    wild = dataclasses.replace(members[1], setup=wild_setup)
    weights, ends = trained(packed(device, architecture, 2, context), architecture, [members[0], wild], 1)
    np.testing.assert_array_equal(weights[0], healthy[0])
    assert not ends[1][0].finite
    assert not np.isfinite(weights[1]).all()
    _, exact_ends = alone(ReferenceBackend(), architecture, wild, context, 1)
    assert not exact_ends[0].finite
    assert ends[1][0].images == exact_ends[0].images < 4, "an epoch ends with the step that diverged"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("faithful", [False, True], ids=["eval", "faithful"])
def test_measurements(device, tiny_space, context, faithful, precision):
    architecture = architecture_of()
    differences = [{**DIFFERENCES[0], "batch_size": 5}, {**DIFFERENCES[1], "batch_size": 7}]
    members = members_of(tiny_space, differences)
    requests = [
        EvaluationRequest(
            member=member, weights=weights_of(architecture, member.id), part=part, faithful=faithful and choice
        )
        for member, part, choice in (
            (members[0], "test", True),
            (members[1], "validation", False),
            (members[1], "training", True),
        )
    ]
    settings = msgspec.structs.replace(context.settings, training_images=20)
    splits = {
        name: dataclasses.replace(split, test=split.test[:17], validation=split.validation[:9])
        for name, split in context.splits.items()
    }
    context = dataclasses.replace(context, settings=settings, splits=splits)
    got = packed(device, architecture, 1, context, precision=precision).evaluate(requests)
    judge = ReferenceBackend(torch.float64, rounded=precision == "bf16")
    exact = judge.open(architecture, 1, context).evaluate(requests)
    loss_bound, _ = bounds(device, precision)
    others = 1 if loss_bound > 1e-3 else 0  # images whose two largest logits may change places
    for one, other in zip(got, exact, strict=True):
        assert one.images == other.images
        assert one.loss == pytest.approx(other.loss, rel=loss_bound)
        assert abs(one.correct - other.correct) <= others
        assert np.abs(one.predicted - other.predicted).sum() <= 2 * others


def test_evaluation_between_epochs_changes_nothing(device, tiny_space, context):
    architecture = architecture_of("small-cnn")
    (member,) = members_of(tiny_space, DIFFERENCES[:1], images_per_epoch=5)
    weights = weights_of(architecture, member.id)
    split = context.splits[member.setup.dataset]
    short = {member.setup.dataset: dataclasses.replace(split, test=split.test[:5])}
    context = dataclasses.replace(context, splits=short)
    results = []
    for measures in (False, True):
        pack = packed(device, architecture, 1, context)
        pack.place(0, member, weights)
        for _ in range(2):
            pack.advance()
            if measures:
                pack.evaluate([EvaluationRequest(member=member, weights=pack.weights(0), part="test")])
        results.append(pack.weights(0))
    np.testing.assert_array_equal(*results)


def test_it_stops_when_asked(device, tiny_space, context):
    context = dataclasses.replace(context, should_stop=lambda: True)
    architecture = architecture_of("small-cnn")
    (member,) = members_of(tiny_space, DIFFERENCES[:1])
    pack = packed(device, architecture, 1, context)
    pack.place(0, member, weights_of(architecture, member.id))
    with pytest.raises(Interrupted):
        pack.advance()
    with pytest.raises(Interrupted):
        pack.evaluate([EvaluationRequest(member=member, weights=weights_of(architecture, 0), part="test")])
