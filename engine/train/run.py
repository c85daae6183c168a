"""A run from a space to a zoo: prepare, plan, train on all threads, store each member as soon as it has ended."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterable
from contextlib import closing
from dataclasses import fields
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version

from ..data import ImageSet, load
from ..errors import WseError
from ..nets import Layout
from ..space import arrow_types
from ..zoo import (
    ArchitectureEntry,
    ImageSetEntry,
    Manifest,
    MemberResult,
    ShardPlan,
    Timing,
    ZooWriter,
    plan_shards,
    remove_zoo,
)
from .backend import Backend, Context
from .executor import Executor
from .log import Log
from .options import Options, Progress, backend_for
from .plan import BYTES_PER_VALUE, PackPlan, Plan, make_plan
from .schedule import held_snapshots, snapshot_count
from .split import Split
from .threads import Threads
from .trainer import Work

# Tables, metadata and one unfinished shard, over and above the weights.
_DISK_RESERVE_BYTES = 64 * 2**20


class Run:
    """A run that is prepared and planned when it is made, and trains in ``execute``.

    Args:
        options: what to make.
        backend: what computes; if none is given, the one that ``options.device`` names.

    Attributes:
        members: the population.
        image_sets: those that occur in it.
        context: settings and splits.
        plan: of the whole population; of what is missing once ``execute`` has begun.
        workers: packs trained at the same time.

    Raises:
        UsageError: an image set is not here.
        WseError: an image set is damaged.
    """

    def __init__(self, options: Options, backend: Backend | None = None) -> None:
        started = time.perf_counter()
        self.options = options
        self.backend: Backend = backend or backend_for(options.device, precision=options.precision)
        self.workers = self.backend.workers or options.threads or cores()
        self._stop = threading.Event()
        settings = options.space.settings
        self.members = options.space.members(options.seed, range(options.models))
        names = sorted({member.setup.dataset for member in self.members})
        self.image_sets: dict[str, ImageSet] = {name: load(name, data_dir=options.data_dir) for name in names}
        self.context = Context(
            settings=settings,
            splits={
                name: Split.make(images, seed=options.seed, settings=settings)
                for name, images in self.image_sets.items()
            },
            should_stop=self._stop.is_set,
        )
        self.plan = self._make_plan(finished=())
        self._earlier = 0
        self._works: list[Work] = []
        self._accuracies: list[float] = []
        self._counts: Counter[str] = Counter()
        self._training_began = 0.0
        self._seconds = {"preparing": time.perf_counter() - started, "writing": 0.0}

    def stop(self) -> None:
        """Ask the run to end soon: members that have ended are stored. May be called from a signal handler."""
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
        held = held_snapshots(self.context.settings.snapshots)
        packs = {pack.architecture.name: pack for pack in self.plan.packs}
        values = max(Layout(pack.architecture).size * self.rows(pack) for pack in packs.values())
        return images + self.workers * (held + 4) * values * 4 + 300_000_000

    def rows(self, pack: PackPlan) -> int:
        """How many of a pack's members train side by side."""
        return self.options.rows or self.backend.rows(pack.architecture, pack.members)

    def progress(self) -> Progress:
        """How far the run has come; may be called from any thread."""
        work = self.work()
        accuracies = tuple(self._accuracies)
        return Progress(
            members=self._earlier + len(accuracies),
            total=self.options.models,
            training_images=work.training_images,
            flops=work.flops,
            planned_flops=self.plan.total("flops"),
            seconds=time.perf_counter() - self._training_began if self._training_began else 0.0,
            accuracies=accuracies,
            counts=dict(self._counts),
            preparing=self.backend.preparing,
        )

    def work(self) -> Work:
        """What has been done so far, summed over the workers."""
        works = list(self._works)
        return Work(**{each.name: sum(getattr(work, each.name) for work in works) for each in fields(Work)})

    def count(self, work: Work) -> None:
        """Add work that is, or will be, done elsewhere to what ``work`` sums up."""
        self._works.append(work)

    def check_disk(self) -> None:
        """Compare the plan with the free space.

        Raises:
            WseError: the weights do not fit.
        """
        folder = next(path for path in self.options.folder.absolute().parents if path.exists())
        free = shutil.disk_usage(folder).free
        needed = self.plan.total("bytes") + _DISK_RESERVE_BYTES
        if needed > free:
            raise WseError(
                f"the zoo needs {needed / 1e9:.2f} GB but {folder} has {free / 1e9:.2f} GB free: take fewer "
                "--models, fewer snapshots (--set snapshots=5), --dtype bfloat16, or another --out"
            )

    def execute(self, executor: Executor | None = None) -> bool:
        """Train what is missing and complete the zoo.

        Args:
            executor: where members train; on threads of this process if there is none.

        Returns:
            True when the zoo is complete; False when ``stop`` was called before: what has ended is stored, and
            the same run with ``resume`` goes on from there.

        Raises:
            UsageError: the folder is taken, or holds a run that differs from this one.
            WseError: a file cannot be written, or the disk is too small.
        """
        started, started_at = time.perf_counter(), datetime.now(UTC)
        if executor is not None:
            self.workers = executor.workers(self)
        if not self.options.resume:
            self.check_disk()  # before a folder is made
        writer = self._open_writer()
        self._earlier = len(writer.finished)
        self.plan = self._make_plan(finished=writer.finished)
        if self.options.resume:
            self.check_disk()
        log = Log(self.options.folder)
        log.write(
            "start",
            models=self.options.models,
            finished=self._earlier,
            workers=self.workers,
            backend=self.backend.name,
            training_images=self.plan.total("training_images"),
            flops=self.plan.total("flops"),
        )
        for note in writer.notes:
            log.write("note", text=note)
        self._seconds["opening"] = time.perf_counter() - started
        self._train(writer, log, executor)
        seconds = self._stage_seconds(time.perf_counter() - started + self._seconds["preparing"])
        if len(writer.finished) < self.options.models:
            log.write("stop", members=len(writer.finished), seconds=seconds)
            return False
        if writer.manifest.status == "running":
            finished_at = datetime.now(UTC)
            writer.finish(
                Timing(
                    started=started_at.isoformat(timespec="seconds"),
                    finished=finished_at.isoformat(timespec="seconds"),
                    seconds=seconds,
                )
            )
        log.write("end", members=len(writer.finished), counts=writer.manifest.counts, seconds=seconds)
        return True

    def _make_plan(self, finished: Iterable[int]) -> Plan:
        return make_plan(
            self.members,
            self.context,
            finished=frozenset(finished),
            members_per_pack=self.backend.members_per_pack
            and (self.options.rows or self.backend.members_per_pack),
            dtype=self.options.dtype,
            faithful=self.options.faithful,
        )

    def _open_writer(self) -> ZooWriter:
        folder = self.options.folder
        if self.options.resume:
            return ZooWriter.resume(folder, self._manifest, self.shards)
        if self.options.overwrite:
            remove_zoo(folder)
        return ZooWriter.create(folder, self._manifest, self.shards)

    @cached_property
    def _manifest(self) -> Manifest:
        options = self.options
        return Manifest(
            wse_version=version("wse"),
            software={
                "python": platform.python_version(),
                **{name: version(name) for name in ("numpy", "safetensors", "torch")},
            },
            seed=options.seed,
            models=options.models,
            space=options.space.to_config(),
            labels="faithful" if options.faithful else "eval",
            backend=self.backend.name,
            precision=self.backend.precision,
            dtype=options.dtype,
            image_sets={
                name: ImageSetEntry(
                    sha256=images.sha256,
                    train=len(images.train_labels),
                    test=len(images.test_labels),
                    classes=images.n_classes,
                )
                for name, images in self.image_sets.items()
            },
            architectures={
                architecture.name: ArchitectureEntry.of(Layout(architecture))
                for architecture in dict.fromkeys(member.architecture for member in self.members)
            },
            config_types=arrow_types(),
        )

    @cached_property
    def shards(self) -> list[ShardPlan]:
        """Which member goes where in the zoo."""
        most_snapshots = max(
            snapshot_count(self.context.settings.snapshots, epochs)
            for epochs in {member.setup.epochs for member in self.members}
        )
        snapshot_bytes = {
            name: entry.size * BYTES_PER_VALUE[self.options.dtype]
            for name, entry in self._manifest.architectures.items()
        }
        return plan_shards(
            ((member.id, member.architecture.name) for member in self.members),
            {name: most_snapshots * size for name, size in snapshot_bytes.items()},
        )

    def _train(self, writer: ZooWriter, log: Log, executor: Executor | None) -> None:
        """Members train wherever the executor has them trained; this thread alone stores them."""
        missing = [member.id for member in self.members if member.id not in writer.finished]
        self._training_began = time.perf_counter()
        with closing(executor.results(self, missing) if executor else self.results(missing)) as results:
            for result in results:
                self._store(result, writer, log)

    def results(self, members: Collection[int]) -> Generator[MemberResult]:
        """Train members on this process's threads; each result as soon as its member has ended.

        Args:
            members: ids.
        """
        team = Threads(
            self.backend,
            self.context,
            workers=self.workers,
            rows=self.rows,
            faithful=self.options.faithful,
            stop=self._stop,
            count=self.count,
        )
        wanted = set(members)
        plan = self._make_plan(finished=(member.id for member in self.members if member.id not in wanted))
        return team.results(plan.packs)

    def _store(self, result: MemberResult, writer: ZooWriter, log: Log) -> None:
        started = time.perf_counter()
        writer.add(result)
        last = result.snapshots[-1]
        log.write(
            "member",
            id=result.id,
            architecture=result.architecture,
            status=result.status,
            epochs=result.epochs,
            test_accuracy=last.test_accuracy,
            seconds=result.seconds,
        )
        self._accuracies.append(last.test_accuracy)
        self._counts[result.status] += 1
        self._seconds["writing"] += time.perf_counter() - started

    def _stage_seconds(self, total: float) -> dict[str, float]:
        """Seconds by stage: ``total`` is wall time; training and evaluation are summed over the workers.

        ``overhead`` is the share of the workers' time in which they neither trained nor evaluated.
        """
        work = self.work()
        training, evaluation = work.training_seconds, work.evaluation_seconds
        seconds = {
            **self._seconds,
            "training": training,
            "evaluation": evaluation,
            "total": total,
            "workers": float(self.workers),
            "overhead": 1 - (training + evaluation) / (total * self.workers),
        }
        return {name: round(value, 4) for name, value in seconds.items()}


def cores() -> int:
    """The processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        return os.cpu_count() or 1
