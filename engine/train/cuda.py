"""The CUDA backend: packs of several threads share a device, and the kernels that they launch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import numpy as np
import torch

from wse.kernels.packs import LARGEST_ITEM
from wse.kernels.triton_compile import settle_keys

from ..errors import UsageError
from ..nets import Architecture, Layout
from ..space import Member
from .backend import Context, tell_user
from .cuda_blocks import blocks_of
from .cuda_device import Device, translated_memory_errors
from .cuda_forms import Compilation, forms_of
from .cuda_layout import ArenaLayout
from .cuda_network import Network
from .cuda_pack import CudaPack
from .cuda_tables import ResidentImages, most_classes

Precision = Literal["bf16", "fp32"]

PACKS_AT_A_TIME = 16  # that share the device; why so many: "Several packs at a time" in benchmarks/NOTES.md
# More members of an architecture are several packs: while one of them waits for the host, another is at work.
MEMBERS_PER_PACK = 512
# Measuring is launched kernel by kernel, so many images at a time keep the host from being what it waits for.
_EVALUATION_IMAGES = (1024, 16384)
_EVALUATION_SHARE = 0.25  # of a pack's memory
_MEMORY_SHARE = 0.8  # of what is free; the rest is for what kernels leave for each other within a step
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class CudaBackend:
    """All members of a pack train at the same time, and several packs share the device.

    Args:
        precision: of values and products: bf16, or fp32 by three products of tf32 each. Weights, sums and
            optimizer state are float32 in both.
        device: where; "cpu" only where Triton's kernels run in its interpreter.
        evaluation_images: there is room for at least so many images, for evaluation; None: what a quarter of a
            pack's memory holds, from 1,024 to 16,384.
        tell: takes a line for the user now and then while kernels are compiled, which happens once a machine.

    Raises:
        UsageError: there is no GPU.
    """

    name = "cuda"
    workers: int | None = PACKS_AT_A_TIME
    members_per_pack: int | None = MEMBERS_PER_PACK

    def __init__(
        self,
        precision: Precision = "bf16",
        *,
        device: torch.device | str = "cuda",
        evaluation_images: int | None = None,
        tell: Callable[[str], None] = tell_user,
    ) -> None:
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise UsageError("--device cuda needs an NVIDIA GPU, and PyTorch sees none: use --device auto")
        self._device = Device(device)
        if self._device.is_gpu:
            settle_keys()
        self.precision: str = precision
        self._evaluation_images = evaluation_images
        self._resident: tuple[object, ResidentImages] | None = None
        self._compilation = Compilation(tell)

    @property
    def preparing(self) -> float | None:
        """The share of the kernels that are compiled, while they are being compiled."""
        return self._compilation.share

    def prepare(self, architectures: Collection[Architecture], context: Context) -> None:
        """Compile the kernels that packs launch, on all cores; what is left out is compiled as it is launched.

        Args:
            architectures: of the packs.
            context: what they share.

        Raises:
            WseError: there are layers that there are no kernels for.
        """
        if self._device.is_gpu:
            with self._device.turn():
                forms = forms_of(
                    architectures,
                    _DTYPES[self.precision],
                    classes=most_classes(context.splits),
                    augment=context.may_have("augmentation", True),
                    gelu=context.may_have("activation", "gelu"),
                )
                self._compilation.compile(forms, self._device.capability, context.should_stop)

    def rows(self, architecture: Architecture, members: Sequence[Member], packs: int = 1) -> int:
        """As many of them as fit into a pack's share of the memory, those with the largest batches first."""
        if not self._device.is_gpu:
            return len(members)
        return rows_that_fit(
            architecture,
            [member.setup.batch_size for member in members],
            _DTYPES[self.precision],
            bytes_free=self._free_bytes() // packs,
            evaluation_images=self._images_measured(architecture),
        )

    def open(self, architecture: Architecture, rows: int, context: Context) -> CudaPack:
        """A pack whose rows train side by side.

        Raises:
            WseError: the architecture has layers that there are no kernels for.
        """
        blocks_of(architecture)
        with translated_memory_errors(), self._device.turn():
            resident = self._images(context)
        return CudaPack(
            architecture,
            rows,
            context,
            resident,
            self._device,
            dtype=_DTYPES[self.precision],
            evaluation_images=self._images_measured(architecture),
        )

    def _free_bytes(self) -> int:
        return int(_MEMORY_SHARE * self._device.free_bytes())

    def _images_measured(self, architecture: Architecture) -> int:
        if self._evaluation_images is not None:
            return self._evaluation_images
        return evaluation_images(architecture, _DTYPES[self.precision], self._free_bytes() // PACKS_AT_A_TIME)

    def _images(self, context: Context) -> ResidentImages:
        """What a run's packs read, in a turn."""
        self._device.tidy()
        if self._resident is None or self._resident[0] is not context.splits:
            self._resident = None  # before the next ones need room
            self._resident = context.splits, ResidentImages(context.splits, self._device.torch)
            self._device.finish()  # other threads' streams are to find them there
        return self._resident[1]


def evaluation_images(architecture: Architecture, dtype: torch.dtype, bytes_free: int) -> int:
    """How many images are measured at a time.

    Args:
        architecture: the layers.
        dtype: of values and products.
        bytes_free: for a pack.
    """
    least, most = _EVALUATION_IMAGES
    an_image = Network(architecture, 1, dtype, "meta").bytes
    return min(max(int(_EVALUATION_SHARE * bytes_free) // an_image, least), most)


def rows_that_fit(
    architecture: Architecture,
    batches: Sequence[int],
    dtype: torch.dtype,
    *,
    bytes_free: int,
    evaluation_images: int,
) -> int:
    """How many members can train side by side, whichever of them come together; at least 1.

    Args:
        architecture: what they share.
        batches: the members' batch sizes.
        dtype: of values and products.
        bytes_free: on the device.
        evaluation_images: there is room for at least so many images.
    """
    an_image = Network(architecture, 1, dtype, "meta").bytes
    a_row = 4 * 4 * ArenaLayout(Layout(architecture)).size  # weights, gradient, two states
    images = np.cumsum(np.sort(batches)[::-1])
    rows = np.arange(1, len(batches) + 1)
    fits = a_row * rows + an_image * np.maximum(images, evaluation_images) <= bytes_free
    fits &= images <= LARGEST_ITEM // architecture.input.size**2  # pixels are counted in 32 bits
    return max(int(fits.sum()), 1)
