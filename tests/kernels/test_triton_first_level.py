"""Copies keep what they read in the first-level cache where a load says so, whichever Triton compiles them."""

from __future__ import annotations

import pytest
import triton
from triton import knobs

from wse.kernels import triton_first_level
from wse.kernels.triton_first_level import asks_for_first_level, passes_by, respect_cache_modifiers

TTGIR = """
  %a = ttg.async_copy_global_to_local %p, %s mask %m other %o cacheModifier = ca {contiguity = 8 : i32} : x -> y
  %b = ttg.async_commit_group tokens %a
  %c = ttg.async_copy_global_to_local %q, %t mask %m {contiguity = 8 : i32} : x -> y
  %d = ttg.async_commit_group tokens %c
  scf.for {
    %e = ttg.async_copy_global_to_local %p, %s mask %m other %o cacheModifier = ca {contiguity = 8 : i32} : x -> y
    %f = ttg.async_commit_group tokens %e
  }
"""
# Two copies of 16 bytes a group, which pass by the cache: so does Triton before 3.9.
COPY = "\tcp.async.{}.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x10, %r2;\n"
GROUP = COPY * 2 + "\tcp.async.commit_group;\n"
PTX = "".join(GROUP.replace("{}", "cg") for _ in range(3)) + "\tcp.async.wait_group 1;\n\tret;\n"
MENDED = "".join(GROUP.replace("{}", kind) for kind in ("ca", "cg", "ca")) + PTX[PTX.index("\tcp.async.wait") :]


@pytest.fixture
def stages(monkeypatch):
    """Makes the stages of a compilation as a Triton of some version has them, with what watches them."""

    def make(version, ttgir=TTGIR, ptx=PTX):
        monkeypatch.setattr(triton, "__version__", version)
        monkeypatch.setattr(knobs.runtime, "add_stages_inspection_hook", None)
        respect_cache_modifiers()
        made = {"ttgir": lambda source, metadata: ttgir, "ptx": lambda source, metadata: ptx}
        if (hook := knobs.runtime.add_stages_inspection_hook) is not None:
            hook(None, made, None, None, 90)
        return made

    return make


@pytest.mark.parametrize(("version", "expected"), [("3.6.0", MENDED), ("3.8.1", MENDED), ("3.9.0", PTX)])
def test_copies_that_ask_for_it_keep_what_they_read(stages, version, expected):
    made = stages(version)
    assert made["ttgir"](None, {}) == TTGIR
    assert made["ptx"](None, {}) == expected


def test_other_groups_than_were_asked_stay_as_they_are(stages):
    unrolled = PTX + PTX
    made = stages("3.6.0", ptx=unrolled)
    made["ttgir"](None, {})
    assert made["ptx"](None, {}) == unrolled
    assert passes_by(unrolled, asks_for_first_level(TTGIR))


def test_what_passes_by_is_found():
    asks = asks_for_first_level(TTGIR)
    assert asks == [True, False, True]
    assert passes_by(PTX, asks)
    assert not passes_by(MENDED, asks)
    assert not passes_by(PTX, [False] * 3)
    assert not passes_by("ret;", [])


def test_what_is_kept_on_the_disk_is_told_apart():
    """Since 3.7 Triton asks for a part of its keys."""
    key, part = triton_first_level._watch_stages()
    assert part == repr(key)


def test_stages_without_assembler_text_are_left_alone():
    stages = {"ttgir": len}
    triton_first_level._watch_stages(None, stages, None, None, None)
    assert stages == {"ttgir": len}
