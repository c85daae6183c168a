"""Threads of this process that train packs, and hand each member over as soon as it has ended."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING

from ..machine import cores
from ..nets import Architecture
from ..space import Member
from ..zoo import MemberResult
from .backend import DeviceMemoryError, Interrupted
from .checkpoints import Checkpoints
from .executor import Report
from .plan import PackPlan
from .trainer import Trainer, Work

if TYPE_CHECKING:
    from .run import Run

_POLL_SECONDS = 0.1

_Packs = queue.SimpleQueue[PackPlan]
_Results = queue.Queue[MemberResult | BaseException | None]


class Threads:
    """The executor of a run that stays in its process."""

    def workers(self, run: Run) -> int:
        """As many threads as the options or the backend say; one for each core if they do not."""
        return run.options.threads or run.backend.workers or cores()

    def reports(self, run: Run, members: Collection[int], checkpoints: Checkpoints) -> Generator[Report]:
        """Train members; on an error or an interrupt all threads end before it is raised."""
        packs: _Packs = queue.SimpleQueue()
        plan = run.plan_of(members)
        for pack in plan.packs:
            packs.put(pack)
        yield from _while_preparing(run, {pack.architecture for pack in plan.packs})
        count = min(self.workers(run), len(plan.packs))
        # Bounded, so that finished members cannot pile up in memory when the disk is slow.
        results: _Results = queue.Queue(maxsize=4 * count)
        team = [_Worker(number, run, checkpoints, packs, results) for number in range(count)]
        for worker in team:
            worker.start()
        try:
            yield from _until_done(team, results)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):  # at once
                checkpoints.close()
            run.stop()
            for worker in team:
                while worker.is_alive():  # it may wait for room in the queue
                    with suppress(queue.Empty):
                        results.get_nowait()
                    worker.join(timeout=_POLL_SECONDS)
            raise
        # A worker says that it is done before its frames are gone. Were it still freeing tensors when Python ends,
        # PyTorch would abort the process.
        for worker in team:
            worker.join()


def _while_preparing(run: Run, architectures: Collection[Architecture]) -> Iterator[Report]:
    """Reports of nothing, so that whoever takes them can ask the run to stop."""
    with ThreadPoolExecutor(1) as pool:
        prepared = pool.submit(run.backend.prepare, architectures, run.context)
        try:
            while wait([prepared], timeout=_POLL_SECONDS).not_done:
                yield Report(work=Work())
        except BaseException:
            run.stop()
            raise
        prepared.result()


class _Worker(threading.Thread):
    """Takes one pack after the other."""

    def __init__(self, number: int, run: Run, checkpoints: Checkpoints, packs: _Packs, results: _Results) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self.work = Work()
        self._of, self._checkpoints = run, checkpoints
        self._packs, self._results = packs, results

    def run(self) -> None:
        """Train until there are no packs left, or the run is to stop; in the end say (by None) that it is done."""
        try:
            while not self._of.is_stopping:
                pack = self._packs.get_nowait()
                wanted, rows = self._of.wanted_rows(pack), self._of.rows(pack)
                if rows < wanted:
                    told = f"wse: host memory for the snapshots of {rows:,} members: training {rows:,} at a time"
                    print(f"{told}, not {wanted:,}", file=sys.stderr)
                self._train(pack, rows)
        except (queue.Empty, Interrupted):
            pass
        except BaseException as error:
            self._results.put(error)
        finally:
            self._results.put(None)

    def _train(self, pack: PackPlan, rows: int) -> None:
        """Train a pack's members, fewer of them side by side if the device has too little memory for so many."""
        waiting, rows = {member.id: member for member in pack.members}, min(rows, len(pack.members))
        while True:
            try:
                for result in self._trained(pack.architecture, list(waiting.values()), rows):
                    self._results.put(result)
                    del waiting[result.id]
                return
            except DeviceMemoryError:
                if rows == 1:
                    raise
            rows //= 2
            print(f"wse: too little memory on the device: going on with {rows:,} at a time", file=sys.stderr)

    def _trained(self, architecture: Architecture, members: Sequence[Member], rows: int) -> Iterator[MemberResult]:
        """The results of members; what they need is let go of at the end."""
        trainer = Trainer(
            self._of.backend,
            architecture,
            members,
            rows=rows,
            context=self._of.context,
            faithful=self._of.options.faithful,
            checkpoints=self._checkpoints,
            work=self.work,
        )
        yield from trainer.results()


def _until_done(team: Sequence[_Worker], results: _Results) -> Iterator[Report]:
    """Members as they come, and what has been done even while none comes, until every worker is done."""
    busy, told = len(team), Work()
    while busy:
        result = None
        with suppress(queue.Empty):
            # A short wait, not an endless one, lets signal handlers run.
            ended = results.get(timeout=_POLL_SECONDS)
            if isinstance(ended, BaseException):
                raise ended
            if ended is None:
                busy -= 1
            result = ended
        done = sum((worker.work for worker in team), Work())
        yield Report(result=result, work=done - told)
        told = done
