"""What a zoo holds, for people: summaries, pictures and an offline page.

What is named here is imported when it is asked for: the page needs all that studies need, and ``wse info`` does
not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .curves import draw_learning_curves
    from .facts import members, origin, seeds_in_common, sources
    from .page import write_report
    from .summary import Group, Summary, summarize

__all__ = [
    "Group",
    "Summary",
    "draw_learning_curves",
    "members",
    "origin",
    "seeds_in_common",
    "sources",
    "summarize",
    "write_report",
]

_MODULES = {
    "draw_learning_curves": "curves",
    "members": "facts",
    "origin": "facts",
    "seeds_in_common": "facts",
    "sources": "facts",
    "write_report": "page",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, 'summary')}", __name__), name)
