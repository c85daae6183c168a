"""A run from a space to a zoo: prepare, plan, have members trained, store each as soon as it has ended."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cached_property
from heapq import nlargest

from ..data import ImageSet, load
from ..errors import UsageError, WseError
from ..files import check_writable
from ..machine import available_bytes
from ..nets import Layout
from ..space import Member
from ..text import bytes_text
from ..zoo import (
    TARGET_BYTES,
    Manifest,
    MemberResult,
    ShardPlan,
    Timing,
    ZooWriter,
    check_free,
    check_removable,
    check_resumable,
    check_unlocked,
    growth,
    read_manifest,
    remove_zoo,
    saving,
)
from .backend import Backend, Context
from .checkpoints import Checkpoints
from .executor import Executor, Report
from .host_memory import SPARE_VECTORS, rows_in_memory
from .limits import check_limits
from .log import Listener, Log, facts_of, logged_facts, sittings
from .manifest import manifest_of, shard_plans
from .options import Options, Progress, backend_for
from .plan import PackPlan, Plan, make_plan
from .schedule import held_snapshots
from .split import Split
from .threads import Threads
from .trainer import Work

# Over and above the weights: the lines of a member and of a snapshot in journal, log and tables, and all else.
_RECORD_BYTES, _DISK_RESERVE_BYTES = 500, 64 * 2**20


class Run:
    """A run that is prepared and planned when it is made, and trains in ``execute``.

    Args:
        options: what to make.
        backend: what computes; if none is given, the one that ``options.device`` names.
        executor: where members train; on threads of this process if none is given.
        shards: to be filled, if not the whole population is to be trained but only the members of these.

    Attributes:
        members: the population.
        image_sets: those that occur in it.
        executor: where members train.
        context: settings and splits.
        plan: of the whole population; of what is missing once ``look`` or ``execute`` has found that out.
        workers: packs trained at the same time, at most.
        taken_back: how many members fewer are asked for than the zoo in the folder was to have; see ``look``.
        estimated_seconds: what the run is expected to take, if somebody said; told in the log.
        seconds: what this sitting took, by stage; empty before it has ended.

    Raises:
        UsageError: an image set is not here, or what the executor needs.
        WseError: an image set is damaged, or the executor does not answer.
    """

    def __init__(
        self,
        options: Options,
        backend: Backend | None = None,
        executor: Executor | None = None,
        *,
        shards: Sequence[ShardPlan] | None = None,
    ) -> None:
        started = time.perf_counter()
        self.options = options
        self.backend: Backend = backend or backend_for(options.device, precision=options.precision)
        self.executor = executor or Threads()
        workers = self.executor.workers(self)
        self.estimated_seconds: float | None = None
        self.taken_back = 0
        self.seconds: dict[str, float] = {}
        self._stop = threading.Event()
        settings = options.space.settings
        ids = range(options.models) if shards is None else sorted(i for plan in shards for i in plan.members)
        self.members = options.space.members(options.seed, ids)
        self._given_shards = shards
        names = sorted({member.setup.dataset for member in self.members})
        self.image_sets: dict[str, ImageSet] = {name: load(name, data_dir=options.data_dir) for name in names}
        _check_classes(self.members, self.image_sets)
        self.context = Context(
            settings=settings,
            splits={
                name: Split.make(images, seed=options.seed, settings=settings)
                for name, images in self.image_sets.items()
            },
            should_stop=self._stop.is_set,
            choices=options.space.all_choices,
        )
        self._grown_from = growth(options.folder, len(self.members)) if options.resume else ()
        self.plan = self.plan_of([member.id for member in self.members])
        self._shard_bytes = _largest_shard(self.plan)
        self.workers = max(min(workers, len(self.plan.packs)), 1)
        self._earlier = 0
        self._checkpoints: Checkpoints
        self._work = Work()
        self._preparing: float | None = None
        self._accuracies: list[float] = []
        self._counts: Counter[str] = Counter()
        self._training_began = 0.0
        self._seconds = {"preparing": time.perf_counter() - started, "writing": 0.0}

    def stop(self) -> None:
        """Ask the run to end soon; what has not ended is checkpointed. May be called from a signal handler."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.is_set()

    def memory_bytes(self) -> int:
        """An estimate of what training needs: images in use, and for each worker its members' snapshots.

        The activations of a batch, weights, gradients and optimizer state of one member come on top of that;
        they are small, but the libraries themselves take some 300 MB.
        """
        images = sum(len(s.train_images) + len(s.test_images) for s in self.image_sets.values()) * 32 * 32 * 3
        return images + self._training_bytes() + 300_000_000

    def _training_bytes(self) -> int:
        """Of the weights and optimizer state of members in training, in memory and as checkpoints."""
        a_pack = {
            name: Layout(pack.architecture).size * self.rows(pack)
            for name, pack in {pack.architecture.name: pack for pack in self.plan.packs}.items()
        }
        largest = nlargest(self.workers, (a_pack[pack.architecture.name] for pack in self.plan.packs))
        return (self._held + SPARE_VECTORS) * sum(largest) * 4

    def rows(self, pack: PackPlan) -> int:
        """How many of a pack's members train side by side, with room for their snapshots in the host's memory."""
        wanted = self.wanted_rows(pack)
        free = available_bytes() // self.workers
        return min(wanted, rows_in_memory(Layout(pack.architecture).size, self._held, bytes_free=free))

    def useful_share(self) -> float:
        """How much of what packs execute trains a member: at their end some rows have none left.

        Members count with all their epochs, so where they stop early it is another.
        """
        executed = sum(pack.executed_images(self.rows(pack)) for pack in self.plan.packs)
        return self.plan.total("training_images") / executed if executed else 1.0

    def wanted_rows(self, pack: PackPlan) -> int:
        """How many of a pack's members would train side by side if the host's memory had no end."""
        sharing = min(Threads().workers(self), len(self.plan.packs))
        rows = self.options.rows or self.backend.rows(pack.architecture, pack.members, sharing)
        return min(rows, len(pack.members))

    @property
    def _held(self) -> int:
        settings = self.context.settings
        return held_snapshots(settings.snapshots, may_stop=settings.early_stopping)

    def progress(self) -> Progress:
        """How far the run has come; may be called from any thread."""
        work, accuracies = self._work, tuple(self._accuracies)
        preparing = self.backend.preparing
        return Progress(
            members=self._earlier + len(accuracies),
            total=len(self.members),
            training_images=work.training_images,
            flops=work.flops,
            planned_flops=self.plan.total("flops") - work.earlier_flops,
            seconds=time.perf_counter() - self._training_began if self._training_began else 0.0,
            accuracies=accuracies,
            counts=dict(self._counts),
            preparing=self._preparing if preparing is None else preparing,
        )

    def look(self) -> int:
        """Find out what ``execute`` would meet in the folder, and plan for what is missing; nothing is written.

        Returns:
            How many members are stored there.

        Raises:
            UsageError: as ``execute``.
            WseError: ``zoo.json`` is damaged, the journal cannot be read, or the folder cannot be written into.
        """
        folder, stored = self.options.folder, frozenset[int]()
        check_unlocked(folder)
        if self.options.resume:
            stored = check_resumable(folder, self.manifest, self._shards)
            self.taken_back = max(read_manifest(folder).models - self.manifest.models, 0)
        elif self.options.overwrite:
            check_removable(folder)
        else:
            check_free(folder)
        with saving(folder):
            check_writable(folder)
        self.plan = self.plan_of([member.id for member in self.members if member.id not in stored])
        return len(stored)

    def check_resources(self) -> None:
        """Compare the plan with what there is of the system's open files, memory and disk.

        Raises:
            WseError: something does not suffice.
        """
        check_limits(workers=self.workers, needed_bytes=self._training_bytes(), free_bytes=available_bytes())
        wanted = self.options.folder.absolute()
        folder = next(path for path in (wanted, *wanted.parents) if path.exists())  # it may be a disk of its own
        free = shutil.disk_usage(folder).free
        records = _RECORD_BYTES * (self.plan.total("members") + self.plan.total("snapshots"))
        weights = self.plan.total("bytes") + self._shard_bytes
        needed = weights + records + self._training_bytes() + _DISK_RESERVE_BYTES
        if needed > free:
            fewer = "--models, fewer snapshots (--set snapshots=5), --dtype bfloat16, or another --out"
            advice = "--models" if self.options.resume else fewer  # the rest is settled
            raise WseError(
                f"what is to be trained needs {bytes_text(needed)}, but {folder} has {bytes_text(free)} free: "
                f"make room, or take fewer {advice}"
            )

    def execute(self) -> bool:
        """Train what is missing and complete the zoo.

        Returns:
            True when the zoo is complete; False when ``stop`` was called before: what has ended is stored, what
            was in training is checkpointed, and the same run with ``resume`` goes on from there.

        Raises:
            UsageError: the folder is taken, or holds a run that differs from this one or is still going on.
            WseError: a file cannot be written, or the disk is too small.
        """
        started, started_at = time.perf_counter(), datetime.now(UTC)
        self.look()
        self.check_resources()  # before a folder is made, or a zoo is to have more members
        with closing(self._open_writer()) as writer:
            stored = writer.finished
            self._earlier = len(stored)
            missing = [member.id for member in self.members if member.id not in stored]
            self.plan = self.plan_of(missing)
            earlier = sittings(self.options.folder)
            log = Log(self.options.folder)
            log.write(
                "start",
                models=len(self.members),
                finished=self._earlier,
                workers=self.workers,
                backend=self.backend.name,
                training_images=self.plan.total("training_images"),
                flops=self.plan.total("flops"),
                estimated_seconds=self.estimated_seconds,
            )
            for note in writer.notes:
                log.write("note", text=note)
            told = logged_facts(self.options.folder)
            for record in writer.records():
                if told.get(record.id) != facts_of(record):  # the run was killed between storing and telling
                    log.write_member(record)
            self._checkpoints = self.checkpoints(log)
            self._checkpoints.start(missing)
            self._seconds["opening"] = time.perf_counter() - started
            self._train(missing, writer, log)
            taken = self.seconds = self._stage_seconds(time.perf_counter() - started + self._seconds["preparing"])
            if len(writer.finished) < len(self.members):
                log.write("stop", members=len(writer.finished), seconds=taken)
                return False
            self._checkpoints.remove()
            if writer.manifest.status == "running":
                times = [at.isoformat(timespec="seconds") for at in (started_at, datetime.now(UTC))]
                log.sync()  # the members table can be made again from it
                this = Timing(started=times[0], finished=times[1], seconds=taken)
                writer.finish(Timing.of_all([*earlier, this]))
            log.write("end", members=len(writer.finished), counts=writer.manifest.counts, seconds=taken)
            return True

    def plan_of(self, members: Collection[int]) -> Plan:
        """The plan for members, by their ids."""
        wanted, per_pack = frozenset(members), self.backend.members_per_pack
        return make_plan(
            [member for member in self.members if member.id in wanted],
            self.context,
            members_per_pack=per_pack and max(per_pack, self.options.rows or 1),
            dtype=self.options.dtype,
            faithful=self.options.faithful,
        )

    def checkpoints(self, log: Listener) -> Checkpoints:
        """Where this run keeps its members in training; ``log`` is told of what is found there."""
        return Checkpoints(self.options.folder, self.manifest, seconds=self.options.checkpoint_seconds, log=log)

    def _open_writer(self) -> ZooWriter:
        folder = self.options.folder
        if self.options.resume:
            return ZooWriter.resume(folder, self.manifest, self._shards)
        if self.options.overwrite:
            remove_zoo(folder)
        return ZooWriter.create(folder, self.manifest, self._shards)

    @cached_property
    def manifest(self) -> Manifest:
        """What the zoo says of this run before it has begun."""
        return manifest_of(self.options, self.backend, self.members, self.image_sets, grown_from=self._grown_from)

    @cached_property
    def _shards(self) -> Sequence[ShardPlan]:
        if self._given_shards is not None:
            return self._given_shards
        return shard_plans(self.members, self.context.settings, self.options.dtype, grown_from=self._grown_from)

    def _train(self, missing: Collection[int], writer: ZooWriter, log: Log) -> None:
        """Members train wherever the executor has them trained; this thread alone stores them."""
        self._training_began = time.perf_counter()
        with closing(self.executor.reports(self, missing, self._checkpoints)) as reports:
            try:
                for report in reports:
                    self._take(report, writer, log)
            except KeyboardInterrupt:  # at once
                self._checkpoints.close()
                raise

    def _take(self, report: Report, writer: ZooWriter, log: Log) -> None:
        self._work += report.work
        if report.preparing is not None or report.work.training_images:  # others may wait for who prepares
            self._preparing = report.preparing
        for event, fields in report.events:
            log.write(event, **fields)
        if report.result is not None:
            self._store(report.result, writer, log)

    def _store(self, result: MemberResult, writer: ZooWriter, log: Log) -> None:
        started = time.perf_counter()
        writer.add(result)
        self._checkpoints.discard(result.id)
        log.write_member(result)
        self._accuracies.append(result.snapshots[-1].test_accuracy)
        self._counts[result.status] += 1
        self._seconds["writing"] += time.perf_counter() - started

    def _stage_seconds(self, total: float) -> dict[str, float]:
        """Seconds by stage: ``total`` is wall time; training and evaluation are summed over the workers.

        ``overhead`` is the share of the workers' time in which they neither trained nor evaluated.
        """
        training, evaluation = self._work.training_seconds, self._work.evaluation_seconds
        seconds = {
            **self._seconds,
            "training": training,
            "evaluation": evaluation,
            "total": total,
            "workers": float(self.workers),
            "overhead": 1 - (training + evaluation) / (total * self.workers),
        }
        return {name: round(value, 4) for name, value in seconds.items()}


def _check_classes(members: Sequence[Member], image_sets: Mapping[str, ImageSet]) -> None:
    """Refuse classes that networks have no output for."""
    architectures = {member.architecture for member in members}
    outputs = min((architecture.outputs for architecture in architectures), default=0)
    for name, images in image_sets.items():
        if images.n_classes > outputs:
            raise UsageError(
                f"image set {name!r} has {images.n_classes} classes, and these networks tell {outputs} apart at "
                "most: leave classes out, or take another family"
            )


def _largest_shard(plan: Plan) -> int:
    """Bytes of the largest shard; while it is written, the pieces of its members are there too."""
    largest_member = max((part.bytes // part.members for part in plan.architectures), default=0)
    return min(plan.total("bytes"), max(TARGET_BYTES, largest_member))
