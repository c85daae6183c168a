"""Kernels compile without a GPU: a sample of all forms, and forms that must be found wanting.

Triton's interpreter and its compiler exclude each other in a process, so these run in processes of their own.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any

import pytest

from wse.kernels.triton_addresses import narrow_addresses
from wse.kernels.triton_check import distinct, reads_too_late, variants_of

WANTING = """
import triton, triton.language as tl
from wse.kernels.triton_check import check_variant
from wse.kernels.triton_variant import Variant

@triton.jit
def narrow(out_ptr, table_ptr, D, BLOCK: tl.constexpr):
    member = tl.load(table_ptr + tl.program_id(1))
    tl.store(out_ptr + member * D + tl.arange(0, BLOCK), 1.0)

@triton.jit
def narrow_images(out_ptr, table_ptr, D, BLOCK: tl.constexpr):
    images = tl.load(table_ptr + tl.program_id(1)) + tl.arange(0, BLOCK)
    tl.store(out_ptr + images * 96, 1.0)

@triton.jit
def crowded(out_ptr, table_ptr, D, BLOCK: tl.constexpr):
    places = tl.arange(0, BLOCK)
    values = tl.load(table_ptr + places)
    for step in range(D):
        values = values * step + tl.load(table_ptr + step)
    tl.store(out_ptr + places, values.to(tl.float32))

@triton.jit
def wide(out_ptr, table_ptr, D, BLOCK: tl.constexpr):
    member = tl.load(table_ptr + tl.program_id(1)).to(tl.int64)
    tl.store(out_ptr + member * D + tl.arange(0, BLOCK), 1.0)

def form(kernel, constants=None, **options):
    signature = {"out_ptr": "*fp32", "table_ptr": "*i32", "D": "i32"}
    constants = constants or {"BLOCK": 128}
    return Variant(kernel=kernel, name="form", signature=signature, constexprs=constants, **options)

for variant in (
    form(narrow), form(narrow_images), form(wide), form(wide, needs_matrix=True), form(wide, {"BLOCK": 100}),
    form(wide, {"BLOCK": 128, "STRAY": 1}), form(crowded, {"BLOCK": 16384}, num_warps=1),
):
    print("|".join(check_variant(variant, "form", 90).problems))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    triton = ("TRITON_INTERPRET", "TRITON_DEFAULT_FP_FUSION")
    environment = {name: value for name, value in os.environ.items() if name not in triton}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)


def test_a_sample_of_all_forms_compiles() -> None:
    done = run("-m", "wse.kernels.triton_check", "--jobs", "1", "--sample", "131")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0]) > 15
    assert "fusion" not in done.stderr  # that nobody has chosen it


def test_images_are_written_side_by_side() -> None:
    """Threads write 16 bytes each, where an even margin allows it, and not pixel by pixel."""
    program = """
from wse.kernels.triton_check import compile_variant, variants_of
for form in variants_of("inputs.triton"):
    if form.name in ("inputs-m2-colour-bf16", "inputs-m0-grey-bf16"):
        text = compile_variant(form, 90).asm["ptx"]
        print(text.count("st.global.v4.b32"), text.count("st.global"))
"""
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["4 4"] * 2


def test_wanting_forms_are_found(tmp_path) -> None:
    script = tmp_path / "wanting.py"  # a kernel's source is read from its file
    script.write_text(WANTING)
    done = run(str(script))
    assert done.returncode == 0, done.stderr
    narrow, images, wide, matrix, block, stray, crowded = done.stdout.splitlines()
    assert narrow.startswith("an address of 32 bits")
    assert images.startswith("an address of 32 bits")
    assert wide == ""
    assert matrix == "no matrix instructions"
    assert block != ""  # not a power of two
    assert "name every argument once" in stray
    assert crowded.startswith("registers are spilled to ")


# As Triton writes them: a sum, then where the left factor is, in registers or in shared memory.
PRODUCT = "\twgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%r1,%r2,%r3,%r4}}, {}, %rd2, %p1, 1, 1, 0;\n"
WAIT = "\t// wait for regs: %r1,%r2\n\twgmma.wait_group.sync.aligned {};\n"


@pytest.mark.parametrize(
    ("factor", "left", "late"),
    [("{%r5,%r6,%r7,%r8}", 3, True), ("{%r5,%r6,%r7,%r8}", 0, False), ("%rd1", 1, False)],
    ids=["registers too late", "registers in time", "shared memory"],
)
def test_products_that_may_read_registers_too_late(factor: str, left: int, late: bool) -> None:
    assert reads_too_late(PRODUCT.format(factor) + WAIT.format(left) + WAIT.format(0)) == late


def test_forms_that_differ_in_name_alone_are_compiled_once() -> None:
    """And those that differ in anything else are not."""
    plain = next(variants_of("optim.triton"))
    changes: list[dict[str, Any]] = [
        {"name": "other"},
        {"constexprs": {"BLOCK": 256}},
        {"signature": {**plain.signature, "D": "i64"}},
        {"num_warps": 8},
        {"num_stages": 2},
        {"aligned": ()},
        {"needs_matrix": True},
    ]
    forms = [plain, *(dataclasses.replace(plain, **change) for change in changes)]
    forms = [dataclasses.replace(form, name=str(place)) for place, form in enumerate(forms)]
    assert [name for _, name in distinct(("optim.triton", form) for form in forms)] == list("0234567")


def test_the_interpreter_is_refused() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "wse.kernels.triton_check", "optim"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "TRITON_INTERPRET is set" in done.stderr


@pytest.mark.parametrize(
    ("factor", "suspicious"),
    [
        pytest.param("arith.constant dense<7> : tensor<64xi32>", False, id="small"),
        pytest.param("arith.constant dense<96> : tensor<64xi32>", True, id="large"),
    ],
)
def test_products_of_what_a_table_says(factor, suspicious) -> None:
    ttir = f"""
    %c = {factor} loc(#loc)
    %m = tt.load %p : tensor<64x!tt.ptr<i32>> loc(#loc1)
    %r = arith.muli %m, %c : tensor<64xi32> loc(#loc2)
    %a = tt.addptr %q, %r : tensor<64x!tt.ptr<f32>>, tensor<64xi32> loc(#loc3)
    """
    assert bool(list(narrow_addresses(ttir))) == suspicious
