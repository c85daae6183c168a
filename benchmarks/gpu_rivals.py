"""What a user would run instead on a GPU: the same networks by PyTorch, resident images, no augmentation.

Products are TF32, as PyTorch users allow for speed. Each rival is a function that takes some steps and says on how
many images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from wse.engine.bench.module import write_module
from wse.engine.nets import Architecture
from wse.engine.space import Setup

STEPS = 16
MEMBERS = 64  # of vmap and of grouped convolutions


def rivals(
    architecture: Architecture, setup: Setup, batch: int, device: torch.device
) -> Iterator[tuple[str, Callable[[], int]]]:
    """(label, work) of each rival."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    images = torch.rand(batch, 3, 32, 32, device=device)
    if architecture.input.color == "grey":
        images = images.mean(dim=1, keepdim=True)
    labels = torch.arange(batch, device=device) % 10
    yield "PyTorch, eager, one member", eager(architecture, setup, images, labels)
    if device.type == "cuda":
        yield "PyTorch, CUDA graph, one member", graph(architecture, setup, images, labels)
    yield f"torch.func.vmap of {MEMBERS}", mapped(architecture, setup, images, labels)
    yield f"grouped convolutions, {MEMBERS} members", grouped(architecture, setup, images, labels)


def step_of(module: nn.Module, images: Tensor, labels: Tensor, *, capturable: bool) -> Callable[[], None]:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, capturable=capturable, foreach=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=not capturable)
        functional.cross_entropy(module(images), labels).backward()
        optimizer.step()

    return step


def eager(architecture: Architecture, setup: Setup, images: Tensor, labels: Tensor) -> Callable[[], int]:
    module = write_module(architecture, setup).to(images.device)
    step = step_of(module, images, labels, capturable=False)

    def work() -> int:
        for _ in range(STEPS):
            step()
        return STEPS * len(images)

    return work


def graph(architecture: Architecture, setup: Setup, images: Tensor, labels: Tensor) -> Callable[[], int]:
    module = write_module(architecture, setup).to(images.device)
    step = step_of(module, images, labels, capturable=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        step()

    def work() -> int:
        for _ in range(STEPS):
            captured.replay()
        return STEPS * len(images)

    return work


def mapped(architecture: Architecture, setup: Setup, images: Tensor, labels: Tensor) -> Callable[[], int]:
    modules = [write_module(architecture, setup, running_statistics=False) for _ in range(MEMBERS)]
    modules = [module.to(images.device) for module in modules]
    values, buffers = stack_module_state(modules)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(values.values(), lr=1e-3, foreach=True)
    base = modules[0]

    def loss(one: dict[str, Tensor], kept: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(base, (one, kept), (x,)), labels)

    gradient = vmap(grad(loss), in_dims=(0, 0, None), randomness="different")

    def work() -> int:
        for _ in range(STEPS):
            found = gradient({name: value.detach() for name, value in values.items()}, buffers, images)
            for name, value in values.items():
                value.grad = found[name]
            optimizer.step()
        return STEPS * MEMBERS * len(images)

    return work


class Grouped(nn.Module):
    """All members in one network: their channels side by side, their linear layers as batched products."""

    def __init__(self, architecture: Architecture, setup: Setup) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in write_module(architecture, setup):
            match layer:
                case nn.Conv2d():
                    layers.append(
                        nn.Conv2d(
                            layer.in_channels * MEMBERS,
                            layer.out_channels * MEMBERS,
                            layer.kernel_size,  # type: ignore[arg-type]
                            layer.stride,  # type: ignore[arg-type]
                            layer.padding,  # type: ignore[arg-type]
                            groups=MEMBERS,
                            bias=layer.bias is not None,
                        )
                    )
                case nn.BatchNorm2d() | nn.BatchNorm1d():
                    layers.append(type(layer)(layer.num_features * MEMBERS))
                case nn.Linear():
                    layers.append(Batched(layer.in_features, layer.out_features))
                case _:
                    layers.append(layer)
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.repeat(1, MEMBERS, 1, 1))


class Batched(nn.Module):
    """MEMBERS linear layers on [n, MEMBERS * inputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(MEMBERS, inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(MEMBERS, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(len(x), MEMBERS, -1).transpose(0, 1)
        return torch.baddbmm(self.bias, rows, self.weight).transpose(0, 1).flatten(1)


def grouped(architecture: Architecture, setup: Setup, images: Tensor, labels: Tensor) -> Callable[[], int]:
    network = Grouped(architecture, setup).to(images.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, foreach=True)
    all_labels = labels.repeat_interleave(MEMBERS)

    def work() -> int:
        for _ in range(STEPS):
            optimizer.zero_grad()
            logits = network(images).view(len(images) * MEMBERS, -1)
            # The sum of the members' mean losses, so that each has the gradient it has alone.
            (functional.cross_entropy(logits, all_labels) * MEMBERS).backward()
            optimizer.step()
        return STEPS * MEMBERS * len(images)

    return work
