"""What is trained in a benchmark: members of a preset, and the images they train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from ..data import ImageSet, known_names, load
from ..errors import UsageError
from ..nets import FAMILIES, Architecture, Layout, initial_weights, training_flops
from ..space import PRESETS, Member, Space
from ..train import Context, Split
from ..train.backend import Weights

Precision = Literal["fp32", "tf32", "bf16"]

PACK = 16  # members where all are alike: as many as `torch.func.vmap` trains together
SAMPLE = 8  # members of a mixed workload
CHECKED_STEPS = 2
_CHECKED_RATE = 0.01  # times the learning rate
_ROUGH_RATE = 1e-4
_CALM_RATE = 1e-6
CHECKED_MEMBERS = 2  # of members that are alike; of a mixed workload all are checked

# Optimizers follow torch.optim, so that both sides do the same arithmetic. Initial weights leave no two units
# alike: a tie between pixels would make max-pooling's gradient a matter of taste.
_COMMON = {"optimizer_form": "torch", "initialization": "glorot_uniform", "epochs": 10**6, "l2": 0.0}
_ALIKE = {"optimizer": "adam", "activation": "relu", "learning_rate": 0.001, "train_fraction": 1.0}
# Epochs are long enough that what it takes to begin one does not count, as on real image sets.
_KEYS: Mapping[str, Mapping[str, Any]] = {
    "nws-main": {**_COMMON, "augmentation": False, "images_per_epoch": 512},
    "nws-fixed": {**_COMMON, **_ALIKE, "augmentation": False, "images_per_epoch": 1024},
    "small-cnn": {**_COMMON, **_ALIKE, "dropout": 0.35, "images_per_epoch": 8192},
}
# Those of packs, whose members all end theirs together.
_PACK_EPOCHS = {"nws-main": 4096, "nws-fixed": 8192, "small-cnn": 8192}
# The first seed whose eight members of nws-main have every optimizer, activation, batch size and filter size and
# cost about what the preset's members cost on average (25.5 MFLOP an image against 28.6).
_SEED = 8


@dataclass(frozen=True, kw_only=True)
class WorkloadSpec:
    """The name of a workload, small enough to be sent to another process.

    Attributes:
        preset: the space.
        batch_size: images a step; None: each member's own.
        datasets: names of image sets.
        data_dir: where image sets are looked for first.
        overrides: keys of the space that win over the preset.
        members: that are trained side by side where all are alike, at most.

    Raises:
        UsageError: an unknown preset, or a batch size where members have their own.
    """

    preset: str
    batch_size: int | None = None
    datasets: tuple[str, ...] = ("digits",)
    data_dir: Path | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    members: int = PACK

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"unknown preset {self.preset!r}: use {', '.join(PRESETS)} or all")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"`batch` (={self.batch_size}) must be at least 1")
        if self.is_mixed != (self.batch_size is None):
            raise UsageError(
                "`batch` is for members that are alike: those of nws-main have batch sizes of their own"
            )
        known = known_names(self.data_dir)
        for name in self.datasets:
            if name not in known:
                raise UsageError(f"--datasets: {name!r} is not an image set; use {', '.join(known)}")

    @property
    def is_mixed(self) -> bool:
        """Whether members differ."""
        return self.preset == "nws-main"

    @property
    def name(self) -> str:
        """For instance ``nws-fixed-64``."""
        return self.preset if self.batch_size is None else f"{self.preset}-{self.batch_size}"


def specs_for(
    preset: str,
    *,
    batch_size: int | None = None,
    datasets: Sequence[str] = ("digits",),
    data_dir: Path | None = None,
    overrides: Sequence[tuple[str, Any]] = (),
    members: int = PACK,
) -> tuple[WorkloadSpec, ...]:
    """The workloads of a preset, or with ``all`` those of every preset.

    Without a batch size nws-fixed has one of 64, small-cnn one of 64 and one of 512. Other arguments are those of
    ``WorkloadSpec``.

    Raises:
        UsageError: as for ``WorkloadSpec``.
    """
    if preset == "all":
        sizes = [("nws-fixed", 64), ("nws-main", None), ("small-cnn", 64), ("small-cnn", 512)]
    elif batch_size is not None:
        sizes = [(preset, batch_size)]
    else:
        sizes = [(preset, size) for size in {"nws-main": (None,), "small-cnn": (64, 512)}.get(preset, (64,))]
    if preset == "all" and batch_size is not None:
        raise UsageError("`batch` is for one preset: name it, for instance --preset nws-fixed")
    return tuple(
        WorkloadSpec(
            preset=name,
            batch_size=size,
            datasets=tuple(datasets),
            data_dir=data_dir,
            overrides=tuple(overrides),
            members=members,
        )
        for name, size in sizes
    )


class Workload:
    """Members in training, with everything a contender needs; the same in every process.

    Args:
        spec: which workload.

    Attributes:
        members: all of one set-up, or a sample of a population; they train on equally many images.
        context: settings and image sets.
        checking: the same for comparing results, with noise in place of the images: in real ones many pixels are
            equal or nearly so, and rounding would choose between them wherever a network pools.

    Raises:
        UsageError: an image set is not here, or too small for two batches.
    """

    def __init__(self, spec: WorkloadSpec) -> None:
        self.spec = spec
        keys = {**_KEYS[spec.preset], "dataset": list(spec.datasets), **dict(spec.overrides)}
        if spec.batch_size is not None:
            keys["batch_size"] = spec.batch_size
        space = self._space = Space.load(preset=spec.preset, overrides=keys)
        sampled = space.members(_SEED, range(SAMPLE if spec.is_mixed else spec.members))
        splits = {
            name: Split.make(load(name, data_dir=spec.data_dir), seed=_SEED, settings=space.settings)
            for name in {member.setup.dataset for member in sampled}
        }
        self.context = Context(
            settings=space.settings,
            splits=splits,
            should_stop=lambda: False,
            choices=space.all_choices,
        )
        noise = {name: _noise_like(split) for name, split in splits.items()}
        self.checking = dataclasses.replace(self.context, splits=noise)
        self._pack_epoch = dict(spec.overrides).get("images_per_epoch", _PACK_EPOCHS[spec.preset])
        self.members = [self._with_whole_batches(member) for member in sampled]
        if spec.is_mixed:
            self.members = [_with(m, augmentation=index % 2 == 1) for index, m in enumerate(self.members)]

    @property
    def architectures(self) -> list[Architecture]:
        """Those that occur."""
        return list(dict.fromkeys(member.architecture for member in self.members))

    @property
    def flops(self) -> float:
        """Useful FLOPs of training on one image, the mean of the members."""
        return sum(training_flops(member.architecture) for member in self.members) / len(self.members)

    def checked(self, precision: Precision = "fp32") -> list[Member]:
        """The members whose results are compared, with an epoch of two small steps.

        Small, because Adam and RMSProp begin with steps of the learning rate whatever the gradient: at the usual
        rates the second step would start from weights so far away that it shows chaos, not mistakes. With products
        of fewer bits the signs of the first step are chaos too, so all step along the gradient there.
        """
        chosen = self.members if self.spec.is_mixed else self.members[:CHECKED_MEMBERS]
        return [_checked(member, precision) for member in chosen]

    @cached_property
    def repeated(self) -> Context:
        """The context with training images repeated so often that there are enough for an epoch of a pack.

        What the host does when the epochs of thousands of members end together would count far too much in epochs
        of a few steps.
        """
        splits, settings = self.context.splits, self.context.settings
        shortest = min(splits[m.setup.dataset].epoch_size(m, limit=None) for m in self.members)
        times = -(-self._pack_epoch // shortest)
        repeated = {
            name: Split.make(_repeated(split.images, times), seed=_SEED, settings=settings)
            for name, split in splits.items()
        }
        return dataclasses.replace(self.context, splits=repeated)

    def packs(self, members: int) -> list[list[Member]]:
        """So many members to be trained side by side: one pack, or for each member of a mixed workload one.

        Those of a mixed workload have the architecture of their pack's first, all else is drawn for each but the
        learning rate. Packs are trained for a long time, and one member that diverges ends steps for all. Epochs
        are those of ``repeated``.
        """
        return [
            [
                self._with_whole_batches(_with(member, images_per_epoch=self._pack_epoch), self.repeated)
                for member in pack
            ]
            for pack in self._packs(members)
        ]

    def _packs(self, members: int) -> list[list[Member]]:
        if not self.spec.is_mixed:
            return [[_with(member, learning_rate=_CALM_RATE) for member in self.members[:members]]]
        properties, rows = FAMILIES[self._space.settings.family].properties, max(members // SAMPLE, 1)
        others = iter(self._space.members(_SEED, range(SAMPLE, SAMPLE * rows)))
        packs = []
        for first in self.members:
            same = {name: getattr(first.setup, name) for name in properties}
            pack = [_with(first, learning_rate=_CALM_RATE)]
            for row in range(1, rows):
                other = _with(next(others), **same, augmentation=row % 2 == 1, learning_rate=_CALM_RATE)
                pack.append(dataclasses.replace(other, architecture=first.architecture))
            packs.append(pack)
        return packs

    def share(self, lane: int, lanes: int) -> Sequence[Member]:
        """The members that one of several trains: every ``lanes``-th, or where all are alike a single one."""
        return self.members[lane::lanes] if self.spec.is_mixed else self.members[lane % PACK : lane % PACK + 1]

    def initial_weights(self, member: Member) -> Weights:
        """Where the member starts, float32 [D]."""
        setup, settings = member.setup, self.context.settings
        return initial_weights(
            Layout(member.architecture),
            setup.initialization,
            seed=member.seed,
            member=member.id,
            gamma_std=settings.gamma_std,
        )

    def _with_whole_batches(self, member: Member, context: Context | None = None) -> Member:
        """The member with an epoch of whole batches, as long as its image set and the workload allow."""
        setup, splits = member.setup, (context or self.context).splits
        size = splits[setup.dataset].epoch_size(member, limit=setup.images_per_epoch)
        if size < CHECKED_STEPS * setup.batch_size:
            raise UsageError(
                f"a batch of {setup.batch_size} is too large for {setup.dataset}: an epoch must have "
                f"{CHECKED_STEPS} batches, and it has {size} images"
            )
        return _with(member, images_per_epoch=size - size % setup.batch_size)


def _checked(member: Member, precision: Precision) -> Member:
    setup = member.setup
    member = _with(member, images_per_epoch=CHECKED_STEPS * setup.batch_size)
    if precision == "fp32":
        return _with(member, learning_rate=setup.learning_rate * _CHECKED_RATE)
    return _with(member, optimizer="momentum", learning_rate=_ROUGH_RATE)


def simplified(member: Member) -> Member:
    """The member without what differs by design between frameworks: random dropout and augmentation."""
    return _with(member, dropout=0.0, augmentation=False)


def _noise_like(split: Split) -> Split:
    """The split with noise for training images."""
    images = np.random.default_rng(_SEED).integers(0, 256, split.images.train_images.shape, dtype=np.uint8)
    return dataclasses.replace(split, images=dataclasses.replace(split.images, train_images=images))


def _repeated(images: ImageSet, times: int) -> ImageSet:
    """The image set with each training image so often."""
    return dataclasses.replace(
        images,
        train_images=np.tile(images.train_images, (times, 1, 1, 1)),
        train_labels=np.tile(images.train_labels, times),
    )


def _with(member: Member, **changes: Any) -> Member:
    return dataclasses.replace(member, setup=msgspec.structs.replace(member.setup, **changes))
