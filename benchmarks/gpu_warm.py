"""Compile what a benchmark's packs launch, several architectures at a time, so that it need not wait later.

    python benchmarks/gpu_warm.py nws-fixed-64 small-cnn-64 nws-main [--precision bf16 fp32]

Triton compiles a kernel when it is first launched and keeps it on the disk. Each process takes one step of a pack
of two members, of one architecture in one precision.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from gpu_timing import parser

from wse.engine.bench import Workload, WorkloadSpec
from wse.engine.train.cuda import CudaBackend

ROWS = 2


@dataclass(frozen=True, kw_only=True)
class Task:
    spec: WorkloadSpec
    place: int  # of the architecture
    precision: str
    device: str

    def run(self) -> float:
        """Take a step; the seconds it took."""
        began = time.perf_counter()
        workload = Workload(self.spec)
        architecture = workload.architectures[self.place]
        first = next(member for member in workload.members if member.architecture == architecture)
        backend = CudaBackend(self.precision, device=self.device, evaluation_images=1)
        pack = backend.open(architecture, ROWS, workload.checking)
        for row in range(ROWS):
            pack.place(row, first, workload.initial_weights(first))
        pack.advance()
        return time.perf_counter() - began


def spec_of(name: str, overrides: tuple[tuple[str, object], ...]) -> WorkloadSpec:
    preset, _, batch = name.rpartition("-")
    if batch.isdigit():
        return WorkloadSpec(preset=preset, batch_size=int(batch), overrides=overrides)
    return WorkloadSpec(preset=name, overrides=overrides)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("workloads", nargs="+")
    options.add_argument("--precision", nargs="+", default=["bf16", "fp32"])
    options.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=NUMBER", help="to try it with small networks"
    )
    given = options.parse_args()
    overrides = tuple((key, int(value)) for key, _, value in (text.partition("=") for text in given.set))
    specs = [spec_of(name, overrides) for name in given.workloads]
    tasks = [
        Task(spec=spec, place=place, precision=precision, device=given.device)
        for spec in specs
        for place in range(len(Workload(spec).architectures))
        for precision in given.precision
    ]
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(tasks)), mp_context=get_context("spawn")) as pool:
        for task, seconds in zip(tasks, pool.map(Task.run, tasks), strict=True):
            print(f"{task.spec.name}, architecture {task.place}, {task.precision}: {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
