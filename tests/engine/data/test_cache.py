from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wse.engine import files
from wse.engine.data import ImageSet, cache, load
from wse.engine.data.resize import to_rgb32
from wse.engine.errors import WseError

STUDY = ("mnist", "cifar10", "svhn", "stl10", "fashion-mnist")


def cached_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "images").iterdir())


def no_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(cache, "_write", refuse)


def identity(images: ImageSet) -> str:
    """The documented sha256, written out anew."""
    digest = hashlib.sha256()
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        array = getattr(images, part)
        digest.update(f"{part} {','.join(map(str, array.shape))}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", STUDY)
def test_loads_what_was_written(tmp_path, make, name):
    written = make.any(tmp_path, name)
    images = load(name, data_dir=tmp_path)
    assert (images.name, images.n_classes) == (name, 10)
    for part, array, labels in (
        (written.train, images.train_images, images.train_labels),
        (written.test, images.test_images, images.test_labels),
    ):
        assert array.dtype == labels.dtype == np.uint8
        assert np.array_equal(array, to_rgb32(part.images))
        assert np.array_equal(labels, part.labels)
        for stored in (array, labels):
            assert isinstance(stored, np.memmap)
            assert not stored.flags.writeable
    assert images.sha256 == identity(images)


@pytest.mark.parametrize("name", ["cifar10", "stl10"])
def test_archive_and_unpacked_folder_are_the_same_set(tmp_path, make, name):
    make.archive(tmp_path / "a", name)
    make.archive(tmp_path / "b", name, unpacked=True)
    assert load(name, data_dir=tmp_path / "a").sha256 == load(name, data_dir=tmp_path / "b").sha256


def test_sets_of_more_than_one_chunk(tmp_path, make, monkeypatch):
    make.mnist(tmp_path)
    whole = load("mnist", data_dir=tmp_path)
    monkeypatch.setattr(cache, "_CHUNK_IMAGES", 5)
    monkeypatch.setenv("WSE_CACHE", str(tmp_path / "other"))
    in_chunks = load("mnist", data_dir=tmp_path)
    assert in_chunks.sha256 == whole.sha256
    assert np.array_equal(in_chunks.train_images, whole.train_images)


def test_converted_once(tmp_path, make, monkeypatch):
    make.mnist(tmp_path)
    first = load("mnist", data_dir=tmp_path)
    no_conversion(monkeypatch)
    again = load("mnist", data_dir=tmp_path)
    assert again.sha256 == first.sha256
    assert np.array_equal(again.test_images, first.test_images)
    assert len(cached_files(tmp_path)) == 1


def test_changed_sources_are_converted_again(tmp_path, make):
    make.mnist(tmp_path, compress=False)
    before = load("mnist", data_dir=tmp_path)
    pixels = tmp_path / "mnist/train-images-idx3-ubyte"
    content = bytearray(pixels.read_bytes())
    content[16 + 28 * 14 + 14] ^= 0xFF  # same size; only the time of change tells
    pixels.write_bytes(content)
    stat = pixels.stat()
    os.utime(pixels, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    after = load("mnist", data_dir=tmp_path)
    assert after.sha256 != before.sha256
    assert not np.array_equal(after.train_images[0], before.train_images[0])


def test_another_format_version_is_converted_again(tmp_path, make, monkeypatch):
    make.mnist(tmp_path)
    load("mnist", data_dir=tmp_path)
    monkeypatch.setattr(cache, "FORMAT", "wse-images-next")
    load("mnist", data_dir=tmp_path)
    assert len(cached_files(tmp_path)) == 2


def header_with(**changes: object):
    def damage(content: bytes) -> bytes:
        header = json.loads(content[:4096]) | changes
        return json.dumps(header).encode().ljust(4096) + content[4096:]

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:4096],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: bytes(4096) + content[4096:],
        lambda content: b"[1]".ljust(4096) + content[4096:],
        header_with(name="svhn"),
        header_with(format="other"),
        header_with(train=-1),
        header_with(train="23"),
        header_with(sha256=None),
    ],
)
def test_damaged_cache_is_rebuilt(tmp_path, make, damage):
    make.mnist(tmp_path)
    before = load("mnist", data_dir=tmp_path)
    (path,) = cached_files(tmp_path)
    good = path.read_bytes()
    path.write_bytes(damage(good))
    after = load("mnist", data_dir=tmp_path)
    assert path.read_bytes() == good
    assert after.sha256 == before.sha256 == identity(after)


def test_missing_class_is_named(tmp_path, make):
    written = make.mnist(tmp_path, compress=False)
    labels = written.train.labels.copy()
    labels[(labels == 3) | (labels == 7)] = 0
    (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(make.idx(labels))
    with pytest.raises(
        WseError, match=r"/mnist: fewer than two training images of class 3, 7: put the original there, or remove"
    ):
        load("mnist", data_dir=tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "mnist/t10k-images-idx3-ubyte.gz"),
        ("cifar10", "cifar10/cifar-10-binary.tar.gz"),
        ("svhn", "svhn/test_32x32.mat"),
        ("stl10", "stl10/stl10_binary.tar.gz"),
    ],
)
def test_truncated_source_is_named_and_leaves_nothing(tmp_path, make, name, file):
    make.any(tmp_path, name)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WseError) as caught:
        load(name, data_dir=tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(
        f": put the original there, or remove that and get it by `wse data fetch {name}`"
    )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "member"),
    [("cifar10", "cifar-10-batches-bin/data_batch_4.bin"), ("stl10", "stl10_binary/train_y.bin")],
)
@pytest.mark.parametrize("unpacked", [False, True])
def test_bad_member_is_named(tmp_path, make, name, member, unpacked):
    members = (make.cifar10_members if name == "cifar10" else make.stl10_members)()[0]
    members[member] = b"\xff" + members[member][1:]
    if unpacked:
        make.archive(tmp_path, name, unpacked=True)
        (tmp_path / name / member).write_bytes(members[member])
    else:
        written = make.archive(tmp_path, name)
        (archive,) = (written.folder / name).iterdir()
        archive.write_bytes(make.tar_gz(members))
    with pytest.raises(WseError, match=rf"{member}: label 255 of image 0 is not in"):
        load(name, data_dir=tmp_path)


def test_cache_that_cannot_be_made(tmp_path, make, monkeypatch):
    written = make.mnist(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("WSE_CACHE", str(tmp_path / "file" / "below"))
    told = r"images of mnist cannot be kept in .*/file/below/images \(Not a directory\).*: set WSE_CACHE"
    with pytest.warns(UserWarning, match=told) as warned:
        images = load("mnist", data_dir=tmp_path)
    assert len(warned) == 1
    assert np.array_equal(images.train_images, to_rgb32(written.train.images))
    assert np.array_equal(images.test_labels, written.test.labels)
    assert images.sha256 == identity(images)
    with pytest.raises(ValueError, match="read-only"):
        images.test_labels[0] = 0


def test_full_disk(tmp_path, make, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    make.mnist(tmp_path)
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.warns(UserWarning, match=r"cannot be kept in .* \(No space left on device\)"):
        images = load("mnist", data_dir=tmp_path)
    assert images.sha256 == identity(images)
    assert cached_files(tmp_path) == []


def test_two_processes_at_once(tmp_path, make):
    make.archive(tmp_path, "stl10")
    code = "import sys; from wse.engine.data import load; print(load('stl10', data_dir=sys.argv[1]).sha256)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert answers == {load("stl10", data_dir=tmp_path).sha256}
    assert len(cached_files(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("mnist", "d6a1f37339bab9b580b7ccabea9279c945e81aea11bc129e9d81520cb387b938"),
        ("fashion-mnist", "2d89a8689ed5214653731dc35f043059cd00f22f530b719c573e0b8dcba9ce65"),
    ],
)
def test_real_sets(real_data, monkeypatch, name, sha256):
    folder = real_data(name)
    images = load(name, data_dir=folder)
    assert images.train_images.shape == (60000, 32, 32, 3)
    assert images.test_images.shape == (10000, 32, 32, 3)
    histograms = {
        "mnist": (
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        ),
        "fashion-mnist": ([6000] * 10, [1000] * 10),
    }
    train, test = histograms[name]
    assert np.bincount(images.train_labels).tolist() == train
    assert np.bincount(images.test_labels).tolist() == test
    # The identity zoos record: when it changes, `FORMAT` and the changelog have to say so.
    assert images.sha256 == sha256
    no_conversion(monkeypatch)
    start = time.perf_counter()
    load(name, data_dir=folder)
    assert time.perf_counter() - start < 0.1
