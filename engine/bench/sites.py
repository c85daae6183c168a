"""Where a benchmark runs: who takes part there, what the machine can do, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Protocol

import torch

from ..errors import UsageError
from ..machine import cores
from .contender import Contender
from .registry import contenders, cuda_contenders
from .results import Card, Machine

_PRECISIONS = ("bf16", "fp32")


class Gauge(Protocol):
    """Measures something that the machine can do."""

    def measure(self, seconds: float) -> float:
        """A rate."""


class Site(Protocol):
    """Where a benchmark runs."""

    @property
    def name(self) -> str:
        """For people."""

    def contenders(self) -> list[Contender]:
        """Everyone who can take part."""

    def gauges(self) -> Mapping[str, Gauge]:
        """What is measured of the machine in each round."""

    def machine(self, rounds: Mapping[str, Sequence[float]]) -> Machine | Card:
        """What the gauges found."""

    def provenance(self) -> dict[str, Any]:
        """What belongs to a result besides the computer and versions."""


@dataclass(frozen=True, kw_only=True)
class Processor:
    """The processor.

    Attributes:
        threads: for every contender in all.
    """

    threads: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.threads} threads"

    def contenders(self) -> list[Contender]:
        """Everyone who can take part."""
        return contenders(self.threads)

    def gauges(self) -> Mapping[str, Gauge]:
        """Multiply-adds and memory, on one thread and on all."""
        from .peak import Probe  # here, so that the contenders' processes need not import numba

        return {
            f"{name}_{which}": Probe(name, lanes)
            for name in ("fma", "triad")
            for which, lanes in (("one", 1), ("all", self.threads))
        }

    def machine(self, rounds: Mapping[str, Sequence[float]]) -> Machine:
        """What the gauges found."""
        return Machine(**{name: tuple(values) for name, values in rounds.items()})

    def provenance(self) -> dict[str, Any]:
        """Nothing: threads and vectors are told of every computer."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU.

    Attributes:
        members: in training at a time; for each number a contender.
        precisions: of our products; for each likewise.
        device: as PyTorch names it; "cpu" where Triton's kernels run in its interpreter.

    Raises:
        UsageError: there is no GPU, no triton, or no such precision.
    """

    members: tuple[int, ...] = (1024,)
    precisions: tuple[str, ...] = ("bf16",)
    device: str = "cuda"

    def __post_init__(self) -> None:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("--device cuda needs an NVIDIA GPU, and PyTorch sees none: use --device cpu")
        if find_spec("triton") is None:
            raise UsageError("--device cuda needs triton: install it (`pip install triton`), or use --device cpu")
        if not self.members or min(self.members) < 1:
            raise UsageError(f"`members` (={', '.join(map(str, self.members))}) must be at least 1")
        for precision in self.precisions:
            if precision not in _PRECISIONS:
                raise UsageError(f"`precision` (={precision!r}) must be {' or '.join(_PRECISIONS)}")

    @property
    def name(self) -> str:
        """For people."""
        return torch.cuda.get_device_name() if self.device == "cuda" else "Triton's interpreter"

    def contenders(self) -> list[Contender]:
        """Everyone who can take part."""
        return cuda_contenders(self.members, self.precisions, processes=min(cores(), 8), device=self.device)

    def gauges(self) -> Mapping[str, Gauge]:
        """Matrix products and memory."""
        from .cuda_peak import CardProbe

        return {name: CardProbe(name, self.device) for name in ("matrix_bf16", "matrix_tf32", "copy")}

    def machine(self, rounds: Mapping[str, Sequence[float]]) -> Card:
        """What the gauges found."""
        return Card(**{name: tuple(values) for name, values in rounds.items()})

    def provenance(self) -> dict[str, Any]:
        """The card, and what drives it."""
        about: dict[str, Any] = {"gpu": self.name, "cuda": torch.version.cuda, "triton": version("triton")}
        if self.device == "cuda":
            capability = torch.cuda.get_device_capability()
            about |= {
                "capability": "{}.{}".format(*capability),
                "memory_bytes": torch.cuda.get_device_properties(0).total_memory,
            }
        return about
