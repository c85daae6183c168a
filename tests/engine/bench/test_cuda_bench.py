"""The benchmark of a GPU on the processor: ours in Triton's interpreter, PyTorch's ways on CPU tensors.

Only what takes the hardware is left out: the capture of graphs, streams, events and the profiler's view of a GPU.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from wse.engine.bench import Gpu, Judge, Options, Workload, WorkloadSpec, measure, run
from wse.engine.bench.contender import Outcome
from wse.engine.bench.cuda_graphs import Graphs
from wse.engine.bench.cuda_ours import OursOnCuda
from wse.engine.bench.grouped import Grouped
from wse.engine.bench.kernel_shares import shares_of
from wse.engine.bench.lanes import Rate
from wse.engine.bench.registry import cuda_contenders
from wse.engine.bench.traffic import least_bytes
from wse.engine.bench.vmap import Vmap
from wse.engine.bench.workload import Precision
from wse.engine.errors import WseError

# NumPy warns of exponentials in the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SMALL = (("filter_size", 3), ("width_conv", 4), ("width_fc", 16))
SPECS = {
    "nws-fixed": WorkloadSpec(preset="nws-fixed", batch_size=32, overrides=SMALL, members=3),
    "small-cnn": WorkloadSpec(preset="small-cnn", batch_size=48, members=3),
}
TINY = (("width_conv", 2), ("depth_conv", 1), ("images_per_epoch", 2))
RIVALS = {
    "graph": Graphs(name="graph", label="graph"),
    "graph-bf16": Graphs(name="graph-bf16", label="graph", precision="bf16"),
    "vmap": Vmap(name="vmap", label="vmap", members=3),
    "grouped": Grouped(name="grouped", label="grouped", members=3),
    "grouped-bf16": Grouped(name="grouped-bf16", label="grouped", precision="bf16", members=3),
}


@pytest.fixture(scope="module")
def judges() -> dict[str, tuple[Workload, Judge]]:
    workloads = {name: Workload(spec) for name, spec in SPECS.items()}
    return {name: (workload, Judge(workload)) for name, workload in workloads.items()}


@pytest.mark.parametrize("preset", SPECS)
@pytest.mark.parametrize("name", RIVALS)
def test_pytorchs_ways_equal_the_reference(name: str, preset: str, judges) -> None:
    workload, judge = judges[preset]
    verdict = judge.verdict(RIVALS[name], RIVALS[name].outcomes(workload))
    assert verdict.complaint is None
    assert verdict.errors.keys() == ({"loss", "output"} if "bf16" in name else {"loss", "update"})
    for job in RIVALS[name].jobs(workload, 0, 1):
        assert job.work == pytest.approx(job.images * workload.flops)
        job.start()
        job()


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run on the GPU here, not interpreted")
def test_a_run_on_the_interpreter() -> None:
    """The whole way: processes, checks, rounds, shares and the table's numbers."""
    spec = WorkloadSpec(preset="small-cnn", batch_size=1, overrides=TINY, members=2)
    gpu = Gpu(members=(2,), precisions=("fp32",), device="cpu")
    entrants = [
        OursOnCuda(name="ours", label="ours", members=2, device="cpu", evaluation_images=2),
        Grouped(name="grouped", label="grouped", precision="bf16", members=2),
    ]
    options = Options(workloads=(spec,), gpu=gpu, seconds=0.01, rounds=1)
    (report,) = run(options, lambda line: None, entrants)
    assert report.wrong == []
    result = report.result
    ours, grouped = result.entries
    assert {entry.status for entry in result.entries} == {"ok"}
    assert ours.errors.keys() == {"loss", "update"}
    assert grouped.errors.keys() == {"loss in fp32", "update in fp32", "loss", "output"}
    assert grouped.kernels == {}
    assert sum(ours.kernels.values()) == pytest.approx(1)
    assert ours.samples_per_second[0] > 0
    assert set(result.machine.medians()) == {"matrix_bf16", "matrix_tf32", "copy"}
    assert min(result.machine.medians().values()) > 0
    assert report.provenance["gpu"] == "Triton's interpreter"


class Here:
    """A crew without processes; after its rounds comes what ``error`` says."""

    error: BaseException = WseError("there is no profiler")

    def __init__(self, contender: Grouped) -> None:
        self.contender = contender

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check(self, spec: WorkloadSpec, precision: Precision) -> list[Outcome]:
        return dataclasses.replace(self.contender, precision=precision).outcomes(Workload(spec))

    def prepare(self, spec: WorkloadSpec) -> None:
        pass

    def measure(self, seconds: float) -> Rate:
        return Rate(images=2.0, work=1.0)

    def shares(self) -> dict[str, float]:
        raise self.error

    def forget(self) -> None:
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt(), WseError("there is no profiler")], ids=repr)
def test_what_comes_after_the_rounds_does_not_lose_them(error: BaseException, monkeypatch) -> None:
    monkeypatch.setattr(measure, "Crew", Here)
    monkeypatch.setattr(Here, "error", error)
    spec = WorkloadSpec(preset="small-cnn", batch_size=1, overrides=TINY, members=2)
    options = Options(workloads=(spec, spec), gpu=Gpu(device="cpu"), seconds=0.01, rounds=2)
    reports = run(options, lambda line: None, [Grouped(name="grouped", label="grouped", members=2)])
    result = next(reports).result
    assert result.entries[0].samples_per_second == (2.0, 2.0)
    assert result.entries[0].kernels == {}
    assert result.interrupted == isinstance(error, KeyboardInterrupt)
    if result.interrupted:
        with pytest.raises(KeyboardInterrupt):
            next(reports)
    else:
        assert not next(reports).result.interrupted


def test_packs_of_a_mixed_workload() -> None:
    """A pack for each architecture; members differ in all else, and end epochs together again and again."""
    workload = Workload(WorkloadSpec(preset="nws-main", overrides=SMALL[1:]))
    packs = workload.packs(32)
    assert [len(pack) for pack in packs] == [4] * len(workload.members)
    ids = [member.id for pack in packs for member in pack]
    assert len(set(ids)) == len(ids)
    for pack, first in zip(packs, workload.members, strict=True):
        assert pack[0].id == first.id
        assert {member.architecture for member in pack} == {first.architecture}
        assert {member.setup.images_per_epoch for member in pack} == {4096}
    members = [member for pack in packs for member in pack]
    assert {member.setup.batch_size for member in members} == {32, 64, 128, 256}
    assert {member.setup.augmentation for member in members} == {False, True}


def test_who_takes_part_on_a_gpu() -> None:
    everyone = cuda_contenders([64, 1024], ["bf16", "fp32"], processes=8)
    assert [contender.name for contender in everyone][:4] == [
        "cuda-bf16-64", "cuda-bf16-1024", "cuda-fp32-64", "cuda-fp32-1024",
    ]  # fmt: skip
    assert len({contender.name for contender in everyone}) == len(everyone)
    assert max(len(contender.label) for contender in everyone) <= 27
    assert {contender.device for contender in everyone} == {"cuda"}


def test_bytes_of_a_step() -> None:
    """By hand, for two convolutions of the small CNN: 32 x 32 x 4 stored, 15 x 15 and 7 x 7 pixels."""
    workload = Workload(dataclasses.replace(SPECS["small-cnn"], overrides=(("depth_conv", 2), ("width_conv", 16))))
    architecture = workload.members[0].architecture
    images, first, second, features, logits = 32 * 32 * 4, 15 * 15 * 16, 7 * 7 * 16, 16, 10
    values = images  # made
    values += images + first + 2 * first  # product, activation
    values += first + second + 2 * second
    values += 2 * (second + features)  # average, and its gradient
    values += features + logits  # output layer
    values += 2 * (logits + features)  # its two gradients
    values += 3 * second + 2 * (second + first)
    values += 3 * first + first + images
    one, two = (least_bytes(architecture, [count], 2) for count in (1, 2))
    assert two - one == 2 * values
    assert one - 2 * values == least_bytes(architecture, [0], 2) > 0


def test_shares_of_kernels() -> None:
    events = [
        SimpleNamespace(key=key, time=time) for key, time in (("a", 1.0), ("b", 2.0), ("c", 0.0), ("a", 5.0))
    ]
    assert shares_of(events, "time") == {"a": 0.75, "b": 0.25}
