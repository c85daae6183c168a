"""A population on disk: ``ZooWriter`` makes a zoo while its members train, ``Zoo.open`` reads one."""

from .conditions import Condition, only_where
from .format import (
    CHECKPOINT_FOLDER,
    FORMAT_VERSION,
    LOG_FILE,
    REPAIR_FOLDER,
    SHARD_FOLDER,
    STUDIES_FOLDER,
    STUDY_FILE,
    ArchitectureEntry,
    Cost,
    Dtype,
    ImageSetEntry,
    ImportEntry,
    Manifest,
    RunEntry,
    ShardEntry,
    SourceEntry,
    TableEntry,
    TensorEntry,
    Timing,
    read_manifest,
)
from .integrity import DamagedError, check_local, file_problem, resume_command, saving
from .items import Items
from .lock import Lock, check_unlocked
from .merge import merge_zoos
from .normalising import Positions, fit_positions
from .placing import check_place, taking_place
from .plan import TARGET_BYTES, ShardPlan, plan_checksum, plan_shards
from .reader import Zoo, ZooMember
from .records import MemberResult, Snapshot, Status, Value
from .recovery import growth
from .removal import check_free, check_removable, remove_zoo
from .shards import Shard, known_dtype, write_shard
from .unfinished import UnfinishedZoo
from .verify import Problem, find_problems, found_beside
from .writer import ZooWriter, check_resumable

__all__ = [
    "CHECKPOINT_FOLDER",
    "FORMAT_VERSION",
    "LOG_FILE",
    "REPAIR_FOLDER",
    "SHARD_FOLDER",
    "STUDIES_FOLDER",
    "STUDY_FILE",
    "TARGET_BYTES",
    "ArchitectureEntry",
    "Condition",
    "Cost",
    "DamagedError",
    "Dtype",
    "ImageSetEntry",
    "ImportEntry",
    "Items",
    "Lock",
    "Manifest",
    "MemberResult",
    "Positions",
    "Problem",
    "RunEntry",
    "Shard",
    "ShardEntry",
    "ShardPlan",
    "Snapshot",
    "SourceEntry",
    "Status",
    "TableEntry",
    "TensorEntry",
    "Timing",
    "UnfinishedZoo",
    "Value",
    "Zoo",
    "ZooMember",
    "ZooWriter",
    "check_free",
    "check_local",
    "check_place",
    "check_removable",
    "check_resumable",
    "check_unlocked",
    "file_problem",
    "find_problems",
    "fit_positions",
    "found_beside",
    "growth",
    "known_dtype",
    "merge_zoos",
    "only_where",
    "plan_checksum",
    "plan_shards",
    "read_manifest",
    "remove_zoo",
    "resume_command",
    "saving",
    "taking_place",
    "write_shard",
]
