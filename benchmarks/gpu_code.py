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
from math import prod
from pathlib import Path

import torch
import triton

from wse.engine.nets import Architecture
from wse.engine.space import Space
from wse.engine.train.cuda_forms import launch_step
from wse.kernels.triton_check import check_variant, compile_variant
from wse.kernels.triton_launches import Launch, recorded

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
REGISTERS, SHARED_BYTES, WARPS = 65536, 227 * 1024, 64  # of a multiprocessor

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(.*?);")
LABEL = re.compile(r"\s*(\.L_x_\d+):")
BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")


def launches_of(architecture: Architecture, members: int, batch: int, dtype: torch.dtype) -> list[Launch]:
    """What a step of a full pack launches."""
    with recorded() as launches:
        space = {"classes": architecture.outputs, "augment": "nws" in architecture.name, "gelu": False}
        launch_step(architecture, dtype, rows=members, batch=batch, **space)
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
        if variant.code not in seen:
            compiled = check_variant(variant, variant.name, options.capability)
            code = code_of(compile_variant(variant, options.capability).asm["cubin"])
            seen[variant.code] = (compiled.registers, compiled.shared_bytes, *code)
        registers, shared, instructions, in_loops = seen[variant.code]
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
