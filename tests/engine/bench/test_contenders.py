"""Every contender computes the same, and a wrong one is found out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from wse.engine.bench import Judge, Workload, WorkloadSpec
from wse.engine.bench.judge import BOUNDS
from wse.engine.bench.module import stored, write_module, written
from wse.engine.bench.ours import Ours
from wse.engine.bench.plain import Plain
from wse.engine.bench.registry import contenders
from wse.engine.bench.vmap import PackTraining, Vmap
from wse.engine.errors import UsageError
from wse.engine.nets import Layout, initial_weights
from wse.engine.nets.module import build

SMALL = (("filter_size", 3), ("width_conv", 4), ("width_fc", 16))
SPECS = {
    "nws-fixed": WorkloadSpec(preset="nws-fixed", batch_size=32, overrides=SMALL),
    "small-cnn": WorkloadSpec(preset="small-cnn", batch_size=48),
    "nws-main": WorkloadSpec(preset="nws-main", overrides=SMALL),
}
PLAIN = {
    "plain": Plain(name="plain", label="plain"),
    "channels-last": Plain(name="channels-last", label="channels-last", channels_last=True),
    "vmap": Vmap(name="vmap", label="vmap"),
}


@pytest.fixture(scope="module")
def judges() -> dict[str, tuple[Workload, Judge]]:
    workloads = {name: Workload(spec) for name, spec in SPECS.items()}
    return {name: (workload, Judge(workload)) for name, workload in workloads.items()}


@pytest.mark.parametrize("preset", SPECS)
@pytest.mark.parametrize("name", PLAIN)
def test_pytorch_equals_the_reference_after_two_steps(name: str, preset: str, judges) -> None:
    workload, judge = judges[preset]
    contender = PLAIN[name]
    if contender.why_not(workload) is not None:
        assert (name, preset) == ("vmap", "nws-main")
        return
    verdict = judge.verdict(contender, contender.outcomes(workload))
    assert verdict.complaint is None
    assert verdict.errors.keys() == {"loss", "update"}


@pytest.mark.parametrize("preset", SPECS)
def test_our_reference_equals_itself_in_float64(preset: str, judges) -> None:
    workload, judge = judges[preset]
    contender = Ours(name="reference", label="reference", device="reference")
    verdict = judge.verdict(contender, contender.outcomes(workload))
    assert verdict.complaint is None
    assert verdict.errors.keys() == BOUNDS["fp32"].keys() - (set() if "nws" in preset else {"statistics"})


@dataclass(frozen=True, kw_only=True)
class Broken(Plain):
    """Plain PyTorch with one mistake."""

    mistake: str

    def outcomes(self, workload: Workload):
        outcomes = super().outcomes(workload)
        first = outcomes[0]
        initial = workload.initial_weights(workload.checked()[0])
        match self.mistake:
            case "no step":
                wrong = dataclasses.replace(first, weights=initial)
            case "one and a half steps":
                wrong = dataclasses.replace(first, weights=initial + 1.5 * (first.weights - initial))
            case "loss":
                wrong = dataclasses.replace(first, loss=first.loss * 1.001)
            case "not a number":
                wrong = dataclasses.replace(first, weights=np.full_like(first.weights, np.nan))
        return [wrong, *outcomes[1:]]


@pytest.mark.parametrize("mistake", ["no step", "one and a half steps", "loss", "not a number"])
def test_a_wrong_contender_is_found_out(mistake: str, judges) -> None:
    workload, judge = judges["nws-fixed"]
    broken = Broken(name="broken", label="broken", mistake=mistake)
    complaint = judge.verdict(broken, broken.outcomes(workload)).complaint
    assert complaint is not None
    assert ("loss" if mistake == "loss" else "update") in complaint


def test_an_outcome_must_be_given_for_every_checked_member(judges) -> None:
    workload, judge = judges["nws-fixed"]
    with pytest.raises(ValueError, match="plain must give one outcome"):
        judge.verdict(PLAIN["plain"], PLAIN["plain"].outcomes(workload)[:1])


def test_the_written_network_is_the_same_function() -> None:
    workload = Workload(SPECS["nws-main"])
    for member in workload.members[:3]:
        layout = Layout(member.architecture)
        weights = initial_weights(layout, "glorot_normal", seed=1, member=2, gamma_std=0.1)
        module = write_module(member.architecture, member.setup).eval()
        module.load_state_dict(written(module, layout, weights), strict=False)
        ours = build(member.architecture, member.setup.activation)
        ours.load_state_dict(
            {
                s.name: torch.from_numpy(weights[s.offset : s.stop].reshape(s.shape))
                for s in layout.tensors.values()
            }
        )
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(module(images), ours(images), rtol=1e-4, atol=1e-5)
        assert np.array_equal(stored(module, layout, module.state_dict(), np.zeros_like(weights)), weights)


def test_every_member_of_a_mixed_workload_trains_on_equally_many_images() -> None:
    workload = Workload(SPECS["nws-main"])
    assert {member.setup.images_per_epoch for member in workload.members} == {512}
    assert sum(member.setup.augmentation for member in workload.members) == len(workload.members) / 2
    assert {member.setup.optimizer for member in workload.members} == {"adam", "rmsprop", "momentum"}
    shares = [workload.share(lane, 3) for lane in range(3)]
    assert sorted(m.id for share in shares for m in share) == [m.id for m in workload.members]


def test_jobs_say_what_they_train(judges) -> None:
    workload, _ = judges["small-cnn"]
    one = workload.members[0]
    for contender in (PLAIN["plain"], PLAIN["vmap"], Ours(name="o", label="o", device="reference")):
        (job,) = contender.jobs(workload, 0, 2)
        assert job.work == pytest.approx(job.images * workload.flops)
        job.start()
        job()
    pack = PackTraining(workload, workload.context, workload.members)
    assert pack.images == len(workload.members) * one.setup.images_per_epoch


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_labels_fit_the_table_and_names_differ(threads: int) -> None:
    everyone = contenders(threads)
    assert len({contender.name for contender in everyone}) == len(everyone)
    assert max(len(contender.label) for contender in everyone) <= 34
    assert all(c.processes * c.lanes * c.torch_threads == threads for c in everyone)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"preset": "huge", "batch_size": 1}, "unknown preset 'huge'"),
        ({"preset": "nws-main", "batch_size": 64}, "of their own"),
        ({"preset": "small-cnn", "batch_size": 0}, r"`batch` \(=0\)"),
        ({"preset": "small-cnn", "batch_size": 1, "datasets": ("imagenet",)}, "'imagenet' is not an image set"),
    ],
)
def test_impossible_workloads_are_named(spec: dict, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        WorkloadSpec(**spec)


def test_a_batch_larger_than_half_the_set_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 1000 is too large for digits"):
        Workload(WorkloadSpec(preset="small-cnn", batch_size=1000))
