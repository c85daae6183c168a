"""What a zoo holds, for people: summaries, pictures and an offline page."""

from .curves import draw_learning_curves
from .page import write_report
from .summary import Group, Summary, summarize

__all__ = ["Group", "Summary", "draw_learning_curves", "summarize", "write_report"]
