"""Which member goes into which row of which shard: fixed before the first member is trained."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .format import Record, canonical_json

TARGET_BYTES = 128 * 2**20


class ShardPlan(Record, frozen=True, kw_only=True):
    """A shard to be written: its file name, its architecture and its members, a row each, in this order."""

    file: str
    architecture: str
    members: tuple[int, ...]


def plan_shards(
    members: Iterable[tuple[int, str]],
    bytes_per_member: Mapping[str, int],
    target_bytes: int = TARGET_BYTES,
    *,
    after: Sequence[ShardPlan] = (),
) -> list[ShardPlan]:
    """Share members out over shards: one architecture a shard, ids ascending, about ``target_bytes`` each.

    Args:
        members: (id, name of the architecture), in any order.
        bytes_per_member: for each architecture what all snapshots of one member take as they are stored.
        target_bytes: shards are filled up to this size, but hold at least one member.
        after: shards of the same zoo that stay as they are; numbers of files go on behind theirs.

    Returns:
        The shards, sorted by file name within the order of architecture names.

    Raises:
        ValueError: an id occurs twice.
    """
    ids: dict[str, list[int]] = {}
    seen: set[int] = set()
    for member, architecture in members:
        if member in seen:
            raise ValueError(f"member {member} is planned twice")
        seen.add(member)
        ids.setdefault(architecture, []).append(member)
    taken = Counter(plan.architecture for plan in after)
    plans = []
    for architecture in sorted(ids):
        ordered = sorted(ids[architecture])
        rows = max(1, target_bytes // bytes_per_member[architecture])
        for number, start in enumerate(range(0, len(ordered), rows), taken[architecture]):
            file = f"{architecture}-{number:04d}.safetensors"
            chunk = tuple(ordered[start : start + rows])
            plans.append(ShardPlan(file=file, architecture=architecture, members=chunk))
    return plans


def plan_checksum(plans: Sequence[ShardPlan]) -> str:
    """The sha256 by which a resumed run knows that it would fill the same shards."""
    return hashlib.sha256(canonical_json(list(plans))).hexdigest()
