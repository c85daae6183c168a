"""Which images a member trains on, is validated on and is tested on, without a stored permutation.

The official training images are divided per class into training and validation, the same way for all members
of a run (and so for each seed and image set). A member's share of the training images (``train_fraction``) and
its order in every epoch are keyed permutations of index ranges over a table sorted by class; every epoch takes
equally many images of each class, as many as the smallest class has.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from wse.kernels.philox import Stream, permute

from ..data import ImageSet
from ..space import Member, Settings

Part = Literal["training", "validation", "test"]
PARTS: tuple[Part, ...] = ("training", "validation", "test")

# The draws of an evaluation are those of an epoch from the top of their range: no training epoch has them.
EVALUATION_EPOCHS = {part: 2**32 - 1 - place for place, part in enumerate(PARTS)}

_LOOKED_AT = 128  # images at once

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """An image set, divided.

    Attributes:
        images: the image set.
        training: for each class, the indices of its training images; int64.
        validation: indices into the official training images, in random order; int64.
        test: indices into the official test images, in random order; int64.
    """

    images: ImageSet
    training: tuple[Indices, ...]
    validation: Indices
    test: Indices

    @classmethod
    def make(cls, images: ImageSet, *, seed: int, settings: Settings) -> Split:
        """Divide an image set for a run.

        Args:
            images: the image set.
            seed: the run's seed.
            settings: the share of validation images, and how many images are evaluated.
        """
        # The split belongs to no member: the member's place in the address is taken by the image set's name.
        address = zlib.crc32(images.name.encode())
        training, validation = [], []
        for label in range(images.n_classes):
            of_class = np.flatnonzero(images.train_labels == label).astype(np.int64)
            size = len(of_class)
            order = of_class[
                permute(np.arange(size), size, seed=seed, member=address, stream=Stream.SPLIT.indexed(label))
            ]
            kept_back = min(max(round(settings.validation_fraction * size), 1), size - 1)
            validation.append(order[:kept_back])
            training.append(order[kept_back:])
        joined = np.concatenate(validation)
        in_order = Stream.SPLIT.indexed(images.n_classes)
        shuffled = joined[permute(np.arange(len(joined)), len(joined), seed=seed, member=address, stream=in_order)]
        tests = len(images.test_labels)
        test = permute(np.arange(tests), tests, seed=seed, member=address, stream=in_order + (1 << 8))
        return cls(
            images=images,
            training=tuple(training),
            validation=shuffled[: settings.validation_images],
            test=test[: settings.test_images],
        )

    @cached_property
    def class_sizes(self) -> Indices:
        """How many training images each class has, int64 [classes]."""
        return np.array([len(indices) for indices in self.training], dtype=np.int64)

    @cached_property
    def table(self) -> Indices:
        """All training images, class after class: int64 indices into the official training images."""
        return np.concatenate(self.training)

    @cached_property
    def planes(self) -> Mapping[str, Images]:
        """One channel of the ``training`` and ``test`` images, uint8 [n, 32, 32, 1], of those without any colour.

        Sets of grey images are read as such three times as fast.
        """
        parts = {"training": self.images.train_images, "test": self.images.test_images}
        return {part: np.ascontiguousarray(images[..., :1]) for part, images in parts.items() if _is_grey(images)}

    def class_rows(self, member: Member) -> Indices:
        """Where each class begins in ``table``, its size, and the member's share of it; int64 [classes, 3]."""
        starts = np.cumsum(self.class_sizes) - self.class_sizes
        return np.stack([starts, self.class_sizes, self.shares(member)], axis=1)

    def epoch_size(self, member: Member, *, limit: int | None) -> int:
        """How many images an epoch of ``member`` has, at most ``limit``."""
        total = len(self.training) * int(self.shares(member).min())
        return min(total, limit) if limit is not None else total

    def epoch_indices(self, member: Member, epoch: int, *, limit: int | None) -> Indices:
        """The training images of one epoch, in order.

        Args:
            member: whose epoch.
            epoch: from 1; 0 is an order that is never trained on.
            limit: at most so many images; they stay as evenly spread over the classes as they can be.

        Returns:
            int64 [n], indices into the official training images.
        """
        classes = len(self.training)
        shares = self.shares(member)
        count = self.epoch_size(member, limit=limit)
        per_class = -(-count // classes)
        places = permute(
            np.arange(count),
            classes * per_class,
            seed=member.seed,
            member=member.id,
            stream=Stream.EPOCH_ORDER,
            epoch=epoch,
        )
        label_of, rank_of = places // per_class, places % per_class
        ranks = np.empty(count, dtype=np.int64)
        for label in range(classes):
            here = label_of == label
            ranks[here] = self._class_ranks(member, epoch, label, rank_of[here], int(shares[label]))
        starts = np.cumsum(self.class_sizes) - self.class_sizes
        images: Indices = self.table[starts[label_of] + ranks]
        return images

    def shares(self, member: Member) -> Indices:
        """How many training images of each class the member may use, int64 [classes]."""
        shares = np.round(member.setup.train_fraction * self.class_sizes).astype(np.int64)
        return np.maximum(shares, 1)

    def _class_ranks(self, member: Member, epoch: int, label: int, ranks: Indices, share: int) -> Indices:
        address = {"seed": member.seed, "member": member.id}
        ranks = permute(ranks, share, stream=Stream.EPOCH_CLASS.indexed(label), epoch=epoch, **address)
        size = int(self.class_sizes[label])
        if share == size:
            return ranks
        return permute(ranks, size, stream=Stream.TRAINING_SUBSET.indexed(label), **address)

    def evaluated(self, member: Member, part: Part, settings: Settings) -> tuple[Images, Indices]:
        """The images a part is measured on: the array they are in (uint8 [n, 32, 32, 3]), and their indices.

        Training accuracy is measured on images the member may train on, equally many of each class.
        """
        match part:
            case "training":
                return self.images.train_images, self.epoch_indices(member, 0, limit=settings.training_images)
            case "validation":
                return self.images.train_images, self.validation
            case "test":
                return self.images.test_images, self.test

    def evaluated_size(self, member: Member, part: Part, settings: Settings) -> int:
        """How many images a part is measured on."""
        if part == "training":
            return self.epoch_size(member, limit=settings.training_images)
        return len(self.validation if part == "validation" else self.test)

    def labels(self, part: Part) -> npt.NDArray[np.uint8]:
        """The labels of the array that a part's images are in."""
        return self.images.test_labels if part == "test" else self.images.train_labels


def _is_grey(images: Images) -> bool:
    """Whether all three channels are equal everywhere: whether each byte but a pixel's last equals the next."""
    bytes_of_image = images[0].size
    inside = np.tile(np.array([255, 255, 0], np.uint8), _LOOKED_AT * bytes_of_image // 3)[:-1]
    for first in range(0, len(images), _LOOKED_AT):  # few enough to stay in the cache
        flat = np.ascontiguousarray(images[first : first + _LOOKED_AT]).reshape(-1)
        if ((flat[1:] ^ flat[:-1]) & inside[: len(flat) - 1]).any():
            return False
    return True
