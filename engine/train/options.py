"""What a run is asked for, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..data import IMAGE_SET_NAMES, available, known_names
from ..errors import UsageError
from ..space import Space, parse_override
from ..zoo import Dtype, Manifest, check_local, known_dtype, read_manifest
from .backend import Backend, tell_user
from .checkpoints import CHECKPOINT_SECONDS
from .reference import ReferenceBackend

MOST_MODELS = 10_000_000  # a plan names them all
MOST_STREAMS = 32  # that PyTorch gives out before it begins again
DEVICES = ("auto", "cuda", "cpu", "reference")
PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to make and how.

    Space, seed, models, dtype and faithful say what the zoo holds, device and precision by which arithmetic it
    came about. The rest changes nothing in it.

    Attributes:
        space: what members are drawn from.
        seed: 64-bit seed.
        models: number of members; their ids are 0 to models - 1.
        folder: where the zoo goes.
        data_dir: where image sets are looked for first.
        dtype: of the stored weights.
        faithful: also measure snapshots as the original study did.
        device: which backend trains: auto, cuda, cpu or reference.
        precision: of the arithmetic, bf16 (not by the CPU backend) or fp32; None: bf16 on a GPU, fp32 elsewhere.
        threads: packs trained at the same time; None: one for each core, or as many as suit a GPU.
        rows: members that train side by side in a pack; None: what suits the backend.
        checkpoint_seconds: of work that a killed run may lose; 0: members are checkpointed after every epoch.
        resume: go on with the run in ``folder``, perhaps with more members, or fewer as long as none is stored.
        overwrite: replace a zoo in ``folder``.

    Raises:
        UsageError: a number is too small.
    """

    space: Space
    models: int
    folder: Path
    seed: int = 0
    data_dir: Path | None = None
    dtype: Dtype = "float32"
    faithful: bool = False
    device: str = "auto"
    precision: str | None = None
    threads: int | None = None
    rows: int | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("models", "threads", "rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"`{name}` (={value}) must be at least 1")
        if self.device == "cuda" and (self.threads or 0) > MOST_STREAMS:
            raise UsageError(f"`threads` (={self.threads}) must be at most {MOST_STREAMS} with --device cuda")
        if self.models > MOST_MODELS:
            raise UsageError(f"`models` (={self.models:,}) must be at most {MOST_MODELS:,}")
        check_local(self.folder)
        seconds = self.checkpoint_seconds
        if not 0 <= seconds < math.inf:
            raise UsageError(
                f"`checkpoint_seconds` (={seconds}; --checkpoint-interval) must be at least 0, and finite"
            )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        members: how many are stored, those of earlier sittings included.
        total: how many there will be.
        training_images: trained on in this sitting.
        flops: of training and evaluation in this sitting.
        planned_flops: those of this sitting if no member stops early.
        seconds: since training began in this sitting.
        accuracies: test accuracies of the members that ended in this sitting.
        counts: those members by status.
        preparing: as the backend's.
    """

    members: int
    total: int
    training_images: int
    flops: int
    planned_flops: int
    seconds: float
    accuracies: tuple[float, ...]
    counts: Mapping[str, int]
    preparing: float | None


def resolve_options(
    *,
    models: int | None,
    folder: Path,
    preset: str | None = None,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    datasets: str | None = None,
    data_dir: Path | None = None,
    seed: int | None = None,
    dtype: str | None = None,
    faithful: bool = False,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    checkpoint_seconds: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> tuple[Options, list[str]]:
    """Options from what a command line says; what a resumed run does not say is taken from its zoo.

    Args:
        models: number of members.
        folder: of the zoo.
        preset: name of a preset; nws-main if neither it nor a space file is given.
        config: a space file.
        overrides: ``key=value`` strings over both.
        datasets: names of image sets with commas between, or ``available``.
        data_dir: as for ``Options``, like all that follow.
        seed: 0 if not given.
        dtype: float32 if not given.
        faithful: as for ``Options``.
        device: auto if not given; a resumed run goes on with what it was begun with.
        precision: as for ``Options``; a resumed run goes on with what it was begun with.
        threads: as for ``Options``.
        checkpoint_seconds: 300 if not given.
        resume: as for ``Options``.
        overwrite: as for ``Options``.

    Returns:
        The options, and notes for the user on what was decided for them.

    Raises:
        UsageError: something is missing or impossible.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other: go on with the zoo, or replace it")
    there: Manifest | None = read_manifest(folder) if resume else None
    run = there.the_run(folder, "gone on with") if there else None
    keys: dict[str, Any] = dict(parse_override(text) for text in overrides)
    if run is not None and preset is None and config is None:
        space = Space.from_config({**run.space, **keys})
    else:
        default = "nws-main" if config is None else None
        space = Space.load(preset=preset or default, file=config, overrides=keys)
    notes: list[str] = []
    if datasets is None:
        _require_datasets(space, data_dir, settled=run is not None)
    else:
        names, notes = _choose_datasets(space, datasets, data_dir)
        space = Space.from_config({**space.to_config(), "dataset": names})
    if models is None:
        if there is None:
            raise UsageError("say how many networks to train, for instance --models 100")
        models = there.models
    stored = known_dtype(dtype) if dtype is not None else there.dtype if there else "float32"
    if seed is None:
        seed = run.seed if run else 0
    options = Options(
        space=space,
        models=models,
        folder=folder,
        seed=seed,
        data_dir=data_dir,
        dtype=stored,
        faithful=faithful or (there is not None and there.labels == "faithful"),
        device=device or (run.backend if run else "auto"),
        precision=precision or (run.precision if run and device is None else None),
        threads=threads,
        checkpoint_seconds=CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds,
        resume=resume,
        overwrite=overwrite,
    )
    return options, notes


def backend_for(
    device: str, tell: Callable[[str], None] | None = None, *, precision: str | None = None
) -> Backend:
    """The backend a device name stands for: ``auto`` picks the fastest that has been proven, which is ``cpu``.

    Args:
        device: the name.
        tell: takes a line for the user while the backend prepares; stderr if it is None.
        precision: ``bf16`` or ``fp32``; what is usual for the device if None.

    Raises:
        UsageError: there is no such device, it is not here, or it has no such precision.
    """
    if device not in DEVICES:
        raise UsageError(f"`device` (={device!r}) must be {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
    if precision not in (None, *PRECISIONS):
        raise UsageError(f"`precision` (={precision!r}) must be {' or '.join(PRECISIONS)}")
    if device == "cuda":
        if find_spec("triton") is None:
            raise UsageError("--device cuda needs triton: install it (`pip install triton`), or use --device cpu")
        from .cuda import CudaBackend

        return CudaBackend("fp32" if precision == "fp32" else "bf16", tell=tell or tell_user)
    if device == "reference":
        return ReferenceBackend(rounded=precision == "bf16")
    if precision == "bf16":
        raise UsageError(
            "--precision bf16 needs --device cuda and an NVIDIA GPU, or --device reference, which rounds alike: "
            "the CPU backend computes in fp32"
        )
    from .cpu import CpuBackend  # numba takes a while to import

    return CpuBackend(tell or tell_user)


def _require_datasets(space: Space, data_dir: Path | None, *, settled: bool) -> None:
    """Every image set of the space must be here, whether or not this population draws it.

    ``settled``: others cannot be taken, because a run goes on.
    """
    here = available(data_dir)
    wanted = [str(name) for name in space.choices("dataset")]
    missing = [name for name in wanted if name not in here]
    if missing and settled:
        raise UsageError(f"image sets of this run are not here ({', '.join(missing)}): {_advice(missing)}")
    if missing == wanted:
        raise _none_here(wanted, here)
    if missing:
        raise UsageError(
            f"the space's image sets {', '.join(missing)} are not here, but {', '.join(here)} are: add "
            f"`--datasets available` to train on those of the space that are here, or {_advice(missing)}"
        )


def _advice(missing: list[str]) -> str:
    """How to get image sets."""
    own = next((name for name in missing if name not in IMAGE_SET_NAMES), None)
    folder = f"; if {own} is of your own, name the folder of {own}.npz by --data-dir or WSE_DATA" if own else ""
    return f"see `wse data` for how to get them{folder}"


def _none_here(wanted: list[str], here: list[str]) -> UsageError:
    return UsageError(
        f"none of the space's image sets ({', '.join(wanted)}) is here; here are {', '.join(here)}: "
        f"name these, for instance --datasets {here[0]}, or, for the others, {_advice(wanted)}"
    )


def _choose_datasets(space: Space, datasets: str, data_dir: Path | None) -> tuple[list[str], list[str]]:
    """The image sets asked for, and what to tell the user about them."""
    if datasets != "available":
        names = [name.strip() for name in datasets.split(",") if name.strip()]
        known = known_names(data_dir)
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise UsageError(
                f"--datasets {datasets!r}: {unknown[0] if unknown else 'nothing'!r} is not an image set; "
                f"use {', '.join(known)}, or `available`"
            )
        return names, []
    wanted = [str(name) for name in space.choices("dataset")]
    here = available(data_dir)
    names = [name for name in wanted if name in here]
    if not names:
        raise _none_here(wanted, here)
    missing = [name for name in wanted if name not in here]
    note = f"image sets: {', '.join(names)}" + (f" (not here: {', '.join(missing)})" if missing else "")
    return names, [note]
