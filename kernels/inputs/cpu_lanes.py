"""Images side by side in lanes: what a vector register of V images needs, transposed in registers.

Written as LLVM vector code, because numba's own loops copy one value at a time here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

PIXELS = 16  # of a row, transposed at a time

Values = npt.NDArray[Any]
Offsets = npt.NDArray[np.int64]


def _transposer(V: int, channels: int) -> Callable[[Values, int, int, Values, Offsets, int], None]:
    """Makes ``transpose(out, start, stride, source, offsets, at)`` for V images of interleaved channels.

    Value c of pixel x, for x < PIXELS, of the image at ``offsets[lane]`` goes from
    ``source[offsets[lane] + at + x * channels + c]`` to ``out[start + c * stride + x * V + lane]``; the arrays are
    contiguous, of one type, and are counted in values from their beginning, whatever their shape.
    """

    def zipped(builder: ir.IRBuilder, one: ir.Value, other: ir.Value, first: int) -> ir.Value:
        """From place ``first`` on, a value of one, then one of the other: half of what there is of both."""
        places = [place for x in range(first, first + PIXELS // 2) for place in (x, PIXELS + x)]
        return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), PIXELS), places))

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        out, start, stride, source, offsets, at = arguments
        out_data, source_data, offsets_data = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(
                (signature.args[0], signature.args[3], signature.args[4]), (out, source, offsets), strict=True
            )
        )
        value_type = context.get_data_type(signature.args[0].dtype)
        size_bytes = context.get_abi_sizeof(value_type)
        vector, group = ir.VectorType(value_type, PIXELS), ir.VectorType(value_type, V)

        def address(data: ir.Value, index: ir.Value, kind: ir.Type) -> ir.Value:
            return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())

        images = [
            builder.add(builder.load(builder.gep(offsets_data, [context.get_constant(types.intp, lane)])), at)
            for lane in range(V)
        ]
        for piece in range(channels):
            skip = context.get_constant(types.intp, piece * PIXELS)
            lanes = [
                builder.load(address(source_data, builder.add(image, skip), vector), align=size_bytes)
                for image in images
            ]
            # Zipping the first half of the vectors with the second, log2(V) times, puts the V lanes of a value
            # side by side (Stone's perfect shuffle).
            for _ in range(V.bit_length() - 1):
                lanes = [
                    zipped(builder, one, other, first)
                    for one, other in zip(lanes[: V // 2], lanes[V // 2 :], strict=True)
                    for first in (0, PIXELS // 2)
                ]
            for place in range(PIXELS):
                pixel, channel = divmod(piece * PIXELS + place, channels)
                which, first = divmod(place * V, PIXELS)
                picked = ir.Constant(ir.VectorType(ir.IntType(32), V), list(range(first, first + V)))
                values = builder.shuffle_vector(lanes[which], lanes[which], picked)
                index = builder.add(start, context.get_constant(types.intp, pixel * V))
                index = builder.add(index, builder.mul(stride, context.get_constant(types.intp, channel)))
                builder.store(values, address(out_data, index, group), align=size_bytes)
        return context.get_dummy_value()

    @intrinsic
    def transpose(_: Any, out: Any, start: Any, stride: Any, source: Any, offsets: Any, at: Any) -> Any:
        return types.void(out, types.intp, types.intp, source, offsets, types.intp), code

    return transpose


_colour_4, _colour_8, _colour_16 = (_transposer(V, 3) for V in (4, 8, 16))
_plane_4, _plane_8, _plane_16 = (_transposer(V, 1) for V in (4, 8, 16))


@njit(nogil=True, error_model="numpy")
def colour_row_to_lanes(
    out: npt.NDArray[np.uint8], images: npt.NDArray[np.uint8], offsets: Offsets, row: int, V: int
) -> None:
    """One row of V images: bytes [W][3] of each to [3][W][V].

    Args:
        out: uint8 [3 * W * V], written.
        images: uint8 [n, H, W, 3], W a multiple of 16.
        offsets: int64 [V], where each image begins in ``images``, in bytes.
        row: which row.
        V: images: 4, 8 or 16.
    """
    width = images.shape[2]
    for x in range(0, width, PIXELS):
        start, at = x * V, (row * width + x) * 3
        if V == 16:
            _colour_16(out, start, width * V, images, offsets, at)
        elif V == 8:
            _colour_8(out, start, width * V, images, offsets, at)
        else:
            _colour_4(out, start, width * V, images, offsets, at)


@njit(nogil=True, error_model="numpy")
def plane_row_to_lanes(
    out: Values,
    start: int,
    planes: Values,
    offsets: Offsets,
    first: int,
    width: int,
    V: int,
) -> None:
    """One row of one channel of V images: [W] of each to [W][V].

    Args:
        out: float32 or uint8, any length; W * V values from ``start`` on are written.
        start: index into ``out``.
        planes: of the same type, any shape.
        offsets: int64 [V], where each image begins in ``planes``, in values.
        first: where the row begins in an image, in values.
        width: W, a multiple of 16.
        V: images: 4, 8 or 16.
    """
    for x in range(0, width, PIXELS):
        if V == 16:
            _plane_16(out, start + x * V, 0, planes, offsets, first + x)
        elif V == 8:
            _plane_8(out, start + x * V, 0, planes, offsets, first + x)
        else:
            _plane_4(out, start + x * V, 0, planes, offsets, first + x)
