"""A population on disk: ``ZooWriter`` makes a zoo while its members train, ``Zoo.open`` reads one."""

from .format import (
    CHECKPOINT_FOLDER,
    FORMAT_VERSION,
    LOG_FILE,
    STUDIES_FOLDER,
    ArchitectureEntry,
    Cost,
    Dtype,
    ImageSetEntry,
    Manifest,
    ShardEntry,
    TableEntry,
    TensorEntry,
    Timing,
    read_manifest,
)
from .integrity import DamagedError, saving
from .items import Items
from .normalising import Positions, fit_positions
from .plan import ShardPlan, plan_shards
from .reader import Zoo, ZooMember
from .records import MemberResult, Snapshot, Status
from .shards import Shard, write_shard
from .verify import Problem, find_problems
from .writer import ZooWriter, remove_zoo

__all__ = [
    "CHECKPOINT_FOLDER",
    "FORMAT_VERSION",
    "LOG_FILE",
    "STUDIES_FOLDER",
    "ArchitectureEntry",
    "Cost",
    "DamagedError",
    "Dtype",
    "ImageSetEntry",
    "Items",
    "Manifest",
    "MemberResult",
    "Positions",
    "Problem",
    "Shard",
    "ShardEntry",
    "ShardPlan",
    "Snapshot",
    "Status",
    "TableEntry",
    "TensorEntry",
    "Timing",
    "Zoo",
    "ZooMember",
    "ZooWriter",
    "find_problems",
    "fit_positions",
    "plan_shards",
    "read_manifest",
    "remove_zoo",
    "saving",
    "write_shard",
]
