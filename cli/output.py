"""How numbers look on the terminal, the same in every command, and the exit code of an interrupted one."""

from __future__ import annotations

from wse.engine.text import bytes_text, count_text, percent_text, seconds_text

__all__ = ["INTERRUPTED", "bytes_text", "count_text", "percent_text", "seconds_text"]

INTERRUPTED = 130
