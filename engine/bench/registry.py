"""Every contender there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..machine import cores
from .contender import Contender
from .cuda_graphs import Graphs
from .grouped import Grouped
from .ours import Ours, devices
from .plain import Plain
from .vmap import Vmap
from .workload import PACK

_SIDE_BY_SIDE = 64  # members of vmap and of grouped convolutions on a GPU
_STREAMS = 16


def contenders(threads: int) -> list[Contender]:
    """Our backends that are here, then what a user would run instead, each with ``threads`` threads in all."""
    n = threads
    ours: list[Contender] = [Ours(name=name, label=f"ours: {name}", device=name, lanes=n) for name in devices()]
    return [
        *ours,
        Plain(name="pytorch-1xn", label=f"PyTorch {_shape(1, n)}", torch_threads=n),
        Plain(name="pytorch-nx1", label=f"PyTorch {_shape(n, 1)}", processes=n),
        Plain(
            name="pytorch-channels-last",
            label=f"PyTorch {_shape(n, 1)}, channels-last",
            processes=n,
            channels_last=True,
        ),
        Plain(name="pytorch-compile", label=f"PyTorch {_shape(n, 1)}, compiled", processes=n, compiled=True),
        Vmap(name="vmap", label=f"torch.func.vmap of {PACK}, {_shape(1, n)}", torch_threads=n),
    ]


def cuda_contenders(
    members: Sequence[int], precisions: Sequence[str], *, processes: int, device: str = "cuda"
) -> list[Contender]:
    """Ours on a GPU, then what a user would run instead, whose products are TF32 or bfloat16.

    Args:
        members: of our packs, a contender for each.
        precisions: of ours, bf16 or fp32, likewise.
        processes: of plain PyTorch, where it may have several.
        device: as PyTorch names it.
    """
    from .cuda_ours import OursOnCuda  # needs triton

    pack, n = _SIDE_BY_SIDE, processes
    tf32: dict[str, Any] = {"precision": "tf32", "device": device}
    bf16: dict[str, Any] = {"precision": "bf16", "device": device}
    ours: list[Contender] = [
        OursOnCuda(
            name=f"cuda-{precision}-{count}",
            label=f"ours: {precision}, {count:,} members",
            members=count,
            precision="bf16" if precision == "bf16" else "fp32",
            device=device,
        )
        for precision in precisions
        for count in members
    ]
    return [
        *ours,
        Plain(name="eager", label="PyTorch, tf32", **tf32),
        Plain(name="eager-nx1", label=f"PyTorch, tf32, {n} processes", processes=n, **tf32),
        Graphs(name="graph", label="CUDA graph, tf32", **tf32),
        Graphs(name="graph-bf16", label="CUDA graph, bf16", **bf16),
        Graphs(name="graphs", label=f"{_STREAMS} CUDA graphs, tf32", streams=_STREAMS, **tf32),
        Vmap(name="vmap", label=f"torch.func.vmap {pack}, tf32", members=pack, **tf32),
        Grouped(name="grouped", label=f"grouped, {pack} members, tf32", members=pack, **tf32),
        Grouped(name="grouped-bf16", label=f"grouped, {pack} members, bf16", members=pack, **bf16),
    ]


def contender_names() -> list[str]:
    """The names of all contenders that are here on the processor."""
    return [contender.name for contender in contenders(cores())]


def _shape(processes: int, threads: int) -> str:
    """2 x 1: processes times threads in each."""
    return f"{processes} x {threads}"
