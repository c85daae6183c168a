"""Compiles every Triton kernel of the project for GPUs that need not be there, and reads what came out.

    python -m wse.kernels.triton_check [NAME ...]

Each form of each kernel (``variants()`` of its module) is compiled for sm_90 and sm_80 by the compiler that runs
it, down to machine code, which is then disassembled. A form fails when it spills registers to memory, needs more
shared memory than a multiprocessor has, lacks the matrix instructions it is meant to use, or computes addresses in
32 bits. Nothing is run, so this says nothing of speed or of results.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from .triton_addresses import narrow_addresses
from .triton_variant import Variant

KERNELS = Path(__file__).parent
CAPABILITIES = (90, 80)
SHARED_BYTES = {90: 227 * 1024, 80: 163 * 1024}

_WARP = 32
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)
_MATRIX = ("HGMMA", "HMMA", "QGMMA")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """What a form was compiled to.

    Attributes:
        name: of the form, its module in front.
        capability: of the GPU, 90 for sm_90.
        seconds: the compilation took.
        registers: a thread has.
        shared_bytes: a program has.
        local: instructions on memory of a thread, where registers are spilled to.
        matrix: matrix instructions.
        instructions: all of them.
        problems: why the form fails; empty if it does not.
    """

    name: str
    capability: int
    seconds: float
    registers: int = 0
    shared_bytes: int = 0
    local: int = 0
    matrix: int = 0
    instructions: int = 0
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


def check(module: str, name: str, capability: int) -> Compiled:
    """Compile one form and read it.

    Args:
        module: a name from ``modules()``.
        name: of the form.
        capability: of the GPU.
    """
    variant = next(variant for variant in variants_of(module) if variant.name == name)
    return check_variant(variant, f"{module}:{name}", capability)


def check_variant(variant: Variant, full_name: str, capability: int) -> Compiled:
    """Compile a form that is at hand, and read it."""
    began = time.perf_counter()
    try:
        kernel = _compile(variant, capability)
        operations = _operations(kernel.asm["cubin"])
    except Exception as error:  # the compiler's own errors have no common class, and each is a finding
        lines = str(error).strip().splitlines() or [type(error).__name__]
        seconds = time.perf_counter() - began
        return Compiled(name=full_name, capability=capability, seconds=seconds, problems=(lines[-1],))
    local = sum(operation.startswith(("LDL", "STL")) for operation in operations)
    matrix = sum(operation.startswith(_MATRIX) for operation in operations)
    shared = kernel.metadata.shared
    problems = []
    if local:
        problems.append(f"registers are spilled: {local} instructions on memory of a thread")
    if shared > SHARED_BYTES[capability]:
        problems.append(f"{shared} bytes of shared memory, of {SHARED_BYTES[capability]}")
    if variant.needs_matrix and not matrix:
        problems.append("no matrix instructions")
    problems += [f"an address of 32 bits: {product}" for product in narrow_addresses(kernel.asm["ttir"])]
    return Compiled(
        name=full_name,
        capability=capability,
        seconds=time.perf_counter() - began,
        registers=_registers(kernel.asm["cubin"]),
        shared_bytes=shared,
        local=local,
        matrix=matrix,
        instructions=len(operations),
        problems=tuple(problems),
    )


def _compile(variant: Variant, capability: int):  # type: ignore[no-untyped-def]
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


def _tool(name: str) -> Path:
    """A program of the CUDA toolkit that comes with triton."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


def _read(tool: str, option: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(  # noqa: S603 - a program of the toolkit on a file of ours
            [_tool(tool), option, file.name], capture_output=True, text=True, check=True
        )
    return done.stdout + done.stderr


def _operations(cubin: bytes) -> list[str]:
    """The operation of every instruction."""
    return _INSTRUCTION.findall(_read("nvdisasm", "-c", cubin))


def _registers(cubin: bytes) -> int:
    found = re.search(r"REG:(\d+)", _read("cuobjdump", "-res-usage", cubin))
    return int(found.group(1)) if found else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile all forms, or those whose names contain one of the words given; 1 if any fails."""
    parser = argparse.ArgumentParser(prog="triton_check", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="NAME", help="only forms whose names contain one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="only every N-th form")
    chosen = parser.parse_args(arguments)
    if os.environ.pop("TRITON_INTERPRET", "0") == "1":
        parser.error("TRITON_INTERPRET is set: unset it, kernels are compiled here")
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # what triton does unasked changes with its version
    names = [(module, variant.name) for module in modules() for variant in variants_of(module)]
    wanted = [
        (module, name)
        for module, name in names
        if not chosen.words or any(word in f"{module}:{name}" for word in chosen.words)
    ][:: chosen.sample]
    tasks = [(module, name, capability) for module, name in wanted for capability in CAPABILITIES]
    failed = 0
    print(f"{'form':66} {'sm':>3} {'s':>5} {'regs':>4} {'shared':>7} {'matrix':>6} {'all':>6}")
    with ProcessPoolExecutor(chosen.jobs, mp_context=get_context("spawn")) as pool:
        for done in pool.map(check, *zip(*tasks, strict=True)) if tasks else ():
            print(
                f"{done.name:66} {done.capability:3} {done.seconds:5.1f} {done.registers:4} "
                f"{done.shared_bytes:7} {done.matrix:6} {done.instructions:6} {'; '.join(done.problems)}",
                flush=True,
            )
            failed += bool(done.problems)
    print(f"{len(tasks)} compiled, {failed} failed")
    return 1 if failed or not tasks else 0


if __name__ == "__main__":
    sys.exit(main())
