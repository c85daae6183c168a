"""What a study is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from ..zoo import Condition
from .models import MODELS, ModelSpec
from .reading import NORMALIZING, SliceSpec
from .targets import Kind

# Fitted where no model is named: cheap ones, and one that reads weights in their order.
DEFAULT_MODELS = ("majority", "setup", "statistics-linear", "statistics-svm", "statistics-boost", "light-cnn")
EVERY = "all"
# What reads every layer by itself, and maps: fast, and better than most.
CHEAP_MODEL = "statistics-boost"


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What to read from which weights, by which models, and how to judge it.

    Attributes:
        zoo: folder of the zoo.
        unfinished: whether the zoo may be unfinished, and then has the members that have ended so far.
        what: which values are read.
        targets: names of columns; empty: every property that varies, and the outcomes.
        models: names; empty: ``DEFAULT_MODELS``; ``("all",)``: every model. One that is named must be able to read
            these networks, others are left out with a note.
        snapshots: which snapshots are read, as text: see ``named_snapshots``.
        test_snapshots: other ones to test on; None: the same.
        where: only members for which all of these hold.
        holdout: whom to test on; None: members drawn at random.
        seeds: how many splits, each with models of its own.
        deep_seeds: of these, how many also for models that are trained by gradient descent.
        seed: the first seed; the others follow it.
        kinds: target -> classification or regression, where it is not to follow from the column.
        logs: targets that are predicted as logarithms.
        statistics: whether moving averages of batch normalisation are read.
        normalize: how values are normalised: see ``SliceDataset``.
        layers: also read each layer by itself.
        maps: also draw where a property shows, and when.
        permuted: also test on networks whose neurons are permuted.
        test_length: also test on slices of another length; None: not.
        shuffled: give members each other's answers: whatever is read then is chance, or a leak.
        budget_seconds: what the whole study may take; None: no limit.
        device: that deep models run on.
        processes: models that are fitted side by side; None: as many as there are cores, and one with a GPU.

    Raises:
        UsageError: a model does not exist, or a number is too small.
    """

    zoo: Path
    what: SliceSpec
    targets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    snapshots: str = "last"
    test_snapshots: str | None = None
    where: tuple[Condition, ...] = ()
    holdout: Condition | None = None
    seeds: int = 3
    deep_seeds: int = 1
    seed: int = 0
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    logs: frozenset[str] = frozenset()
    statistics: bool = False
    normalize: str = "none"
    layers: bool = False
    maps: bool = False
    permuted: bool = False
    test_length: int | None = None
    shuffled: bool = False
    budget_seconds: float | None = None
    device: str = "cpu"
    processes: int | None = None
    unfinished: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.models) - MODELS.keys() - {EVERY})
        if unknown:
            raise UsageError(f"no model {unknown[0]!r}: choose from {', '.join(MODELS)}, or all")
        if self.normalize not in NORMALIZING:
            raise UsageError(f"--normalize {self.normalize}: use {', '.join(NORMALIZING)}")
        if self.test_length is not None and self.what.length is None:
            raise UsageError("--test-length needs slices to be trained on: give --slice a length, as all:5000")
        if self.maps and self.what.length is None:
            raise UsageError("--maps needs slices at several places: give --slice a length, as all:5000")
        if self.maps and not self.mapped():
            slicers = [name for name, spec in MODELS.items() if spec.reads == "slices"]
            raise UsageError(f"--maps needs a model that can be mapped: {', '.join([CHEAP_MODEL, *slicers])}")
        for name in ("seeds", "deep_seeds", "processes", "test_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"`{name}` (={getattr(self, name)}) must be at least 1")
        last = 2**32 - self.seeds
        if not 0 <= self.seed <= last:
            raise UsageError(f"`seed` (={self.seed}) must be from 0 to {last}")

    def specs(self) -> list[ModelSpec]:
        """The models to fit, cheap ones first."""
        names = tuple(MODELS) if EVERY in self.models else self.models or DEFAULT_MODELS
        specs = [MODELS[name] for name in MODELS if name in names]
        return sorted(specs, key=lambda spec: spec.deep)

    def mapped(self) -> list[ModelSpec]:
        """Those of the models that are asked where and when."""
        return [spec for spec in self.specs() if spec.reads == "slices" or spec.name == CHEAP_MODEL]

    @property
    def name(self) -> str:
        """A name for a folder: what is read, and what sets the study apart from a plain one."""
        parts = [str(self.what).replace(":", "-")]
        if self.snapshots != "last":
            parts.append(f"snapshots-{self.snapshots}".replace(":", "to").replace(",", "-"))
        if self.test_snapshots is not None:
            parts.append(f"tested-{self.test_snapshots}".replace(":", "to").replace(",", "-"))
        if self.normalize != "none":
            parts.append(self.normalize)
        parts += [_slug(condition) for condition in self.where]
        if self.holdout is not None:
            parts.append("without-" + _slug(self.holdout))
        return "_".join([*parts, *(["shuffled"] if self.shuffled else [])])


def _slug(condition: Condition) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(condition))


def pick_device(name: str) -> str:
    """``auto``: a GPU if PyTorch sees one, else the processor.

    Raises:
        UsageError: the name is unknown, or there is no GPU.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name}: use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no NVIDIA GPU; use --device cpu")
    return "cuda" if torch.cuda.is_available() and name != "cpu" else "cpu"
