"""Networks of a zoo in the formats of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from ..errors import UsageError
from ..zoo import Condition, Zoo, check_local, check_place, only_where, taking_place
from . import programs, small_cnn_zoo

Tell = Callable[[int, int], None]

WRITERS: Mapping[str, ModuleType] = {small_cnn_zoo.NAME: small_cnn_zoo, programs.NAME: programs}
"""The modules that write networks in a format of others, by its name: ``needed`` bytes at least, and ``write``."""


def export_zoo(
    zoo: Zoo,
    out: Path,
    *,
    to: str,
    where: Sequence[Condition] = (),
    tell: Tell = lambda done, total: None,
) -> int:
    """Write networks of a zoo in a format of others; those without any snapshot are passed over.

    Args:
        zoo: whose networks.
        out: the folder to make; missing or empty.
        to: the format, one of ``WRITERS``.
        where: only networks for which all of these hold.
        tell: told how many networks have been written, and of how many.

    Returns:
        How many networks were written.

    Raises:
        UsageError: there is no such format, it cannot hold these networks, none is left, or ``out`` is taken or
            lies in the zoo.
        WseError: a shard is missing or damaged, or a file cannot be written. Nothing is left then.
    """
    check_local(out)
    if to not in WRITERS:
        raise UsageError(f"no format {to!r}: use {' or '.join(WRITERS)}")
    items = only_where(zoo.items(), where)
    check_place(out, WRITERS[to].needed(items))
    if zoo.folder.resolve() in out.resolve().parents:
        raise UsageError(f"{out} lies in the zoo {zoo.folder}: name a folder elsewhere by --out")
    with taking_place(out, "exporting") as folder:
        WRITERS[to].write(items, folder, tell)
    return len(items)
