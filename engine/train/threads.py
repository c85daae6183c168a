"""Threads of one process that train packs, and hand each member over as soon as it has ended."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress

from ..nets import Architecture
from ..space import Member
from ..zoo import MemberResult
from .backend import Backend, Context, DeviceMemoryError, Interrupted
from .plan import PackPlan
from .trainer import Trainer, Work

_POLL_SECONDS = 0.1

_Results = queue.Queue[MemberResult | BaseException | None]


class Threads:
    """Threads that take one pack after the other.

    Args:
        backend: what computes.
        context: what all packs share.
        workers: how many threads.
        rows: how many of a pack's members train side by side.
        faithful: also measure snapshots as the original study did.
        stop: when it is set, the threads end soon; set here when one of them fails.
        count: is given the work of every pack when that begins.
    """

    def __init__(
        self,
        backend: Backend,
        context: Context,
        *,
        workers: int,
        rows: Callable[[PackPlan], int],
        faithful: bool,
        stop: threading.Event,
        count: Callable[[Work], None],
    ) -> None:
        self._backend, self._context, self._workers = backend, context, workers
        self._rows, self._faithful, self._stop, self._count = rows, faithful, stop, count

    def results(self, packs: Sequence[PackPlan]) -> Generator[MemberResult]:
        """Train packs, begun in this order; on an error or an interrupt all threads end before it does."""
        waiting: queue.SimpleQueue[PackPlan] = queue.SimpleQueue()
        for pack in packs:
            waiting.put(pack)
        # Bounded, so that finished members cannot pile up in memory when the disk is slow.
        results: _Results = queue.Queue(maxsize=4 * self._workers)
        threads = [
            threading.Thread(target=self._work, args=(waiting, results), name=f"worker-{index}", daemon=True)
            for index in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield from _until_done(results, len(threads))
        except BaseException:
            self._stop.set()
            for thread in threads:
                while thread.is_alive():  # it may wait for room in the queue
                    with suppress(queue.Empty):
                        results.get_nowait()
                    thread.join(timeout=_POLL_SECONDS)
            raise
        # A worker says that it is done before its frames are gone. Were it still freeing tensors when Python ends,
        # PyTorch would abort the process.
        for thread in threads:
            thread.join()

    def _work(self, packs: queue.SimpleQueue[PackPlan], results: _Results) -> None:
        try:
            while not self._stop.is_set():
                pack = packs.get_nowait()
                self._train_pack(pack, self._rows(pack), results)
        except (queue.Empty, Interrupted):
            pass
        except BaseException as error:
            results.put(error)
        finally:
            results.put(None)

    def _train_pack(self, pack: PackPlan, rows: int, results: _Results) -> None:
        """Train a pack's members, fewer of them side by side if the device has too little memory for so many."""
        waiting, rows = list(pack.members), min(rows, len(pack.members))
        while True:
            try:
                for result in self._trained(pack.architecture, waiting, rows):
                    results.put(result)
                    waiting = [member for member in waiting if member.id != result.id]
                return
            except DeviceMemoryError:
                if rows == 1:
                    raise
            rows //= 2
            print(f"wse: too little memory on the device: going on with {rows:,} at a time", file=sys.stderr)

    def _trained(self, architecture: Architecture, members: Sequence[Member], rows: int) -> Iterator[MemberResult]:
        """The results of members; what they need is let go of at the end."""
        trainer = Trainer(
            self._backend, architecture, members, rows=rows, context=self._context, faithful=self._faithful
        )
        self._count(trainer.work)
        yield from trainer.results()


def _until_done(results: _Results, workers: int) -> Iterator[MemberResult]:
    """Results as they come, until every worker has said (by None) that it is done."""
    while workers:
        with suppress(queue.Empty):
            # A short wait, not an endless one, lets signal handlers run.
            result = results.get(timeout=_POLL_SECONDS)
            if result is None:
                workers -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
