"""Many members as one wide network: their channels side by side in grouped convolutions, batched linear layers.

What people build who do not want ``torch.func``. Batch normalisation uses batch statistics and keeps no running
ones, as in ``vmap.py``. Each member has its own weights, images, order and dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..space import Member
from ..train import Context
from ..train.backend import Weights
from .module import WrittenNetwork, stored, written
from .plain import optimizer, products
from .vmap import PackTraining, Vmap
from .workload import Workload


@dataclass(frozen=True, kw_only=True)
class Grouped(Vmap):
    """Grouped convolutions over a pack of members."""

    def _training(self, workload: Workload, context: Context, members: Sequence[Member]) -> GroupedTraining:
        return GroupedTraining(workload, context, members, device=self.device, precision=self.precision)


class GroupedTraining(PackTraining):
    """Members of one set-up in one wide network."""

    def start(self) -> None:
        """The initial weights side by side, and a new optimizer."""
        self._network = widened(self._module, len(self._initial)).to(self.device)
        tensors = [written(self._module, self._layout, weights) for weights in self._initial]
        joined = {name: _joined([row[name] for row in tensors]) for name in tensors[0]}
        self._network.load_state_dict(joined)
        self._optimizer = optimizer(self._network.parameters(), self._setup, self._settings)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train each member on a batch [P, n, C, 32, 32] with labels [P, n]; the losses [P]."""
        members, count = labels.shape
        self._optimizer.zero_grad()
        with products(self.precision, self.device):
            logits = self._network(images.transpose(0, 1).flatten(1, 2)).view(count, members, -1)
            losses = functional.cross_entropy(
                logits.transpose(0, 1).flatten(0, 1), labels.flatten(), reduction="none"
            )
        means = losses.view(members, count).mean(dim=1)
        means.sum().backward()  # type: ignore[no-untyped-call]  # so that each has the gradient it has alone
        self._optimizer.step()
        return means.detach()

    def weights(self) -> list[Weights]:
        """As they are now, float32 [D] a member."""
        members = len(self._initial)
        rows = {
            name: tensor.view(members, -1, *tensor.shape[1:]) if tensor.ndim in (1, 4) else tensor.transpose(1, 2)
            for name, tensor in self._network.state_dict().items()
        }
        return [
            stored(self._module, self._layout, {name: rows[name][row] for name in rows}, initial)
            for row, initial in enumerate(self._initial)
        ]


def widened(module: WrittenNetwork, members: int) -> nn.Sequential:
    """The network that computes ``members`` networks side by side, of [n, members * C, H, W]."""
    layers: list[nn.Module] = []
    for layer in module:
        match layer:
            case nn.Conv2d():
                layers.append(
                    nn.Conv2d(
                        layer.in_channels * members,
                        layer.out_channels * members,
                        layer.kernel_size,  # type: ignore[arg-type]
                        layer.stride,  # type: ignore[arg-type]
                        layer.padding,  # type: ignore[arg-type]
                        groups=members,
                        bias=layer.bias is not None,
                    )
                )
            case nn.BatchNorm2d() | nn.BatchNorm1d():
                layers.append(type(layer)(layer.num_features * members, track_running_stats=False))
            case nn.Linear():
                layers.append(_Linears(members, layer.in_features, layer.out_features, layer.bias is not None))
            case _:
                layers.append(layer)
    return nn.Sequential(*layers)


class _Linears(nn.Module):
    """Linear layers side by side on [n, members * inputs]."""

    def __init__(self, members: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(members * outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(len(x), len(self.weight), -1).transpose(0, 1)
        made = torch.bmm(rows, self.weight).transpose(0, 1).flatten(1)
        return made if self.bias is None else made + self.bias


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """The members' tensors as the wide network has them."""
    if tensors[0].ndim == 2:
        return torch.stack([tensor.T for tensor in tensors])
    return torch.cat(list(tensors))
