"""Weight files: one function that writes them, one class that reads them.

A shard is a safetensors file with one tensor ``weights`` [members, snapshots, D]: 8 bytes with the length of
the header (little-endian), the header (JSON), the numbers (little-endian, C order). All metadata stand as
sorted JSON under the single key ``wse``, because the order of several keys is not the same in every run:

    {"architecture": ..., "crc32": [...], "format": 1, "members": [ids], "snapshots": [valid ones of each row]}

``crc32`` has an entry for each valid snapshot of the first row, then of the second, and so on. A member that
has fewer snapshots than its shard is padded with NaN; padding has no crc32.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError, WseError
from ..files import atomic_write
from .format import Dtype, Record, ShardEntry, canonical_json
from .integrity import MENDING, DamagedError, loading, saving

Float32 = NDArray[np.float32]

_FORMAT = 1  # of shards; there is no other so far
_COPIED_BYTES = 8 * 2**20  # at once

_CODES: dict[Dtype, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_LARGEST_FLOAT16 = np.float32(np.finfo(np.float16).max)
# NumPy has no bfloat16: its bits travel as integers.
_STORED: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def stored_dtype(dtype: Dtype) -> np.dtype[Any]:
    """How NumPy sees the numbers of a file; bfloat16 as uint16."""
    return _STORED[_CODES[dtype]]


def known_dtype(name: str) -> Dtype:
    """The number format of that name.

    Raises:
        UsageError: weights cannot be stored in it.
    """
    known = next((dtype for dtype in _CODES if dtype == name), None)
    if known is None:
        raise UsageError(f"`dtype` (={name!r}) must be float32, float16 or bfloat16")
    return known


class _Metadata(Record, frozen=True, kw_only=True):
    format: int
    architecture: str
    members: tuple[int, ...]
    snapshots: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    # Flat: thousands of small lists would keep the garbage collector busy for longer than all else takes.
    crc32: tuple[Annotated[int, msgspec.Meta(ge=0, lt=2**32)], ...]


class _Tensor(Record, frozen=True, kw_only=True):
    dtype: str
    shape: tuple[int, int, int]
    data_offsets: tuple[int, int]


class _Header(Record, frozen=True, kw_only=True, rename={"metadata": "__metadata__"}):
    metadata: dict[str, str]
    weights: _Tensor


def write_shard(
    path: Path, weights: Sequence[Float32], *, architecture: str, members: Sequence[int], dtype: Dtype
) -> ShardEntry:
    """Write the weights of members of one architecture; the only function that writes weights.

    Every row is gone through twice (once for the checksums, which stand before the numbers, and once to be
    written), so ``weights`` may be a lazy sequence and only one row is in memory at a time.

    Args:
        path: the file to make.
        weights: for each member an array [snapshots, D] float32 with any strides; the number of snapshots may
            differ between members. An array [members, snapshots, D] is such a sequence.
        architecture: name of the architecture of all members.
        members: ids, in the order of ``weights``.
        dtype: number format in the file. float16 and bfloat16 are rounded to nearest, ties to even. What is too
            large for float16 becomes the largest number there is, so that finite weights stay finite; infinite
            ones stay infinite, and NaN stays NaN.

    Returns:
        What to record of the file.

    Raises:
        ValueError: there are no members, their number differs from that of the weights, or an array has the
            wrong shape or dtype.
        WseError: the file cannot be written.
    """
    if not members or len(members) != len(weights):
        raise ValueError(f"{len(members)} member ids for {len(weights)} rows of weights")
    counts: list[int] = []
    crcs: list[int] = []
    sizes: set[int] = set()
    for member, row in zip(members, weights, strict=True):
        if row.ndim != 2 or row.dtype != np.float32:
            raise ValueError(f"weights of member {member} are {row.dtype} {list(row.shape)}, not float32 [s, D]")
        sizes.add(row.shape[1])
        counts.append(len(row))
        crcs += [zlib.crc32(snapshot) for snapshot in _encode(row, dtype)]
    if len(sizes) != 1:
        raise ValueError(f"weights of one shard have different lengths: {sorted(sizes)}")
    shape = (len(members), max(counts), sizes.pop())
    metadata = _Metadata(
        format=_FORMAT,
        architecture=architecture,
        members=tuple(members),
        snapshots=tuple(counts),
        crc32=tuple(crcs),
    )
    header = _header_bytes(shape, dtype, metadata)
    digest = hashlib.sha256()
    total = 0
    with saving(path), atomic_write(path) as file:
        for block in _blocks(header, weights, shape, dtype):
            file.write(block)
            digest.update(block)
            total += memoryview(block).nbytes
    return ShardEntry(
        file=path.name,
        architecture=architecture,
        members=shape[0],
        snapshots=shape[1],
        bytes=total,
        sha256=digest.hexdigest(),
    )


def copy_shard(
    source: Path, entry: ShardEntry, target: Path, ids: Mapping[int, int], copied: Callable[[int], None]
) -> ShardEntry:
    """Copy a weight file and give its members other ids; the weights and their checksums stay as they are.

    Args:
        source: the file.
        entry: what was recorded of it; it is checked on the way.
        target: the file to make.
        ids: for each member its id in the copy.
        copied: told how many bytes were written, block by block.

    Returns:
        What to record of the copy.

    Raises:
        WseError: the file is missing or damaged, or the copy cannot be written; then there is none.
    """
    header, start = _read_header(source)
    metadata = _metadata_of(source, header)
    if not ids.keys() >= set(metadata.members):
        raise DamagedError(source, "it has members that the table of the zoo lacks")
    members = tuple(ids[member] for member in metadata.members)
    dtype = next(name for name, code in _CODES.items() if code == header.weights.dtype)
    head = _header_bytes(header.weights.shape, dtype, msgspec.structs.replace(metadata, members=members))
    before, after, total = hashlib.sha256(), hashlib.sha256(head), len(head)
    with saving(target), atomic_write(target) as file:
        file.write(head)
        blocks = _read_blocks(source, start)
        before.update(next(blocks))
        for block in blocks:
            before.update(block)
            after.update(block)
            file.write(block)
            total += len(block)
            copied(len(block))
        if before.hexdigest() != entry.sha256:
            raise DamagedError(source, "its content does not match its sha256")
    return ShardEntry(
        file=target.name,
        architecture=metadata.architecture,
        members=header.weights.shape[0],
        snapshots=header.weights.shape[1],
        bytes=total,
        sha256=after.hexdigest(),
    )


class Shard:
    """A weight file opened for reading; nothing but the header is read until numbers are asked for.

    Args:
        path: the file.
        verified: [members, snapshots] bool, which snapshots have been checked before; it is kept up to date.
            Given by who opens the same file again.

    Attributes:
        architecture: name of the architecture.
        members: ids, one a row.
        snapshots: the number of valid snapshots of each row.
        shape: (members, snapshots, D).
        dtype: number format in the file.
        bytes: size of the file.
        verified: see above.

    Raises:
        WseError: the file is missing or damaged.
    """

    def __init__(self, path: Path, verified: NDArray[np.bool_] | None = None) -> None:
        self.path = path
        header, start = _read_header(path)
        metadata = _metadata_of(path, header)
        code = header.weights.dtype
        self.architecture = metadata.architecture
        self.members = metadata.members
        self.snapshots = metadata.snapshots
        self.shape = header.weights.shape
        self.dtype: Dtype = next(name for name, known in _CODES.items() if known == code)
        self.verified = np.zeros(self.shape[:2], np.bool_) if verified is None else verified
        self._crc32 = metadata.crc32
        self._first_crc32 = (0, *accumulate(metadata.snapshots))
        with loading(path):
            # np.asarray: slicing a plain array is several times faster than slicing a memmap.
            content = np.asarray(np.memmap(path, np.uint8, mode="r"))
        self.bytes = len(content)
        self._start, self._numbers = start, content[start:].view(_STORED[code]).reshape(self.shape)

    def read(self, row: int, snapshot: int, start: int = 0, stop: int | None = None) -> Float32:
        """Consecutive values of one snapshot.

        Args:
            row: of the shard.
            snapshot: 0 to the number of valid snapshots of the row, less 1.
            start: first value.
            stop: one past the last value; the end when None.

        Returns:
            [stop - start] float32; for a float32 shard a read-only view of the file.

        Raises:
            IndexError: there is no such row, snapshot or range.
            WseError: the snapshot is damaged.
        """
        stop = self.shape[2] if stop is None else stop
        if not 0 <= start <= stop <= self.shape[2]:
            raise IndexError(f"values {start}:{stop} are not within 0:{self.shape[2]}")
        return _decode(self.stored(row, snapshot)[start:stop], self.dtype)

    def stored(self, row: int, snapshot: int) -> NDArray[Any]:
        """One snapshot as it stands in the file, a read-only view [D]; bfloat16 as uint16.

        The first touch of a snapshot reads all of it to check its crc32.

        Raises:
            IndexError: there is no such row or snapshot.
            WseError: the snapshot is damaged.
        """
        if not (0 <= row < self.shape[0] and 0 <= snapshot < self.snapshots[row]):
            raise IndexError(f"{self.path.name} has no row {row} with a snapshot {snapshot}")
        stored = self._numbers[row, snapshot]
        if not self.verified[row, snapshot]:
            if zlib.crc32(stored) != self._crc32[self._first_crc32[row] + snapshot]:
                where = f"snapshot {snapshot} of member {self.members[row]}"
                raise DamagedError(self.path, f"{where} does not match its crc32")
            self.verified[row, snapshot] = True
        return stored  # type: ignore[no-any-return]

    def offset(self, row: int, snapshot: int) -> int:
        """Where a snapshot begins in the file, in bytes."""
        return self._start + (row * self.shape[1] + snapshot) * self._numbers.strides[1]


def _blocks(
    header: bytes, weights: Sequence[Float32], shape: tuple[int, int, int], dtype: Dtype
) -> Iterable[bytes | memoryview]:
    yield header
    for row in weights:
        yield _encode(row, dtype).data
        yield _encode(np.full((shape[1] - len(row), shape[2]), np.nan, np.float32), dtype).data


def _read_blocks(path: Path, start: int) -> Iterator[bytes]:
    """The content of a file: its first bytes, then the rest."""
    with loading(path), path.open("rb") as file:
        yield file.read(start)
        while block := file.read(_COPIED_BYTES):
            yield block


def _encode(values: Float32, dtype: Dtype) -> NDArray[Any]:
    """The numbers as they are stored; contiguous whatever the strides, because strides are lost in a file."""
    stored = stored_dtype(dtype)
    if dtype == "float32":
        return np.ascontiguousarray(values, stored)
    if dtype == "float16":
        held = np.where(np.isinf(values), values, np.clip(values, -_LARGEST_FLOAT16, _LARGEST_FLOAT16))
        return np.ascontiguousarray(held.astype(stored))
    bits = np.ascontiguousarray(values).view(np.uint32)
    # Adding just under half of the last kept place, and that place itself, rounds ties to even.
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    quiet_nan = (bits >> 16) | np.uint32(0x0040)
    return np.where(np.isnan(values), quiet_nan, rounded).astype(stored)


def _decode(stored: NDArray[Any], dtype: Dtype) -> Float32:
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def _header_bytes(shape: tuple[int, int, int], dtype: Dtype, metadata: _Metadata) -> bytes:
    code = _CODES[dtype]
    header = _Header(
        metadata={"wse": canonical_json(metadata).decode()},
        weights=_Tensor(
            dtype=code, shape=shape, data_offsets=(0, math.prod(shape) * stored_dtype(dtype).itemsize)
        ),
    )
    text = canonical_json(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _read_header(path: Path) -> tuple[_Header, int]:
    """The header, and where the numbers start; every length is checked against the file before it is used."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            start = 8 + length
            if size < 8 or start > size:
                raise DamagedError(path, f"a header of {length:,} bytes does not fit into {size:,} bytes")
            text = file.read(length)
    except FileNotFoundError:
        raise WseError(f"{path} is missing; {MENDING}") from None
    except OSError as error:
        raise WseError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        header = msgspec.json.decode(text, type=_Header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(path, f"its header cannot be read ({error})") from error
    tensor = header.weights
    if tensor.dtype not in _STORED or min(tensor.shape) < 0:
        raise DamagedError(path, f"it holds {tensor.dtype} {list(tensor.shape)}")
    stored = math.prod(tensor.shape) * _STORED[tensor.dtype].itemsize
    if tensor.data_offsets != (0, stored) or start + stored != size:
        raise DamagedError(path, f"it has {size:,} bytes instead of {start + stored:,}")
    return header, start


def _metadata_of(path: Path, header: _Header) -> _Metadata:
    try:
        metadata = msgspec.json.decode(header.metadata.get("wse", ""), type=_Metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(path, f"its metadata cannot be read ({error})") from error
    if metadata.format > _FORMAT:
        raise WseError(f"{path} has format {metadata.format}: update wse, and read it again")
    members, snapshots, _ = header.weights.shape
    lengths = len(metadata.members), len(metadata.snapshots), len(metadata.crc32)
    if lengths != (members, members, sum(metadata.snapshots)) or max(metadata.snapshots, default=0) > snapshots:
        raise DamagedError(path, "its metadata do not fit its shape")
    return metadata
