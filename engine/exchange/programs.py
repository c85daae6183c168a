"""Networks as programs of ``torch.export``, which run in PyTorch without wse, and a table of what they are."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..files import atomic_write
from ..zoo import Items, saving
from ..zoo.tables import write_table

NAME = "pt2"

_TABLE = "members.parquet"


def needed(items: Items) -> int:
    """Bytes of the weights of all programs."""
    return 4 * sum(items.layout(index).size for index in range(len(items)))


def write(items: Items, folder: Path, tell: Callable[[int, int], None]) -> None:
    """Write the last snapshot of each network as a program, and the rows of the members table.

    ``torch.export.load(file).module()`` gives logits [n, classes] of images [n, 3, 32, 32] in [0, 1], or of those
    that an imported architecture takes.

    Args:
        items: one of each network.
        folder: an empty one.
        tell: told how many networks have been written, and of how many.

    Raises:
        WseError: a shard is missing or damaged, or a file cannot be written.
    """
    import torch

    zoo = items.zoo
    for done, member in enumerate(items.members.tolist(), 1):
        side = zoo[member].layout.architecture.input.size
        images = torch.zeros(2, 3, side, side)  # two, as sizes of 0 and 1 would be taken for fixed
        sizes = ({0: torch.export.Dim("n")},)
        program = torch.export.export(zoo[member].module(), (images,), dynamic_shapes=sizes)
        content = io.BytesIO()
        torch.export.save(program, content)
        path = folder / f"member-{member:06d}.pt2"
        with saving(path), atomic_write(path) as file:
            file.write(content.getbuffer())
        tell(done, len(items))
    rows = pa.array(np.searchsorted(zoo.ids, items.members).tolist(), pa.int64())
    write_table(folder / _TABLE, pc.take(zoo.members, rows))
