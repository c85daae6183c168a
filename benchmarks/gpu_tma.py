"""Windows of a convolution by TMA instead of by pointers: does the conv forward gain?

    python benchmarks/gpu_tma.py [--members 256] [--out FILE]        # needs a GPU of sm_90
    python benchmarks/gpu_tma.py --compile                           # what it compiles to, without a GPU

A window of S + k - 1 pixels is a row of an image seen with overlapping strides: [image, row, super-pixel, value].
As such a tensor's boxes the windows of a tile come by one instruction a step, and rows above and below the image
as zeros. The kernel here is ``product_kernel`` of ``kernels/conv/triton.py`` with its two loads so replaced,
without bias and moments; its results must be those of ``convolve``.
"""

from __future__ import annotations

import re

import torch
import triton
import triton.language as tl
from gpu_timing import middle, off, parser, seconds_of, write
from triton.tools.tensor_descriptor import TensorDescriptor

from wse.kernels.conv import triton as conv
from wse.kernels.conv.shapes import ConvShape, Product, forward_product, forward_tiling
from wse.kernels.packs import Pack

# Of nws-fixed, and what else has whole super-pixels; the first layer's images are stored with four channels.
SHAPES = [
    ConvShape(height=32, width=32, channels=4, outputs=8, kernel=5),
    ConvShape(height=16, width=16, channels=8, outputs=16, kernel=5),
    ConvShape(height=8, width=8, channels=16, outputs=32, kernel=5),
    ConvShape(height=16, width=16, channels=16, outputs=16, kernel=3),
]


@triton.jit
def tma_kernel(
    windows, bands, target_ptr, images_a_member,
    IMAGES: tl.constexpr, LINES: tl.constexpr, ACROSS: tl.constexpr, HEIGHT: tl.constexpr, PITCH: tl.constexpr,
    OUTPUTS: tl.constexpr, PIXELS: tl.constexpr, KERNEL: tl.constexpr, TOP: tl.constexpr, PADDED: tl.constexpr,
    COLUMNS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """IMAGES images, or LINES lines of one: windows [IMAGES * LINES * ACROSS, J] times their member's band."""
    parts = HEIGHT // LINES
    image = tl.program_id(0) // parts * IMAGES
    line = tl.program_id(0) % parts * LINES
    band = image // images_a_member * (KERNEL * PADDED)
    ROWS: tl.constexpr = IMAGES * LINES * ACROSS
    CHUNKS: tl.constexpr = PADDED // CHUNK
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in tl.range(0, KERNEL * CHUNKS, num_stages=STAGES):
        window = windows.load([image, line + step // CHUNKS - TOP, 0, step % CHUNKS * CHUNK])
        total = tl.dot(window.reshape(ROWS, CHUNK), bands.load([band + step * CHUNK, 0]), total)
    item, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    row = (image + item // (LINES * ACROSS)).to(tl.int64) * HEIGHT + line + item // ACROSS % LINES
    place = row * PITCH + item % ACROSS * (PIXELS * OUTPUTS)
    made = total.to(target_ptr.dtype.element_ty)
    tl.store(target_ptr + place[:, None] + column[None, :], made, mask=(column < PIXELS * OUTPUTS)[None, :])


def box(product: Product) -> tuple[int, int, int]:
    """Images, lines and super-pixels of a tile."""
    (height, width, _), rows = product.target, product.tiling.rows
    across = width // product.tiling.pixels
    lines = min(height, rows // across)
    return rows // (lines * across), lines, across


def constants(product: Product) -> dict[str, int]:
    images, lines, across = box(product)
    return {
        "IMAGES": images, "LINES": lines, "ACROSS": across, "HEIGHT": product.target[0],
        "PITCH": product.target[1] * product.target[2], "OUTPUTS": product.target[2],
        "PIXELS": product.tiling.pixels, "KERNEL": product.kernel, "TOP": product.top,
        "PADDED": product.padded_window, "COLUMNS": product.columns, "CHUNK": product.tiling.chunk,
        "STAGES": product.tiling.num_stages,
    }  # fmt: skip


def by_tma(x: torch.Tensor, band: torch.Tensor, y: torch.Tensor, product: Product, members: int):
    """A call that convolves as ``convolve`` does, after the band has been written."""
    images, lines, across = box(product)
    if len(x) // members % images:
        raise SystemExit(f"--batch {len(x) // members}: a tile has {images} images, all of one member")
    height, (pitch, channels) = len(x[0]), (x.stride(1), x.stride(2))
    windows = TensorDescriptor(
        x,
        [len(x), height, across, product.window_values],
        [x.stride(0), pitch, product.tiling.pixels * channels, 1],
        [images, lines, across, product.tiling.chunk],
    )
    flat = band.view(-1, product.columns)
    bands = TensorDescriptor(flat, list(flat.shape), [product.columns, 1], [product.tiling.chunk, product.columns])
    grid = (len(x) // images * (height // lines),)
    return lambda: tma_kernel[grid](
        windows, bands, y, len(x) // members, **constants(product), num_warps=product.tiling.num_warps
    )


def tried(shape: ConvShape, members: int, batch: int, device: str, dtype: torch.dtype) -> dict[str, object]:
    """Check, then time both ways if both make the same; the band is written by both."""
    torch.manual_seed(0)
    tiling = forward_tiling(shape, "bf16")
    product, margin = forward_product(shape, tiling), shape.kernel // 2
    count = members * batch
    x = torch.zeros(count, shape.height, shape.width + 2 * margin, shape.channels, device=device, dtype=dtype)
    x[:, :, margin:-margin] = torch.randn(x[:, :, margin:-margin].shape, device=device)
    w = torch.randn(members, shape.kernel, shape.kernel, shape.channels, shape.outputs, device=device)
    pack = Pack.of(list(range(0, count + 1, batch)), device)
    y, made = torch.zeros(2, count, shape.height, shape.width, shape.outputs, device=device, dtype=dtype)
    band = x.new_zeros(members, shape.kernel, product.padded_window, product.columns)
    band_grid = members, shape.kernel, triton.cdiv(product.padded_window, 16)
    multiply = by_tma(x, band, made, product, members)

    def pointers() -> None:
        conv.convolve(x, w, y, shape=shape, pack=pack, tiling=tiling)

    def boxes() -> None:
        conv.band_kernel[band_grid](w, band, w.stride(0), **conv._band_constants(product, False))
        multiply()

    pointers()
    boxes()
    error = off(made, y)
    found: dict[str, object] = {"error": error, "members": members, "batch": batch}
    # Not certain: where Triton takes windows to registers, it may change them before the product has read them
    # (https://github.com/triton-lang/triton/issues/9433).
    if error < 1e-3:
        found["pointers_seconds"], found["tma_seconds"] = seconds_of(pointers, device), seconds_of(boxes, device)
    return found


def compiled(shape: ConvShape) -> str:
    """Instructions of the kernel's assembler text for sm_90."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    product = forward_product(shape, forward_tiling(shape, "bf16"))
    blocks = *box(product), product.tiling.chunk
    signature = {
        "windows": f"tensordesc<bf16{list(blocks)}>".replace(" ", ""),
        "bands": f"tensordesc<bf16[{product.tiling.chunk},{product.columns}]>",
        "target_ptr": "*bf16",
        "images_a_member": "i32",
        **dict.fromkeys(constants(product), "constexpr"),
    }
    source = ASTSource(fn=tma_kernel, signature=signature, constexprs=constants(product))
    made = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": product.tiling.num_warps}
    )
    text = made.asm["ptx"]
    counts = {
        name: len(re.findall(pattern, text))
        for name, pattern in (
            ("TMA loads", r"cp\.async\.bulk\.tensor"),
            ("wgmma", r"wgmma\.mma_async"),
            ("mma", r"\bmma\.sync"),
            ("shared loads", r"\bld\.shared|ldmatrix"),
        )
    }
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--members", type=int, default=256)
    options.add_argument("--batch", type=int, default=64, help="images of a member: whole tiles")
    options.add_argument("--compile", action="store_true", help="only say what it compiles to")
    given = options.parse_args()
    for shape in SHAPES:
        name = f"k{shape.kernel} {shape.height}x{shape.width} {shape.channels}-{shape.outputs}"
        if given.compile:
            print(f"{name:20} {compiled(shape)}")
            continue
        dtype = torch.bfloat16 if given.device == "cuda" else torch.float32
        found = tried(shape, given.members, given.batch, given.device, dtype)
        line = f"{name:20} results within {found['error']:.0e}"
        if "tma_seconds" not in found:
            line = f"{name:20} WRONG: off by {found['error']:.1e}"
        elif given.device == "cuda":
            one, other = (middle(found[f"{way}_seconds"]) for way in ("pointers", "tma"))
            line += f", pointers {one * 1e6:8.1f} us, TMA {other * 1e6:8.1f} us: {one / other:5.2f} times as fast"
        print(line, flush=True)
        write(given.out, "tma", given.device, [{"shape": name, **found}])


if __name__ == "__main__":
    main()
