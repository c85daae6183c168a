"""Bandwidth of the slicing kernels on weights that lie in a GPU's memory, beside a copy and plain indexing.

    python benchmarks/gpu_slices.py [--gigabytes 4] [--out FILE]

Random vectors of nws-fixed (D = 92,868) as float32 and as bfloat16; a batch takes a slice of each vector at a
random place. Checked against plain indexing first. Bytes are those read of the vectors and written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gpu_timing import middle, off, parser, seconds_of, write
from torch import Tensor

from wse.engine.nets import Layout
from wse.engine.space import Space
from wse.kernels.slices.runs import EPSILON, Runs
from wse.kernels.slices.triton import Table, gather


def vectors(count: int, size: int, dtype: torch.dtype, device: str) -> Tensor:
    made = torch.empty(count, size, device=device, dtype=dtype)
    for vector in made:
        vector.normal_()
    return made


def indexed(values: Tensor, places: Tensor, length: int) -> Tensor:
    """What a user would write."""
    index = places[:, None] + torch.arange(length, device=places.device)
    return values.gather(1, index).float()


def standardised(values: Tensor, places: Tensor, length: int) -> Tensor:
    made = indexed(values, places, length)
    variance, mean = torch.var_mean(made, dim=1, correction=0, keepdim=True)
    return (made - mean) * torch.rsqrt(variance + EPSILON)


def asked(values: Tensor, length: int, copied: float) -> Iterator[dict[str, Any]]:
    """A row for slices as they are and one for standardised ones."""
    (count, size), device = values.shape, values.device
    table = Table.of(Runs(begin=np.array([0, size]), source=np.array([0])), device)
    offsets = torch.arange(count, device=device) * size
    places = torch.randint(0, size - length, (count,), device=device)
    counts = torch.full((count,), length, device=device)
    out = torch.empty(count, length, device=device)
    flat = values.view(-1)
    for how, user in (("none", indexed), ("slice", standardised)):

        def ours(how: Any = how) -> Tensor:
            return gather(flat, offsets, places, counts, length, table, normalize=how, out=out)

        error = off(ours(), user(values, places, length))
        if not error < 1e-5:
            raise SystemExit(f"slices of {length} ({how}, {values.dtype}) differ by {error:.1e}: nothing is timed")
        yield {
            "dtype": str(values.dtype),
            "length": length,
            "normalize": how,
            "slices": count,
            "bytes": count * length * (values.element_size() + 4),
            "error": error,
            "seconds": seconds_of(ours, device.type),
            "indexing_seconds": seconds_of(lambda user=user: user(values, places, length), device.type),
            "copy_bytes_per_second": copied,
        }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--gigabytes", type=float, default=4.0, help="of vectors: far more than the cache holds")
    options.add_argument("--lengths", type=int, nargs="+", default=[500, 5000, 20000])
    given = options.parse_args()
    (member,) = Space.load(preset="nws-fixed").members(0, range(1))
    size, rows = Layout(member.architecture).size, []
    for dtype in (torch.float32, torch.bfloat16):
        values = vectors(max(int(given.gigabytes * 1e9 / (size * dtype.itemsize)), 2), size, dtype, given.device)
        target = torch.empty_like(values)
        spent = middle(seconds_of(lambda target=target, values=values: target.copy_(values), given.device))
        copied = 2 * values.nbytes / spent
        del target
        for length in given.lengths:
            for row in asked(values, length, copied):
                line = f"{str(dtype)[6:]:8} {len(values):7,} slices of {length:6,}, by {row['normalize']:5}"
                if given.device == "cuda":
                    rate = row["bytes"] / middle(row["seconds"])
                    line += f" {rate / 1e9:8.1f} GB/s, {rate / copied:6.1%} of a copy, "
                    line += f"{middle(row['indexing_seconds']) / middle(row['seconds']):6.2f} times PyTorch"
                print(f"{line}  within {row['error']:.0e}", flush=True)
                rows.append(row)
    write(given.out, "slices", given.device, rows)


if __name__ == "__main__":
    main()
