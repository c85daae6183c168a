"""The machine code of a training step: what each launch of a pack is compiled to, without a GPU.

    python benchmarks/gpu_code.py [nws-fixed | small-cnn | nws-main] [--members 1024] [--batch 64]
                                  [--precision bf16 | fp32]

For each launch, in order: programs, registers of a thread, shared memory of a program, warps that fit a
multiprocessor side by side by both, instructions of the machine code, how many of them stand in loops, and how
many millions all warps would issue if each ran through the code once. Branches that a member does not take (other
activations and optimizers, augmentation) are counted, turns of loops are not: figures are for comparing a kernel
with what it was, and for finding what to look at. An H100 or H200 issues 132 x 4 instructions a cycle.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.runtime.jit import JITFunction

from wse.engine.nets import Architecture, Layout
from wse.engine.space import Space
from wse.engine.train.cuda_layout import ArenaLayout
from wse.engine.train.cuda_network import Network
from wse.engine.train.cuda_step import Step
from wse.engine.train.cuda_tables import Tables
from wse.kernels.triton_check import check_variant, compile_variant
from wse.kernels.triton_variant import Variant

TYPES = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16",
    torch.int8: "*i8", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64", torch.uint8: "*u8",
}  # fmt: skip
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
REGISTERS, SHARED_BYTES, WARPS = 65536, 227 * 1024, 64  # of a multiprocessor

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(.*?);")
LABEL = re.compile(r"\s*(\.L_x_\d+):")
BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")


@dataclass(frozen=True)
class Launch:
    """A kernel, its arguments by name, and how it is launched."""

    kernel: JITFunction[Any]
    arguments: dict[str, Any]
    grid: tuple[int, ...]
    options: dict[str, int]

    def variant(self) -> Variant:
        """What it is compiled as: integers that are 1 are constants, those that 16 divides are known to be."""
        signature: dict[str, str] = {}
        constants: dict[str, Any] = {}
        for parameter in self.kernel.params:
            name = parameter.name
            value = self.arguments.get(name, parameter.default)
            if parameter.is_constexpr or (isinstance(value, int) and value == 1):
                constants[name] = value
            elif isinstance(value, torch.Tensor):
                signature[name] = TYPES[value.dtype]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32" if value < 2**31 else "i64"
        aligned = [name for name, kind in signature.items() if kind in ("i32", "i64")]
        return Variant(
            kernel=self.kernel,
            name=self.kernel.__name__,
            signature=signature,
            constexprs=constants,
            aligned=tuple(name for name in aligned if self.arguments[name] % 16 == 0),
            **self.options,
        )


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Keeps launches instead of doing them."""
    launches: list[Launch] = []
    run = JITFunction.run

    def keep(self: Any, *arguments: Any, grid: tuple[int, ...], warmup: bool = False, **options: Any) -> None:
        named = dict(zip(self.arg_names, arguments, strict=False))
        named |= {name: options.pop(name) for name in list(options) if name in self.arg_names}
        launches.append(Launch(self, named, tuple(grid), options))

    JITFunction.run = keep
    try:
        yield launches
    finally:
        JITFunction.run = run


def step_without_memory(
    architecture: Architecture, members: int, batch: int, dtype: torch.dtype, *, augment: bool
) -> Step:
    """The step of a full pack, of tensors that have shapes and no memory."""
    meta, images = torch.device("meta"), members * batch
    layout = ArenaLayout(Layout(architecture))
    arena = torch.zeros(members, layout.size, device=meta)
    resident: Any = SimpleNamespace(
        images=torch.zeros(70000, 32, 32, 4, dtype=torch.uint8, device=meta),
        labels=torch.zeros(70000, dtype=torch.uint8, device=meta),
        table=torch.zeros(60000, dtype=torch.int32, device=meta),
    )
    step = Step(
        Network(architecture, images, dtype, meta), images, layout=layout, arena=arena,
        gradient=torch.zeros_like(arena), state=torch.zeros(2, *arena.shape, device=meta),
        tables=Tables(members, architecture.outputs, 1, meta), resident=resident, gelu=False, augment=augment,
    )  # fmt: skip
    step.lay([batch] * members)
    return step


def launches_of(architecture: Architecture, members: int, batch: int, dtype: torch.dtype) -> list[Launch]:
    """What a step of a full pack launches."""
    step = step_without_memory(architecture, members, batch, dtype, augment="nws" in architecture.name)
    with recorded() as launches:
        step._launch()
    return launches


def code_of(cubin: bytes) -> tuple[int, int]:
    """Instructions, and how many of them stand in loops."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout
    labels: dict[str, int] = {}
    instructions: list[str] = []
    for line in text.splitlines():
        if found := LABEL.match(line):
            labels[found[1]] = len(instructions)
        elif found := INSTRUCTION.search(line):
            instructions.append(found[1])
    while instructions[-1].startswith("NOP"):
        instructions.pop()
    instructions.pop()  # a branch to itself, behind the end
    in_loops: set[int] = set()
    for place, instruction in enumerate(instructions):
        found = BRANCH.search(instruction)
        if found and labels.get(found[1], place + 1) <= place:
            in_loops |= set(range(labels[found[1]], place + 1))
    return len(instructions), len(in_loops)


def main() -> None:
    """Compile, read, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("preset", nargs="?", default="nws-fixed", choices=("nws-fixed", "small-cnn", "nws-main"))
    parser.add_argument("--members", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--capability", type=int, default=90)
    options = parser.parse_args()
    architecture = Space.load(preset=options.preset).members(0, range(1))[0].architecture
    print(f"{architecture.name}, {options.members} members, {options.batch} images each, {options.precision}")
    print("kernel                    programs regs shared warps/SM  code loops M issued")
    seen: dict[str, tuple[int, ...]] = {}
    total = 0.0
    for launch in launches_of(architecture, options.members, options.batch, DTYPES[options.precision]):
        variant = launch.variant()
        key = repr((variant.name, sorted(variant.signature.items()), sorted(variant.constexprs.items())))
        if key not in seen:
            compiled = check_variant(variant, variant.name, options.capability)
            code = code_of(compile_variant(variant, options.capability).asm["cubin"])
            seen[key] = (compiled.registers, compiled.shared_bytes, *code)
        registers, shared, instructions, in_loops = seen[key]
        a_program = variant.num_warps * 32 * -(-registers // 8) * 8
        fits = min(REGISTERS // a_program, SHARED_BYTES // (shared + 1024), WARPS // variant.num_warps)
        issued = prod(launch.grid) * variant.num_warps * instructions / 1e6
        total += issued
        print(
            f"{variant.name:24} {prod(launch.grid):9,} {registers:4} {shared:6} {fits * variant.num_warps:8} "
            f"{instructions:5} {in_loops:5} {issued:8.1f}"
        )
    print(f"{'all':24} {total:64.1f}")


if __name__ == "__main__":
    main()
