"""Lets loads of loops keep what they read in the first-level cache where they say so, in every Triton.

Such loads become asynchronous copies. Before 3.9 Triton has those of 16 bytes pass by the first-level cache
(``cp.async.cg``) whatever a load's ``cache_modifier`` says, so windows that overlap would come from the
second-level cache as often as they are read. Its assembler text is mended before it is assembled.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

import triton
from triton import knobs

_MENDED_IN = (3, 9)
_KEY = "wse-first-level"  # of what is compiled so, in Triton's caches
_ASKS = re.compile(r"ttg\.async_copy_global_to_local\b.* cacheModifier = ca\b")
_COMMIT = re.compile(r"ttg\.async_commit_group\b")
_PTX_COMMIT = "cp.async.commit_group;"
_PASSES_BY, _KEEPS = "cp.async.cg.", "cp.async.ca."


def asks_for_first_level(ttgir: str) -> list[bool]:
    """Whether each group of asynchronous copies is to keep what it reads, in their order.

    Args:
        ttgir: the text of ``kernel.asm["ttgir"]``.
    """
    return [_ASKS.search(group) is not None for group in _COMMIT.split(ttgir)[:-1]]


def mended(ptx: str, asks: list[bool]) -> str:
    """Assembler text whose groups of copies keep what they read if they are to.

    The text as it is if its groups are not those that were asked.
    """
    groups = ptx.split(_PTX_COMMIT)
    if len(groups) != len(asks) + 1:
        return ptx
    made = [group.replace(_PASSES_BY, _KEEPS) if ask else group for group, ask in zip(groups, asks, strict=False)]
    return _PTX_COMMIT.join([*made, groups[-1]])


def passes_by(ptx: str, asks: list[bool]) -> bool:
    """Whether copies that are to keep what they read do not."""
    return any(asks) and (mended(ptx, asks) != ptx or _KEEPS not in ptx)


def respect_cache_modifiers() -> None:
    """Have Triton respect them in all that this process compiles from now on."""
    version = tuple(int(number) for number in triton.__version__.split(".")[:2])
    if version < _MENDED_IN and knobs.runtime.add_stages_inspection_hook is None:
        knobs.runtime.add_stages_inspection_hook = _watch_stages


def _watch_stages(
    backend: Any = None, stages: MutableMapping[str, Any] | None = None, *_: Any
) -> tuple[str, str] | None:
    """What Triton calls before it compiles, with the stages to come; without any, for a part of its keys."""
    if stages is None:
        return _KEY, repr(_KEY)
    if "ptx" in stages:
        asks: list[bool] = []
        lower, assemble = stages["ttgir"], stages["ptx"]

        def lowered(source: Any, metadata: Any) -> Any:
            made = lower(source, metadata)
            asks.extend(asks_for_first_level(str(made)))
            return made

        stages["ttgir"] = lowered
        stages["ptx"] = lambda source, metadata: mended(assemble(source, metadata), asks)
    return None
