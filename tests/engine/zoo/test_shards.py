from __future__ import annotations

import errno
import json
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from wse.engine.errors import WseError
from wse.engine.zoo import Shard, ShardEntry, write_shard

from ...zoos import flip_bit

DTYPES = ("float32", "float16", "bfloat16")
SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, -65519.0, 65519.0, 1.0], np.float32)


def random_weights(members: int, snapshots: int, size: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((members, snapshots, size)).astype(np.float32)
    values[..., : len(SPECIAL)] = SPECIAL[:size]
    return values


def write(path: Path, weights, dtype="float32") -> ShardEntry:
    members = range(10, 10 + len(weights))
    return write_shard(path, weights, architecture="net", members=members, dtype=dtype)


def read_all(path: Path) -> np.ndarray:
    shard = Shard(path)
    return np.array([[shard.read(r, s) for s in range(shard.shape[1])] for r in range(shard.shape[0])])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 7), (2, 5, 1001)], ids=str)
def test_round_trip_as_torch_rounds(tmp_path: Path, dtype: str, shape: tuple[int, int, int]) -> None:
    weights = random_weights(*shape)
    write(tmp_path / "a.safetensors", weights, dtype)
    expected = torch.from_numpy(weights).to(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(read_all(tmp_path / "a.safetensors"), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_finite_stays_finite(tmp_path: Path, dtype: str) -> None:
    weights = np.array([65504.0, 65519.9, 65520.0, -65520.0, 1e6, -3e38, 3e38], np.float32)
    write(tmp_path / "a.safetensors", weights[None, None], dtype)
    found = Shard(tmp_path / "a.safetensors").read(0, 0)
    assert np.isfinite(found).all()
    assert (np.sign(found) == np.sign(weights)).all()
    assert (np.abs(found) >= 65504).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_safetensors_reads_the_same(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.safetensors"
    write(path, random_weights(3, 2, 33), dtype)
    loaded = safetensors.torch.load_file(path)["weights"]
    assert loaded.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(loaded.float().numpy(), read_all(path))
    if dtype != "bfloat16":
        np.testing.assert_array_equal(safetensors.numpy.load_file(path)["weights"], read_all(path))
    with safetensors.safe_open(path, "np") as file:
        assert list(file.metadata()) == ["wse"]
        assert json.loads(file.metadata()["wse"])["members"] == [10, 11, 12]


def test_bfloat16_rounds_ties_to_even_and_keeps_every_nan(tmp_path: Path) -> None:
    high = np.arange(2**16, dtype=np.uint32) << 16
    bits = np.concatenate([high | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    values = bits.astype(np.uint32).view(np.float32)
    write(tmp_path / "a.safetensors", values[None, None], "bfloat16")
    found = Shard(tmp_path / "a.safetensors").read(0, 0)
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(values).sum() == np.isnan(found).sum() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "strided",
    [
        lambda w: w[:, :, ::2],
        lambda w: w[::-1],
        lambda w: w.transpose(2, 1, 0),
        lambda w: np.broadcast_to(w[:, :1], w.shape),
        lambda w: np.asfortranarray(w),
        lambda w: [row[::-1, ::3] for row in w],
    ],
    ids=["step", "reversed", "transposed", "broadcast", "fortran", "rows"],
)
def test_strided_input(tmp_path: Path, strided, dtype: str) -> None:
    weights = strided(random_weights(4, 3, 12))
    plain = np.array([np.array(row, order="C") for row in weights])
    first = write(tmp_path / "a.safetensors", weights, dtype)
    second = write(tmp_path / "b.safetensors", plain, dtype)
    assert first.sha256 == second.sha256
    expected = torch.from_numpy(plain).to(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(read_all(tmp_path / "a.safetensors"), expected)


def test_fewer_snapshots_are_padded_with_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights = random_weights(3, 4, 6)
    entry = write(path, [weights[0][:1], weights[1], weights[2][:0]])
    shard = Shard(path)
    assert (entry.members, entry.snapshots) == (3, 4)
    assert shard.snapshots == (1, 4, 0)
    assert np.isnan(safetensors.numpy.load_file(path)["weights"][0, 1:]).all()
    for row, snapshot in ((0, 1), (2, 0), (3, 0), (1, 4), (1, -1), (-1, 0)):
        with pytest.raises(IndexError):
            shard.read(row, snapshot)
    for start, stop in ((-1, 3), (4, 3), (0, 7)):
        with pytest.raises(IndexError):
            shard.read(0, 0, start, stop)


def test_no_snapshot_at_all(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", [np.empty((0, 5), np.float32)])
    assert Shard(tmp_path / "a.safetensors").shape == (1, 0, 5)


def test_entry_tells_the_truth(tmp_path: Path) -> None:
    import hashlib

    entry = write(tmp_path / "a.safetensors", random_weights(2, 2, 3))
    content = (tmp_path / "a.safetensors").read_bytes()
    assert (entry.bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert entry.file == "a.safetensors"


def test_reading_is_a_view_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", random_weights(2, 2, 30))
    values = Shard(tmp_path / "a.safetensors").read(1, 1, 4, 9)
    assert not values.flags.owndata
    assert not values.flags.writeable


@pytest.mark.parametrize(
    ("weights", "members"),
    [
        (np.zeros((2, 1, 3), np.float64), [0, 1]),
        (np.zeros((2, 3), np.float32), [0, 1]),
        (np.zeros((2, 1, 3), np.float32), [0]),
        (np.zeros((0, 1, 3), np.float32), []),
        ([np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32)], [0, 1]),
    ],
    ids=["dtype", "dimensions", "ids", "empty", "lengths"],
)
def test_wrong_input_is_refused(tmp_path: Path, weights, members: list[int]) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="weights"):
        write_shard(path, weights, architecture="net", members=members, dtype="float32")
    assert not list(tmp_path.iterdir())


def test_first_touch_checks_the_whole_snapshot_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.safetensors", random_weights(2, 2, 30))
    shard = Shard(tmp_path / "a.safetensors")
    checked = []
    monkeypatch.setattr("zlib.crc32", lambda data, crc32=zlib.crc32: checked.append(len(data)) or crc32(data))
    for start in range(3):
        shard.read(1, 0, start, start + 2)
    assert checked == [30]
    Shard(tmp_path / "a.safetensors", shard.verified).read(1, 0)
    assert checked == [30]


@pytest.mark.parametrize("dtype", DTYPES)
def test_flipped_bits_are_refused(tmp_path: Path, dtype: str) -> None:
    """Of a flip in the header at least what is read is right; all of it is covered by the sha256."""
    path = tmp_path / "a.safetensors"
    write(path, random_weights(2, 2, 9), dtype)
    content, expected = path.read_bytes(), read_all(path)
    header = 8 + int.from_bytes(content[:8], "little")
    for position in range(len(content)):
        flip_bit(path, position, position % 8)
        try:
            found = read_all(path)
        except WseError as error:
            told = str(error)
            assert str(path) in told
            assert "\n" not in told
            if position >= header:
                index = (position - header) * 4 // (len(content) - header)
                member, snapshot = 10 + index // 2, index % 2
                assert f"snapshot {snapshot} of member {member} does not match its crc32" in told
        else:
            assert position < header
            np.testing.assert_array_equal(found, expected)
        path.write_bytes(content)


def test_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, random_weights(2, 2, 3))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(WseError, match=r"a\.safetensors is damaged"):
            Shard(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(WseError, match=r"a\.safetensors is damaged"):
        Shard(path)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 10**4])
def test_absurd_header_length(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" * 50)
    with pytest.raises(WseError, match="does not fit into 108 bytes"):
        Shard(path)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "I64"},
        {"shape": [2, 2, -3]},
        {"shape": [2**62, 2**62, 2**62]},
        {"shape": [12]},
        {"shape": [3, 2, 2]},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": [4, 52]},
        {"extra": 1},
    ],
    ids=str,
)
def test_header_that_lies(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "a.safetensors"
    write(path, random_weights(2, 2, 3))
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["weights"].update(change)
    text = msgspec.json.encode(header)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])
    with pytest.raises(WseError, match=r"a\.safetensors is damaged"):
        Shard(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WseError, match=r"a\.safetensors is missing"):
        Shard(tmp_path / "a.safetensors")


def test_full_disk_names_file_and_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WseError, match=r"cannot write .*a\.safetensors: No space left on device"):
        write(tmp_path / "a.safetensors", random_weights(1, 1, 3))
    assert not list(tmp_path.iterdir())
