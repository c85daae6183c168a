"""Tile sizes of the convolutions: which are fastest, with which matrix instructions (wgmma or mma.sync).

    python benchmarks/gpu_tiles.py [--members 512] [--only forward] [--out FILE]
    python benchmarks/gpu_tiles.py --compile       # registers and instructions of every tiling, without a GPU

For the layers of nws-fixed and small-cnn: the tiling that is shipped (before Triton 3.9 also with windows that
pass by the first-level cache, as it has them by itself), and others around it, one thing changed at a time. Every
tiling's results are compared with the shipped one's before it is timed. Those that spill registers or need too
much shared memory are named and left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from tempfile import TemporaryDirectory

import torch
from gpu_timing import middle, off, parser, seconds_of, write
from triton import knobs
from triton.runtime import driver

from wse.kernels.conv.shapes import ConvShape, Tiling, product_tiling, weight_tiling
from wse.kernels.conv.triton import convolve, input_gradient, product_kernel
from wse.kernels.conv.triton_gradient import weight_gradient, weight_gradient_kernel
from wse.kernels.packs import Pack
from wse.kernels.triton_check import check_variant, compile_variant
from wse.kernels.triton_compile import settle_keys, stand_in
from wse.kernels.triton_launches import Launch, recorded

SHAPES = [
    ConvShape(height=32, width=32, channels=4, outputs=8, kernel=5),
    ConvShape(height=16, width=16, channels=8, outputs=16, kernel=5),
    ConvShape(height=8, width=8, channels=16, outputs=32, kernel=5),
    ConvShape(height=15, width=15, channels=16, outputs=16, kernel=3, stride=2, padding="valid"),
]
WHATS = ("forward", "input-gradient", "weight-gradient")


def shipped(what: str, shape: ConvShape) -> Tiling:
    if what == "weight-gradient":
        return weight_tiling(shape, "bf16")
    source, target, width = shape.channels, shape.outputs, shape.out_width
    if what == "input-gradient":
        source, target, width = shape.outputs, shape.channels, shape.width
    return product_tiling(shape.kernel, source, target, width, shape.stride, "bf16")


def tilings(what: str, shape: ConvShape) -> Iterator[Tiling]:
    """The shipped one, then others with one thing changed. 16 and 32 rows mean mma.sync, 64 and more wgmma."""
    usual = shipped(what, shape)
    yield usual
    for change in (
        *({"rows": rows} for rows in (16, 32, 64, 128, 256)),
        *({"chunk": chunk} for chunk in (16, 32, 64, 128)),
        *({"num_warps": warps} for warps in (2, 8)),
        *({"num_stages": stages} for stages in (1, 2, 4)),
        *({"pixels": pixels} for pixels in (2, 4, 8) if pixels % shape.stride == 0),
    ):
        tiling = replace(usual, **change)
        if tiling != usual:
            yield tiling


def compiled(task: tuple[str, ConvShape, Tiling]) -> tuple[str, str]:
    """What a tiling compiles to for sm_90, in words, and why it is left out if it is; a launch finds it there."""
    what, shape, tiling = task
    driver.set_active(stand_in(90))
    settle_keys()
    with recorded() as launches:
        Layer(shape, 2, 3, "meta").call(what, tiling)[0]()
    variant = replace(next(launch for launch in launches if is_product(launch)).variant(), needs_matrix=True)
    checked = check_variant(variant, variant.name, 90)
    if checked.problems:
        return "", "; ".join(checked.problems)
    for launch in launches:
        launch.form().compile()
    text = compile_variant(variant, 90).asm["ptx"]
    kind = "wgmma" if "wgmma.mma_async" in text else "mma.sync"
    return f"{kind:8} {checked.registers:3} registers, {checked.shared_bytes:6} bytes shared", ""


def is_product(launch: Launch) -> bool:
    return launch.kernel.__name__ in ("product_kernel", "weight_gradient_kernel")


@contextmanager
def windows_passing_by(folder: str) -> Iterator[None]:
    """Kernels are compiled anew in here, as Triton does it by itself; ``folder`` is for what it makes."""
    hook, before = knobs.runtime.add_stages_inspection_hook, knobs.cache.dir
    knobs.runtime.add_stages_inspection_hook, knobs.cache.dir = None, folder
    for kernel in (product_kernel, weight_gradient_kernel):
        kernel.device_caches.clear()
    try:
        yield
    finally:
        knobs.runtime.add_stages_inspection_hook, knobs.cache.dir = hook, before
        for kernel in (product_kernel, weight_gradient_kernel):
            kernel.device_caches.clear()


class Layer:
    """A layer of a pack, and a call for each of its operations.

    Args:
        shape: sizes.
        members: how many.
        batch: images of each.
        device: where.
    """

    def __init__(self, shape: ConvShape, members: int, batch: int, device: str) -> None:
        torch.manual_seed(0)
        margin, count = (shape.kernel - 1) // 2 if shape.padding == "same" else 0, members * batch
        dtype = torch.float32 if device == "cpu" else torch.bfloat16

        def images(height: int, width: int, channels: int) -> torch.Tensor:
            made = torch.zeros(count, height, width + 2 * margin, channels, device=device, dtype=dtype)
            inner = made[:, :, margin : width + margin]
            inner.copy_(torch.randn(inner.shape, device=device))
            return made

        self.shape, self.pack = shape, Pack.of(list(range(0, count + 1, batch)), device)
        self.x, self.dx = (images(shape.height, shape.width, shape.channels) for _ in range(2))
        self.y, self.dy = (images(shape.out_height, shape.out_width, shape.outputs) for _ in range(2))
        self.w = torch.randn(members, shape.kernel, shape.kernel, shape.channels, shape.outputs, device=device)
        self.dw = torch.zeros_like(self.w)

    def call(self, what: str, tiling: Tiling) -> tuple[Callable[[], object], torch.Tensor]:
        """A call, and what it makes."""
        common = {"shape": self.shape, "pack": self.pack, "tiling": tiling}
        match what:
            case "forward":
                return lambda: convolve(self.x, self.w, self.y, moments=True, **common), self.y
            case "input-gradient":
                return lambda: input_gradient(self.dy, self.w, self.dx, **common), self.dx
            case _:
                return lambda: weight_gradient(self.x, self.dy, self.dw, **common), self.dw


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--members", type=int, default=512)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--only", choices=WHATS, nargs="+", default=WHATS)
    options.add_argument("--shapes", type=int, default=len(SHAPES), help="only so many layers")
    options.add_argument("--compile", action="store_true", help="only say what tilings compile to")
    given = options.parse_args()
    tasks = [
        (what, shape, tiling)
        for shape in SHAPES[: given.shapes]
        for what in given.only
        for tiling in tilings(what, shape)
    ]
    interpreted = given.device != "cuda" and not given.compile
    if interpreted:  # no compiler there
        facts = [("", "")] * len(tasks)
    else:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            facts = list(pool.map(compiled, tasks))
    layer, last, expected, usual = None, None, None, 1.0
    apart = TemporaryDirectory()
    for (what, shape, tiling), (words, problem) in zip(tasks, facts, strict=True):
        if (what, shape) != last:
            print(f"{what}, k{shape.kernel} {shape.height}x{shape.width} {shape.channels}-{shape.outputs}")
        is_shipped, last = (what, shape) != last, (what, shape)
        sizes = f"S{tiling.pixels} chunk {tiling.chunk:3} rows {tiling.rows:3} "
        sizes += f"warps {tiling.num_warps} stages {tiling.num_stages}"
        line = f"  {'shipped' if is_shipped else '':8}{sizes}  {words or problem}"
        row = {
            "what": what,
            "shape": str(shape),
            "tiling": str(tiling),
            "shipped": is_shipped,
            "facts": words or problem,
        }
        if not problem and not given.compile:
            if layer is None or layer.shape != shape:
                layer = None  # its memory first
                layer = Layer(shape, given.members, given.batch, given.device)
            call, made = layer.call(what, tiling)
            made.zero_()
            call()
            if is_shipped:
                expected = made.clone()
            error = off(made, expected)
            if not error < 5e-3:  # bf16, summed in another order
                line, row["error"] = f"{line}  WRONG: off by {error:.1e}", error
            else:
                row["seconds"], row["error"] = seconds_of(call, given.device), error
                spent = middle(row["seconds"])
                usual = spent if is_shipped else usual
                if not interpreted:
                    line += f"  {spent * 1e6:9.1f} us, {usual / spent:5.2f} of the shipped one's rate"
                if is_shipped and not interpreted and knobs.runtime.add_stages_inspection_hook:
                    with windows_passing_by(apart.name):
                        row["passing_by_seconds"] = seconds_of(call, given.device)
                    line += f"; {spent / middle(row['passing_by_seconds']):5.2f} with windows that pass by"
        print(line, flush=True)
        write(given.out, "tiles", given.device, [row])


if __name__ == "__main__":
    main()
