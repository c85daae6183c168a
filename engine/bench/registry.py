"""Every contender there is."""

from __future__ import annotations

from ..machine import cores
from .contender import Contender
from .ours import Ours, devices
from .plain import Plain
from .vmap import Vmap
from .workload import PACK


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


def contender_names() -> list[str]:
    """The names of all contenders that are here."""
    return [contender.name for contender in contenders(cores())]


def _shape(processes: int, threads: int) -> str:
    """2 x 1: processes times threads in each."""
    return f"{processes} x {threads}"
