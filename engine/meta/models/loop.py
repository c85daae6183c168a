"""The training loop that all deep models share.

Adam; the best weights on the validation items are kept; training stops after its epochs, when the validation stops
improving, or when its time is up.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import WseError
from .pace import MEASURED, Pace
from .source import Indices, Source

Progress = Callable[[float, str], None]
Stop = Literal["epochs", "patience", "budget", "diverged"]

# Seconds between two calls of a progress callback.
REPORT_EVERY = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a net is trained.

    Attributes:
        batch_size: items of a batch, at most: the batches of an epoch are made equally large.
        learning_rate: of Adam; the highest of the schedule.
        weight_decay: decoupled from the gradient (AdamW).
        patience: validations without an improvement that end training.
        device: as PyTorch names it.
        seed: of the order of the items and of what the net draws.
        progress: called now and then with (share done, a few words).
    """

    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    device: str
    seed: int
    progress: Progress | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Items and their answers [N]: class codes int64, or numbers float32."""

    source: Source
    targets: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def thinned(self, count: int) -> Data:
        """So many of the items, evenly spread from the first to the last; all, if there are no more.

        Steps are of several sizes: with steps of as many items as members have, only one snapshot would be seen.
        """
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).astype(int)
        return Data(source=self.source.only(chosen), targets=self.targets[chosen])


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came of a training.

    Attributes:
        validation: the validation items that were used; None: there were none.
        outputs: of the best weights for them [N, outputs].
        epochs: passes over the training items, the last one maybe in part.
        items: items seen.
        stopped: by what.
        note: all of that, and the time it took, in words.
    """

    validation: Data | None
    outputs: Tensor | None
    epochs: float
    items: int
    stopped: Stop
    note: str


def run(net: nn.Module, data: Source, device: str, batch_size: int) -> Tensor:
    """The outputs of a net in evaluation mode for every item: [N, outputs] float32, in CPU memory."""
    net.eval()
    batches = np.array_split(np.arange(len(data)), math.ceil(len(data) / batch_size))
    with torch.inference_mode():
        return torch.cat([net(_take(data, batch, device)).float().cpu() for batch in batches])


def _take(source: Source, indices: Indices, device: str) -> Any:
    return _put(source.inputs(indices), device)


def _put(inputs: Any, device: str) -> Any:
    """Inputs on a device; a `ValueError` for what is not finite, in scikit-learn's words."""
    if isinstance(inputs, Tensor):
        if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
            raise ValueError("Input X contains NaN or infinity: leave out what diverged")
        return inputs.to(device)
    if isinstance(inputs, dict):
        return {name: _put(value, device) for name, value in inputs.items()}
    return type(inputs)(_put(value, device) for value in inputs)


class DivergedError(WseError):
    """A training had no finite loss from the first batch on: nothing was learned."""


class Loop:
    """One training.

    Args:
        net: to be trained, in place; it ends with its best weights.
        train: to learn from.
        validation: to choose the best weights by; None: the last are taken.
        loss: (outputs [B, outputs], targets [B]) -> mean loss.
        judge: (outputs, targets) -> how bad a net is on the validation items.
        recipe: how.
        pace: keeps the time; it has been running since before the net was made.
    """

    def __init__(
        self,
        net: nn.Module,
        train: Data,
        validation: Data | None,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        judge: Callable[[Tensor, Tensor], float],
        recipe: Recipe,
        pace: Pace,
    ) -> None:
        self._net = net.to(recipe.device)
        self._train, self._validation = train, validation
        self._loss, self._judge = loss, judge
        self._recipe, self._pace = recipe, pace
        self._optimizer = torch.optim.AdamW(
            net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self._best = math.inf
        self._best_state: dict[str, Any] | None = None
        self._best_outputs: Tensor | None = None
        self._since_best = 0
        self._items = 0
        self._reported = -math.inf

    def run(self) -> Trained:
        """Train until something ends it."""
        stopped = self._batches()
        if self._best_state is not None:
            self._net.load_state_dict(self._best_state)
        elif stopped == "diverged":
            raise DivergedError(
                "training of a meta-classifier diverged at once: its loss is not finite for these values"
            )
        pace = self._pace
        epochs, seconds = self._items / len(self._train), pace.elapsed
        note = (
            f"{epochs:.3g} of {pace.epochs} epochs, {self._items:,} items, {seconds:.0f} s: stopped by {stopped}"
        )
        if self._recipe.progress is not None:
            self._recipe.progress(1.0, note)
        return Trained(
            validation=self._validation,
            outputs=self._best_outputs,
            epochs=epochs,
            items=self._items,
            stopped=stopped,
            note=note,
        )

    def _batches(self) -> Stop:
        pace = self._pace
        for epoch, batch in self._order():
            loss = self._step(batch)
            if not math.isfinite(loss):
                return "diverged"
            pace.batch_done()
            if not pace.settled and (pace.done == min(MEASURED, pace.total) or pace.is_over):
                self._settle()
            over = pace.is_over
            if pace.settled and (over or pace.done % pace.every == 0 or pace.done == pace.total):
                self._validate()
            self._report(f"epoch {epoch}/{pace.epochs}, loss {loss:.3g}")
            if pace.done == pace.total:
                break
            if over:
                return "budget"
            if self._since_best >= self._recipe.patience:
                return "patience"
        return "epochs"

    def _order(self) -> Iterator[tuple[int, Indices]]:
        """Epochs and the items of their batches."""
        for epoch in range(1, self._pace.epochs + 1):
            self._train.source.set_epoch(epoch)
            order = np.random.default_rng([self._recipe.seed, epoch]).permutation(len(self._train))
            for batch in np.array_split(order, self._pace.batches):
                yield epoch, np.sort(batch)  # files are read in order

    def _step(self, batch: Indices) -> float:
        self._net.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * self._pace.rate()
        targets = self._train.targets[batch].to(self._recipe.device)
        loss = self._loss(self._net(_take(self._train.source, batch, self._recipe.device)), targets)
        value = loss.item()
        if math.isfinite(value):
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._items += len(batch)
        return value

    def _settle(self) -> None:
        """Set the pace by the batches so far, and by one that is only evaluated."""
        if self._validation is None:
            self._pace.settle(0.0)
            return
        answer = 0.0
        if self._pace.seconds is not None:
            probe = self._validation.thinned(self._recipe.batch_size)
            begun = time.perf_counter()
            run(self._net, probe.source, self._recipe.device, self._recipe.batch_size)
            answer = (time.perf_counter() - begun) / len(probe)
        share = self._pace.settle(answer * len(self._validation), answer)
        self._validation = self._validation.thinned(
            max(math.ceil(share * len(self._validation)), self._recipe.batch_size)
        )

    def _validate(self) -> None:
        if self._validation is None:
            return
        begun = time.perf_counter()
        outputs = run(self._net, self._validation.source, self._recipe.device, self._recipe.batch_size)
        score = self._judge(outputs, self._validation.targets) if bool(outputs.isfinite().all()) else math.inf
        if score < self._best:
            self._best, self._best_outputs, self._since_best = score, outputs, 0
            self._best_state = copy.deepcopy(self._net.state_dict())
        else:
            self._since_best += 1
        self._pace.validated(time.perf_counter() - begun)

    def _report(self, words: str) -> None:
        now = time.perf_counter()
        if self._recipe.progress is None or now - self._reported < REPORT_EVERY:
            return
        self._reported = now
        best = f", validation {self._best:.3g}" if math.isfinite(self._best) else ""
        self._recipe.progress(self._pace.share, f"{words}{best}, {_span(self._pace.left)} left")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
