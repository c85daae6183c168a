"""Compiles every Triton kernel of the project for GPUs that need not be there, and reads what came out.

    python -m wse.kernels.triton_check [NAME ...]

Each form of each kernel (``variants()`` of its module) is compiled for sm_90 and sm_80 by the compiler that runs
it, down to machine code. A form fails when its machine code spills registers to memory or needs more shared memory
than a multiprocessor has, when the assembler was given no matrix instructions where they are meant to be used,
some that may read registers too late, copies that pass by the first-level cache where they are to keep what they
read there, or when addresses are computed in 32 bits. Nothing is run, so this says nothing of speed or of results.
Forms that differ in name alone are compiled once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from .triton_addresses import narrow_addresses
from .triton_first_level import asks_for_first_level, passes_by
from .triton_variant import Variant

KERNELS = Path(__file__).parent
SHARED_BYTES = {90: 227 * 1024, 80: 163 * 1024}

_WARP = 32
_MATRIX = re.compile(r"\b(?:wgmma\.mma_async|mma)\.sync\b")
_FROM_REGISTERS = re.compile(r"\bwgmma\.mma_async\S*\s+\{[^}]*\},\s*\{")
_LEFT_UNDER_WAY = re.compile(r"\bwgmma\.wait_group\.sync\.aligned\s+[1-9]")
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """What a form was compiled to.

    Attributes:
        name: of the form, its module in front.
        capability: of the GPU, 90 for sm_90.
        seconds: the compilation took.
        registers: a thread has.
        shared_bytes: a program has.
        local_bytes: memory of a thread, where registers are spilled to.
        matrix: matrix instructions.
        problems: why the form fails; empty if it does not.
    """

    name: str
    capability: int
    seconds: float
    registers: int = 0
    shared_bytes: int = 0
    local_bytes: int = 0
    matrix: int = 0
    problems: tuple[str, ...] = ()


def modules() -> list[str]:
    """The modules with Triton kernels, those that have ``variants()``, relative to this package."""
    files = sorted(KERNELS.rglob("triton*.py"))
    return [
        ".".join(file.relative_to(KERNELS).with_suffix("").parts)
        for file in files
        if "\ndef variants(" in file.read_text()
    ]


def variants_of(module: str) -> Iterator[Variant]:
    """All forms of a module's kernels."""
    yield from importlib.import_module(f"{__package__}.{module}").variants()


@cache
def _by_name(module: str) -> dict[str, Variant]:
    return {variant.name: variant for variant in variants_of(module)}


def check(module: str, name: str, capability: int) -> Compiled:
    """Compile one form and read it.

    Args:
        module: a name from ``modules()``.
        name: of the form.
        capability: of the GPU.
    """
    return check_variant(_by_name(module)[name], f"{module}:{name}", capability)


def check_variant(variant: Variant, full_name: str, capability: int) -> Compiled:
    """Compile a form that is at hand, and read it."""
    began = time.perf_counter()
    try:
        kernel = compile_variant(variant, capability)
        registers, local_bytes = _usage(kernel.asm["cubin"])
    except Exception as error:  # the compiler's own errors have no common class, and each is a finding
        lines = str(error).strip().splitlines() or [type(error).__name__]
        seconds = time.perf_counter() - began
        return Compiled(name=full_name, capability=capability, seconds=seconds, problems=(lines[-1],))
    matrix = len(_MATRIX.findall(kernel.asm["ptx"]))
    shared = kernel.metadata.shared
    problems = []
    if local_bytes:
        problems.append(f"registers are spilled to {local_bytes} bytes of a thread's memory")
    if shared > SHARED_BYTES[capability]:
        problems.append(f"{shared} bytes of shared memory, of {SHARED_BYTES[capability]}")
    if variant.needs_matrix and not matrix:
        problems.append("no matrix instructions")
    if reads_too_late(kernel.asm["ptx"]):
        problems.append("products may read registers that have changed")
    if passes_by(kernel.asm["ptx"], asks_for_first_level(kernel.asm["ttgir"])):
        problems.append("copies pass by the first-level cache that are to keep what they read there")
    problems += [f"an address of 32 bits: {product}" for product in narrow_addresses(kernel.asm["ttir"])]
    return Compiled(
        name=full_name,
        capability=capability,
        seconds=time.perf_counter() - began,
        registers=registers,
        shared_bytes=shared,
        local_bytes=local_bytes,
        matrix=matrix,
        problems=tuple(problems),
    )


def reads_too_late(ptx: str) -> bool:
    """Whether products that take a factor from registers are still under way when these get other values.

    Triton pipelines such products, and then may wait for too few (https://github.com/triton-lang/triton/issues/9433).
    """
    return bool(_FROM_REGISTERS.search(ptx) and _LEFT_UNDER_WAY.search(ptx))


def compile_variant(variant: Variant, capability: int):  # type: ignore[no-untyped-def]
    """Triton's compiled kernel of a form: ``asm["cubin"]`` is its machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = variant.kernel.arg_names
    stray = set(names) ^ (set(variant.signature) | set(variant.constexprs))
    if stray or set(variant.signature) & set(variant.constexprs):
        raise ValueError(f"signature and constants must name every argument once; look at {sorted(stray)}")
    signature = {name: variant.signature.get(name, "constexpr") for name in names}
    is_aligned = [kind.startswith("*") or name in variant.aligned for name, kind in signature.items()]
    attributes = {(place,): [["tt.divisibility", 16]] for place, aligned in enumerate(is_aligned) if aligned}
    source = ASTSource(
        fn=variant.kernel, signature=signature, constexprs=dict(variant.constexprs), attrs=attributes
    )
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, _WARP), options=options)


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of memory that it spills to.

    Asked of cuobjdump, which answers in milliseconds: disassembling a form takes longer than compiling most.
    """
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(  # noqa: S603 - a program of the toolkit on a file of ours
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    found = _USAGE.search(done.stdout + done.stderr)
    if found is None:
        raise ValueError("cuobjdump does not say what a form uses")
    registers, stack, local = map(int, found.groups())
    return registers, stack + local


def distinct(forms: Iterable[tuple[str, Variant]]) -> list[tuple[str, str]]:
    """(module, name) of forms, each machine code once."""
    first: dict[str, tuple[str, str]] = {}
    for module, variant in forms:
        first.setdefault(variant.code, (module, variant.name))
    return list(first.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile all forms, or those whose names contain one of the words given; 1 if any fails."""
    parser = argparse.ArgumentParser(prog="triton_check", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="NAME", help="only forms whose names contain one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="only every N-th form")
    parser.add_argument(
        "--sample-80", type=int, metavar="N", help="only every N-th form for sm_80, if not as many"
    )
    parser.add_argument("--brief", action="store_true", help="print only forms that fail")
    chosen = parser.parse_args(arguments)
    if os.environ.pop("TRITON_INTERPRET", "0") == "1":
        parser.error("TRITON_INTERPRET is set: unset it, kernels are compiled here")
    forms = [
        (module, variant)
        for module in modules()
        for variant in variants_of(module)
        if not chosen.words or any(word in f"{module}:{variant.name}" for word in chosen.words)
    ]
    tasks = [
        (module, name, capability)
        for capability, every in ((90, chosen.sample), (80, chosen.sample_80 or chosen.sample))
        for module, name in distinct(forms)[::every]
    ]
    failed = 0
    print(f"{'form':66} {'sm':>3} {'s':>5} {'regs':>4} {'shared':>7} {'matrix':>6}")
    with ProcessPoolExecutor(chosen.jobs, mp_context=get_context("spawn")) as pool:
        for done in pool.map(check, *zip(*tasks, strict=True), chunksize=4) if tasks else ():
            if done.problems or not chosen.brief:
                print(
                    f"{done.name:66} {done.capability:3} {done.seconds:5.1f} {done.registers:4} "
                    f"{done.shared_bytes:7} {done.matrix:6} {'; '.join(done.problems)}",
                    flush=True,
                )
            failed += bool(done.problems)
    print(f"{len(tasks)} compiled, {failed} failed")
    return 1 if failed or not tasks else 0


if __name__ == "__main__":
    sys.exit(main())
