"""What ``zoo.json`` holds, how it is written and how it is read back.

The file is JSON with sorted keys. Its entry ``checksum`` is the sha256 of the file's bytes with 64 zeros in the
place of the checksum itself, so a damaged file is found before it is believed. Everything in it is
the same in every run of the same space, seed and version, except ``timing`` and the checksum of the members
table, which has a column of seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..errors import UsageError, WseError
from ..files import atomic_write
from ..nets import Architecture, Layout
from .integrity import DamagedError, loading, saving

FORMAT_VERSION = 3
# Written where they say something only: a zoo of one run is still one of format 1, a merged one of format 2.
_OPTIONAL = ("grown_from", "sources", "imported")
MANIFEST_FILE = "zoo.json"
SHARD_FOLDER = "shards"
JOURNAL_FOLDER = "journal"

# Stands in the place of the checksum while the checksum is taken.
_NO_CHECKSUM = "0" * 64
# Who trains the members may keep here what has not ended; it is gone when the zoo is complete.
CHECKPOINT_FOLDER = "checkpoints"
# Who mends a damaged zoo makes here what is lost; it is gone when the zoo is whole.
REPAIR_FOLDER = "repair"
# Who trains the members may tell in this file how it went; the zoo does not depend on it.
LOG_FILE = "log.jsonl"
# Names the run that is writing the zoo; there is none when it is complete.
LOCK_FILE = "zoo.lock"
# Who reads the weights may keep here what was found; it is removed with the zoo that it is about.
STUDIES_FOLDER = "meta"
# A folder with this file is a study, wherever it is kept.
STUDY_FILE = "study.json"

# Of what a run says of its stages these have no sum over several.
_NOT_SUMMED = ("workers", "overhead")

Labels = Literal["eval", "faithful", "imported"]
Dtype = Literal["float32", "float16", "bfloat16"]
ConfigType = Literal["string", "int64", "double", "bool"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plain record: an unknown, missing or mistyped field is an error that names it."""


class ImageSetEntry(Record, frozen=True, kw_only=True):
    """An image set that members were trained on: its checksum, its number of images and of classes.

    The checksum is None in an imported zoo: which copy of the set its makers had is not known.
    """

    sha256: str | None
    train: int
    test: int
    classes: int


class TensorEntry(Record, frozen=True, kw_only=True):
    """A named tensor of the flat vector; ``offset`` counts values, ``statistic`` marks moving averages."""

    name: str
    shape: tuple[int, ...]
    offset: int
    kind: str
    statistic: bool


class ArchitectureEntry(Record, frozen=True, kw_only=True):
    """An architecture, the length D of its weight vector, and its tensors spelled out for other programs."""

    architecture: Architecture
    size: int
    tensors: tuple[TensorEntry, ...]

    @classmethod
    def of(cls, layout: Layout) -> ArchitectureEntry:
        """The entry of a layout."""
        tensors = tuple(
            TensorEntry(
                name=spec.name,
                shape=spec.shape,
                offset=spec.offset,
                kind=spec.kind,
                statistic=spec.is_statistic,
            )
            for spec in layout.tensors.values()
        )
        return cls(architecture=layout.architecture, size=layout.size, tensors=tensors)

    def layout(self) -> Layout:
        """The layout of the architecture.

        Raises:
            WseError: this version of wse lays the architecture out in another way than the zoo was written.
        """
        layout = Layout(self.architecture)
        if ArchitectureEntry.of(layout) != self:
            raise WseError(
                f"architecture {self.architecture.name} is laid out differently by this version of wse: "
                "read the zoo with the version named in its zoo.json"
            )
        return layout


class ShardEntry(Record, frozen=True, kw_only=True):
    """A weight file: its name, what [members, snapshots, D] it holds, its size in bytes and its checksum."""

    file: str
    architecture: str
    members: int
    snapshots: int
    bytes: int
    sha256: str


class TableEntry(Record, frozen=True, kw_only=True):
    """A table file: its rows, its size in bytes and its checksum."""

    rows: int
    bytes: int
    sha256: str


class Cost(Record, frozen=True, kw_only=True):
    """The work a zoo took: the same in every run, unlike its time."""

    samples_trained: int
    samples_evaluated: int
    training_flops: int
    evaluation_flops: int


class Timing(Record, frozen=True, kw_only=True):
    """When a run started and finished (ISO 8601) and the seconds each stage took."""

    started: str
    finished: str
    seconds: dict[str, float]

    @classmethod
    def of_all(cls, timings: Sequence[Timing]) -> Timing:
        """From the first start to the last end, and sums of seconds; of one alone, that one."""
        if len(timings) == 1:
            return timings[0]
        seconds: dict[str, float] = {}
        for timing in timings:
            for name in timing.seconds.keys() - set(_NOT_SUMMED):
                seconds[name] = round(seconds.get(name, 0.0) + timing.seconds[name], 4)
        return cls(
            started=min(timing.started for timing in timings),
            finished=max(timing.finished for timing in timings),
            seconds=seconds,
        )


class RunEntry(Record, frozen=True, kw_only=True):
    """What makes members again: a member is a function of (space, seed, its id in the run) and the backend.

    Attributes:
        models: number of members.
        seed: of the population.
        space: the resolved space, complete.
        backend: what trained the members.
        precision: the number format of the arithmetic, for instance "fp32".
        wse_version: the version that trained them.
        software: versions of the libraries it used.
    """

    models: int
    seed: int
    space: dict[str, Any]
    backend: str
    precision: str
    wse_version: str
    software: dict[str, str]


class SourceEntry(RunEntry, frozen=True, kw_only=True):
    """A run whose zoo went into a merged one; ``zoo`` is the name its folder had."""

    zoo: str


class ImportEntry(Record, frozen=True, kw_only=True):
    """What an imported zoo was made of, in whose format, and the sha256 of each file that describes it."""

    format: str
    files: dict[str, str]


class Manifest(Record, frozen=True, kw_only=True):
    """Everything ``zoo.json`` holds.

    Attributes:
        format_version: of this file and the files beside it: 1, 2 for a merged zoo, 3 for an imported one.
        status: "running" until every member is stored; a zoo can be opened when it is "complete".
        wse_version: the version that made the zoo.
        software: versions of the libraries it was made with.
        seed: of the population; None in a merged or imported zoo, as are ``space``, ``backend`` and ``precision``.
        models: number of members asked for.
        grown_from: how many it had before each time that more were asked for.
        space: the resolved space, complete.
        labels: "eval": members are measured in eval mode; "faithful": also as in the study's own protocol, in
            ``faithful_*`` columns; "imported": as who made them did.
        backend: what trained the members.
        precision: the number format of the arithmetic, for instance "fp32".
        dtype: the number format of the stored weights.
        image_sets: by name.
        architectures: by name.
        config_types: for each property of the set-up the type of its ``config.`` column.
        plan: checksum of which member goes into which shard; filled in by the writer.
        shards, tables, counts: filled in when the zoo is complete; ``counts`` are members by status.
        cost, timing: given when the zoo is complete.
        sources: the runs whose members a merged zoo holds, in the order of their ids; empty in any other zoo.
        imported: what an imported zoo was made of; None in any other zoo.

    Raises:
        ValueError: what must be there in a merged or imported zoo is missing, or in another one.
    """

    format_version: int = 1
    status: Literal["running", "complete"] = "running"
    wse_version: str
    software: dict[str, str]
    seed: int | None
    models: int
    grown_from: tuple[int, ...] = ()
    space: dict[str, Any] | None
    labels: Labels
    backend: str | None
    precision: str | None
    dtype: Dtype
    image_sets: dict[str, ImageSetEntry]
    architectures: dict[str, ArchitectureEntry]
    config_types: dict[str, ConfigType]
    plan: str = ""
    shards: tuple[ShardEntry, ...] = ()
    tables: dict[str, TableEntry] = {}
    counts: dict[str, int] = {}
    cost: Cost | None = None
    timing: Timing | None = None
    sources: tuple[SourceEntry, ...] = ()
    imported: ImportEntry | None = None

    def __post_init__(self) -> None:
        no_run = {getattr(self, name) is None for name in ("seed", "space", "backend", "precision")}
        needed = 3 if self.imported else 2 if self.sources else 1
        both = self.imported is not None and bool(self.sources)
        if no_run != {needed > 1} or both or self.format_version < needed:
            raise ValueError("it is not clear whether it was merged or imported")
        if self.sources and sum(source.models for source in self.sources) != self.models:
            raise ValueError(f"`models` (={self.models}) is not the number of members of its sources")

    @property
    def runs(self) -> tuple[RunEntry, ...]:
        """What made the members: the one run, the sources of a merged zoo, nothing of an imported one."""
        if self.seed is None or self.space is None or self.backend is None or self.precision is None:
            return self.sources
        run = RunEntry(
            models=self.models,
            seed=self.seed,
            space=self.space,
            backend=self.backend,
            precision=self.precision,
            wse_version=self.wse_version,
            software=self.software,
        )
        return (run,)

    def the_run(self, folder: Path, to_do: str) -> RunEntry:
        """The one run that made the members, for what is done run by run.

        Args:
            folder: of the zoo.
            to_do: what cannot be done otherwise, in words that continue "it cannot be ".

        Raises:
            UsageError: the zoo was merged or imported.
        """
        if self.imported:
            raise UsageError(f"{folder} was imported, and an imported zoo cannot be {to_do}: wse did not make it")
        if self.sources:
            raise UsageError(
                f"{folder} was merged from {len(self.sources)} zoos, and a merged zoo cannot be {to_do}: "
                "do that with the zoos it was merged from, and merge them again"
            )
        return self.runs[0]


class _Head(msgspec.Struct):
    """What must be known before the rest is read; everything else is passed over."""

    format_version: int
    checksum: str


class _SignedManifest(Manifest, frozen=True, kw_only=True):
    checksum: str


def _checksum_entry(checksum: str) -> bytes:
    return f'"checksum": "{checksum}"'.encode()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``zoo.json`` into ``folder``, in place of one that is there.

    Raises:
        ValueError: the manifest holds a number that JSON does not have (NaN, infinity).
        WseError: the file cannot be written.
    """
    data = msgspec.to_builtins(manifest)
    data = {name: value for name, value in data.items() if value or name not in _OPTIONAL}
    json.dumps(data, allow_nan=False)  # msgspec would store NaN and infinity as null without a word
    text = _for_people({**data, "checksum": _NO_CHECKSUM}).encode() + b"\n"
    checksum = hashlib.sha256(text).hexdigest()
    path = folder / MANIFEST_FILE
    with saving(path), atomic_write(path) as file:
        file.write(text.replace(_checksum_entry(_NO_CHECKSUM), _checksum_entry(checksum), 1))


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``zoo.json``.

    Raises:
        UsageError: the folder is missing or is not a zoo.
        WseError: the file is damaged or was written by a newer wse.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: name a zoo, or make one with `wse generate`")
    if not path.is_file():
        raise UsageError(f"{folder} is not a zoo (it has no {MANIFEST_FILE}): name the folder of a zoo")
    with loading(path):
        content = path.read_bytes()
    try:
        head = msgspec.json.decode(content, type=_Head)
    except msgspec.ValidationError as error:
        raise DamagedError(path, "it has no format version or no checksum") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(path, f"it is not JSON ({error})") from error
    if head.format_version > FORMAT_VERSION:
        raise WseError(
            f"{path} has format {head.format_version}, this wse reads formats 1 to {FORMAT_VERSION}: update wse, "
            "and read it again"
        )
    unsigned = content.replace(_checksum_entry(head.checksum), _checksum_entry(_NO_CHECKSUM), 1)
    if head.checksum != hashlib.sha256(unsigned).hexdigest():
        raise DamagedError(path, "its content does not match its checksum")
    try:
        signed = msgspec.json.decode(content, type=_SignedManifest)
    except (msgspec.ValidationError, UsageError) as error:
        raise DamagedError(path, str(error)) from error
    return Manifest(**{name: getattr(signed, name) for name in Manifest.__struct_fields__})


def canonical_json(data: Any) -> bytes:
    """The one JSON text of ``data`` that checksums are taken of: sorted keys, no spaces."""
    return msgspec.json.encode(data, order="sorted")


def _for_people(value: Any, indent: str = "") -> str:
    """Indented JSON in which whatever fits on a line stands on one."""
    line = msgspec.json.encode(value, order="sorted").decode()
    if not isinstance(value, (dict, list, tuple)) or len(indent) + len(line) <= 110:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        items = [
            f"{inner}{msgspec.json.encode(key).decode()}: {_for_people(value[key], inner)}"
            for key in sorted(value)
        ]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _for_people(item, inner) for item in value) + f"\n{indent}]"
