"""What memory is free, and telling the system what will be read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from ..machine import available_bytes


def free_bytes(device: str) -> int:
    """Memory that can be had: of this machine (files in memory give way), or of a GPU."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return available_bytes()


def expect(ranges: Iterable[tuple[Path, int, int]]) -> None:
    """Have parts of files read into memory in the background, all at once.

    Args:
        ranges: (file, first byte, bytes), files together.
    """
    if not hasattr(os, "posix_fadvise"):  # macOS: parts are read when they are looked at
        return
    for path, parts in groupby(ranges, itemgetter(0)):
        with suppress(OSError):  # who reads the file next will say it better
            file = os.open(path, os.O_RDONLY)
            try:
                for _, start, size in parts:
                    os.posix_fadvise(file, start, size, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)
