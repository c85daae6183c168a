"""What the kernels of the CUDA backend read on the device besides weights and values: tables, and the image sets.

Hyper-parameters and counters are columns of tables that are read at run time, so one set of launches serves all
members of an architecture, and a captured graph stays valid when other members move in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wse.kernels.activation import ACTIVATION_CODES
from wse.kernels.optim.triton import (
    CONSTANT_COLUMNS,
    KIND_CODES,
    STEP_COLUMNS,
    constant_columns,
    step_columns,
)
from wse.kernels.philox import drop_level, keep_probability
from wse.kernels.philox.triton import ADDRESS_COLUMNS
from wse.kernels.transfer import write

from ..space import Member, Settings
from .cuda_layout import INPUT_CHANNELS
from .row import Row
from .split import Part, Split

Device = torch.device | str


class ResidentImages:
    """All image sets of a run on the device, one after the other.

    Args:
        splits: image set name -> its split.
        device: where.

    Attributes:
        images: uint8 [n, 32, 32, 4], of each set the training images and then the test images; the last channel
            is none.
        labels: uint8 [n].
        table: int32, the sets' training images class after class, as indices into ``images``.
        classes: of the set that has the most.
    """

    def __init__(self, splits: Mapping[str, Split], device: Device) -> None:
        self._first: dict[tuple[str, bool], int] = {}
        self._first_row: dict[str, int] = {}
        labels, tables, end, rows = [], [], 0, 0
        whole = [
            part for split in splits.values() for part in (split.images.train_images, split.images.test_images)
        ]
        self.images = torch.zeros(
            sum(map(len, whole)), *whole[0].shape[1:3], INPUT_CHANNELS, dtype=torch.uint8, device=device
        )
        for name, split in splits.items():
            source = split.images
            self._first_row[name] = rows
            tables.append(split.table + end)
            rows += len(split.table)
            for is_test, part in ((False, source.train_images), (True, source.test_images)):
                self._first[name, is_test] = end
                self.images[end : end + len(part), ..., :3] = torch.from_numpy(np.array(part)).to(device)
                labels.append(source.test_labels if is_test else source.train_labels)
                end += len(part)
        self.labels = torch.from_numpy(np.concatenate(labels)).to(device)
        self.table = torch.from_numpy(np.concatenate(tables).astype(np.int32)).to(device)
        self.classes = most_classes(splits)

    def first(self, name: str, part: Part) -> int:
        """Where the array that a part's images are in begins."""
        return self._first[name, part == "test"]

    def first_row(self, name: str) -> int:
        """Where an image set begins in ``table``."""
        return self._first_row[name]


def most_classes(splits: Mapping[str, Split]) -> int:
    """Of the image set that has the most."""
    return max(len(split.training) for split in splits.values())


@dataclass(kw_only=True)
class CudaRow(Row):
    """A member in training, with what the device needs to know of its images.

    Attributes:
        order: number of classes, and images of each that an epoch takes at most.
        classes: see ``Split.class_rows``, with rows of the resident table.
    """

    order: tuple[int, int]
    classes: npt.NDArray[np.int64]

    @classmethod
    def resident(cls, member: Member, split: Split, resident: ResidentImages) -> CudaRow:
        """A member at the start of its training."""
        images = split.epoch_size(member, limit=member.setup.images_per_epoch)
        classes = split.class_rows(member)
        return cls.of(
            member,
            split,
            order=(len(classes), -(-images // len(classes))),
            classes=classes + np.array([resident.first_row(member.setup.dataset), 0, 0]),
        )


class StepsAhead:
    """What the next steps of P members need: where each is, its rates and their corrections. On the host.

    Members go on into their next epoch, but end no more than one. Where one ends an epoch, the last step is one at
    which one does.

    Args:
        rows: the members; None for an empty row.
        settings: of the space.
        most: how many steps, at most.

    Attributes:
        addresses: of each step, int64 [steps, P, columns].
        columns: float32 [steps, P, columns].
        left: steps that each row's epoch has left before these; 0 for an empty row, int64 [P].
        ended: rows that end an epoch, in this order, int64.
    """

    def __init__(self, rows: Sequence[Row | None], settings: Settings, most: int) -> None:
        there = [row for row in rows if row is not None]
        places = [place for place, row in enumerate(rows) if row is not None]
        setups = [row.member.setup for row in there]
        steps, done, epochs, batches, before = np.array(
            [(row.steps, row.done, row.epoch, row.batch, row.steps_before) for row in there]
        ).T
        self.left = np.zeros(len(rows), dtype=np.int64)
        self.left[places] = steps - done
        limit = min(most, int((2 * steps - done).min()) - 1)
        in_order = np.argsort(self.left, kind="stable")
        self.ended = in_order[(self.left[in_order] > 0) & (self.left[in_order] <= limit)]
        count = int(self.left[self.ended[-1]]) if len(self.ended) else limit
        ahead = done + np.arange(count)[:, None]
        is_next = ahead >= steps
        self.addresses = np.zeros((count, len(rows), ADDRESS_COLUMNS), dtype=np.int64)
        self.addresses[:, places, :2] = [address(row.member) for row in there]
        self.addresses[:, places, 2] = epochs + is_next
        self.addresses[:, places, 3] = (ahead - is_next * steps) * batches
        self.columns = np.zeros((count, len(rows), STEP_COLUMNS), dtype=np.float32)
        self.columns[:, places] = step_columns(
            [setup.optimizer for setup in setups],
            settings.optimizer_form,
            rates=np.stack([row.rates(count) for row in there], axis=1),
            first_counts=before + 1,
            weight_decays=np.array([setup.weight_decay for setup in setups]),
        )

    def __len__(self) -> int:
        return len(self.columns)

    def ends(self) -> Iterator[tuple[int, slice]]:
        """After how many of the steps which of the rows that end an epoch do so."""
        steps, firsts = np.unique(self.left[self.ended], return_index=True)
        for step, (first, stop) in zip(steps.tolist(), pairwise([*firsts.tolist(), len(self.ended)]), strict=True):
            yield step, slice(first, stop)


class Tables:
    """The columns of P members, and of the next S steps.

    Args:
        rows: P.
        classes: of the image set that has the most.
        steps: S.
        device: where.
    """

    def __init__(self, rows: int, classes: int, steps: int, device: Device) -> None:
        def integers(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        self._ahead = torch.zeros(steps, rows, ADDRESS_COLUMNS, dtype=torch.int64, device=device)
        self._now = torch.zeros_like(self._ahead[:1])
        self.addresses = self._now[0]
        self.live, self.kinds, self.codes = integers(rows), integers(rows), integers(rows)
        self.levels, self.augments, self.orders = integers(rows), integers(rows), integers(rows, 2)
        self.classes = integers(rows, classes, 3)
        self.scales = torch.zeros(rows, device=device)
        self.constants = torch.zeros(rows, CONSTANT_COLUMNS, device=device)
        self.steps = torch.zeros(steps, rows, STEP_COLUMNS, device=device)
        self.means = torch.zeros(steps, rows, device=device)
        self.ended = torch.zeros(rows, dtype=torch.int64, device=device)
        self.tick = integers(1)

    def fill(self, rows: list[CudaRow | None], settings: Settings) -> None:
        """Write all columns of members, and those of an empty row so that nothing happens to it."""
        first = next(row for row in rows if row is not None)
        setups = [(row or first).member.setup for row in rows]
        rates = [setup.dropout for setup in setups]
        write(self.live, [row is not None for row in rows])
        write(self.kinds, [KIND_CODES[setup.optimizer] for setup in setups])
        write(self.codes, [ACTIVATION_CODES[setup.activation] for setup in setups])
        write(self.levels, [drop_level(rate) for rate in rates])
        write(self.scales, [1 / keep_probability(rate) for rate in rates])
        write(self.augments, [setup.augmentation for setup in setups])
        write(self.orders, [(row or first).order for row in rows])
        form, momentum = settings.optimizer_form, settings.momentum
        constants = [constant_columns(setup.optimizer, form, momentum=momentum, l2=setup.l2) for setup in setups]
        write(self.constants, constants)
        classes = np.ones(self.classes.shape, dtype=np.int32)
        for place, row in enumerate(rows):
            if row is not None:
                classes[place, : len(row.classes)] = row.classes
        write(self.classes, classes)

    def write_steps(self, ahead: StepsAhead) -> None:
        """Write what the next steps need."""
        write(self._ahead[: len(ahead)], ahead.addresses)
        write(self.steps[: len(ahead)], ahead.columns)
        write(self.ended[: len(ahead.ended)], ahead.ended)
        self.tick.zero_()

    def begin_step(self) -> None:
        """Let ``addresses`` be those of the step that has come, on the device."""
        torch.index_select(self._ahead, 0, self.tick, out=self._now)

    def end_step(self) -> None:
        """Go on to the next step, on the device."""
        self.tick.add_(1)


def address(member: Member) -> tuple[int, int]:
    """The first two columns of the table of addresses: seed, as a signed number, and member.

    The others are the epoch, and the place in it of a batch's first image.
    """
    return member.seed - 2**64 if member.seed >= 2**63 else member.seed, member.id
