"""Which forms of the GPU kernels a run's packs launch, compiled on all cores before they do."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from wse.kernels.triton_compile import compile_all, was_compiled
from wse.kernels.triton_launches import Form, recorded

from ..machine import cores
from ..nets import Architecture, Layout
from .cuda_evaluation import Measuring
from .cuda_layout import INPUT_CHANNELS, ArenaLayout
from .cuda_network import Network
from .cuda_step import Step
from .cuda_tables import Tables

_META = torch.device("meta")
_POLL_SECONDS = 0.1
_FEW = 8  # are compiled in the time that processes take to begin


def launch_step(
    architecture: Architecture,
    dtype: torch.dtype,
    *,
    classes: int,
    augment: bool,
    gelu: bool,
    rows: int = 2,
    batch: int = 3,
) -> None:
    """Launch what a training step of a full pack does, with tensors that have no memory: to be recorded.

    Args:
        architecture: what the members share.
        dtype: of values and products.
        classes: of the image set that has the most.
        augment: whether a member may have augmentation.
        gelu: whether a member may have GELU.
        rows: how many members. The forms of kernels do not depend on it.
        batch: images of each member. Nor on this.
    """
    layout = ArenaLayout(Layout(architecture))
    arena = torch.zeros(rows, layout.size, device=_META)
    step = Step(
        Network(architecture, rows * batch, dtype, _META),
        rows * batch,
        layout=layout,
        arena=arena,
        gradient=torch.zeros_like(arena),
        state=torch.zeros(2, *arena.shape, device=_META),
        tables=Tables(rows, classes, 1, _META),
        resident=_resident(classes),
        augment=augment,
        gelu=gelu,
    )
    step.lay([batch] * rows)
    step.launch(1)


def launch_measurement(
    architecture: Architecture,
    dtype: torch.dtype,
    *,
    classes: int,
    augment: bool,
    gelu: bool,
    batch_statistics: bool = False,
    rows: int = 2,
    batch: int = 3,
) -> None:
    """Launch what a measurement of members' weights does; arguments as of ``launch_step``."""
    layout = ArenaLayout(Layout(architecture))
    measuring = Measuring(
        torch.zeros(rows, layout.size, device=_META),
        rows * batch,
        network=Network(architecture, rows * batch, dtype, _META),
        layout=layout,
        resident=_resident(classes),
        codes=[0] * rows,
        augments=[augment] * rows,
        batch_statistics=batch_statistics,
        gelu=gelu,
    )
    measuring.launch([np.zeros(batch, dtype=np.int32)] * rows, np.zeros((rows, 4), dtype=np.int64))


def _resident(classes: int) -> Any:
    """What stands for the image sets."""
    return SimpleNamespace(
        images=torch.zeros(1, 32, 32, INPUT_CHANNELS, dtype=torch.uint8, device=_META),
        labels=torch.zeros(1, dtype=torch.uint8, device=_META),
        table=torch.zeros(1, dtype=torch.int32, device=_META),
        classes=classes,
    )


def forms_of(
    architectures: Iterable[Architecture],
    dtype: torch.dtype,
    *,
    classes: int,
    augment: bool,
    gelu: bool,
) -> list[Form]:
    """What packs launch when they train and are measured; nobody else may launch anything meanwhile.

    Args:
        architectures: of the packs.
        dtype: of values and products.
        classes: of the image set that has the most.
        augment: whether a member may have augmentation.
        gelu: whether a member may have GELU.

    Returns:
        Each form once.

    Raises:
        WseError: there are layers that there are no kernels for.
    """
    forms: dict[str, Form] = {}
    for architecture in architectures:
        with recorded() as launches:
            for launch in (launch_step, launch_measurement):
                launch(architecture, dtype, classes=classes, augment=augment, gelu=gelu)
        for done in launches:
            forms.setdefault(done.variant().code, done.form())
    return list(forms.values())


class Compilation:
    """Compiles forms in several processes, and says how far it is.

    Args:
        tell: takes a line for the user when it begins, and when it ends.

    Attributes:
        share: of the forms that are compiled, while it goes on; None before and after.
    """

    share: float | None = None

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def compile(self, forms: Sequence[Form], capability: int, should_stop: Callable[[], bool]) -> None:
        """Compile what is not on the disk, for the GPU of Triton's driver.

        Args:
            forms: what will be launched.
            capability: of the GPU, 90 for sm_90.
            should_stop: asked often; the compilation ends when it says so.
        """
        with _alone(should_stop):
            left = list(reversed(forms))
            missed = 0
            while left and missed < _FEW and not should_stop():
                missed += not was_compiled(left.pop())
            if left and not should_stop():
                self._compile(left, len(forms), capability, should_stop)

    def _compile(self, left: Sequence[Form], of: int, capability: int, should_stop: Callable[[], bool]) -> None:
        began = time.monotonic()
        self._tell("compiling the GPU kernels, once on this machine; it takes up to a minute")

        def told(done: int) -> None:
            self.share = (of - len(left) + done) / of

        processes = min(cores(), -(-len(left) // _FEW))
        try:
            done = compile_all(left, capability, processes=processes, told=told, should_stop=should_stop)
        finally:
            self.share = None
        if should_stop():
            return
        if done == len(left):
            self._tell(f"compiled the GPU kernels in {time.monotonic() - began:.0f} s")
        else:
            self._tell(f"compiled {done} of {len(left)} GPU kernels; the others will be when they are launched")


@contextmanager
def _alone(should_stop: Callable[[], bool]) -> Iterator[None]:
    """Let one process of this machine compile at a time: the others find on the disk what it has made."""
    from triton import knobs

    with ExitStack() as held:
        with suppress(OSError):  # nothing can be kept there, so there is nothing to wait for
            folder = Path(knobs.cache.dir)
            folder.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(open(folder / "wse.lock", "a"))
            while not should_stop() and not _locked(file.fileno()):
                time.sleep(_POLL_SECONDS)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
