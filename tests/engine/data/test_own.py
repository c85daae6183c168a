"""Image sets of the user's own."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wse.engine.data import available, cache, known_names, load, locate, status
from wse.engine.data.resize import to_rgb32
from wse.engine.data.search import require, source_of
from wse.engine.errors import UsageError, WseError


def arrays(**changes: Any) -> dict[str, Any]:
    """Of 30 and 6 images of three classes, by name; None leaves one out."""
    rng = np.random.default_rng(0)
    made = {
        "x_train": rng.integers(0, 256, (30, 20, 24, 3), np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": rng.integers(0, 256, (6, 20, 24, 3), np.uint8),
        "y_test": np.arange(6) % 3,
        **changes,
    }
    return {name: array for name, array in made.items() if array is not None}


def test_a_set_is_named_by_its_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "leaves.npz", **arrays())
    images = load("leaves", data_dir=tmp_path)
    assert (images.name, images.n_classes) == ("leaves", 3)
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(images, f"{part}_images"), to_rgb32(arrays()[f"x_{part}"]))
        np.testing.assert_array_equal(getattr(images, f"{part}_labels"), arrays()[f"y_{part}"])
    assert known_names(tmp_path)[-1] == available(tmp_path)[-1] == "leaves"
    row = status(tmp_path)[-1]
    assert (row.name, row.found, row.n_classes, row.train_images) == (
        "leaves",
        str(tmp_path / "leaves.npz"),
        None,
        None,
    )


def test_grey_images_and_labels_in_a_column(tmp_path: Path) -> None:
    grey = np.arange(30 * 4, dtype=np.uint8).reshape(30, 2, 2)
    np.savez_compressed(tmp_path / "a-1.npz", **arrays(x_train=grey, y_train=(np.arange(30) % 3)[:, None]))
    images = load("a-1", data_dir=tmp_path)
    np.testing.assert_array_equal(images.train_images, to_rgb32(grey[..., None]))
    np.testing.assert_array_equal(images.train_labels, np.arange(30) % 3)


def test_a_file_with_a_name_of_wse_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras calls its MNIST so."""
    monkeypatch.delenv("WSE_DATA", raising=False)
    (tmp_path / "mnist.npz").touch()
    with pytest.raises(UsageError, match=r"mnist\.npz is not read under a name that wse gives: rename it"):
        require("mnist", data_dir=tmp_path)


def test_a_changed_file_is_another_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "leaves.npz", **arrays())
    before = load("leaves", data_dir=tmp_path).sha256
    assert load("leaves", data_dir=tmp_path).sha256 == before
    np.savez(tmp_path / "leaves.npz", **arrays(y_train=np.arange(30) % 4, x_test=None, y_test=None), **{
        "x_test": arrays()["x_test"], "y_test": np.arange(6) % 4,
    })  # fmt: skip
    after = load("leaves", data_dir=tmp_path)
    assert after.n_classes == 4
    assert after.sha256 != before


def test_names_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What wse knows already, hidden files, names that no list of names can hold, folders."""
    for name in ("mnist.npz", ".hidden.npz", "a,b.npz", "a b.npz"):
        np.savez(tmp_path / name, **arrays())
    (tmp_path / "folder.npz").mkdir()
    assert not {"mnist", "folder"} & set(available(tmp_path))
    assert len(known_names(tmp_path)) == len(known_names())
    with pytest.raises(
        UsageError, match=r"unknown image set 'leaves'; .* NAME\.npz in a folder named by --data-dir"
    ):
        locate("leaves", data_dir=tmp_path)


SHAPES = r"images must be uint8 \[n, height, width\]"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"y_test": None}, "lacks y_test; it must have x_train, y_train, x_test and y_test"),
        ({"x_train": np.zeros((30, 8, 8))}, rf"x_train is float64 \[30, 8, 8, 1\]; {SHAPES}"),
        ({"x_train": np.zeros((30, 8, 8, 2), np.uint8)}, SHAPES),
        ({"x_test": np.zeros((0, 8, 8), np.uint8)}, SHAPES),
        ({"y_train": np.arange(29) % 3}, "30 images in x_train but 29 labels in y_train"),
        ({"y_train": np.arange(30) / 3}, r"y_train is float64 \[30\]; labels must be whole numbers"),
        ({"y_train": np.arange(30) % 3 - 1}, "y_train has labels from -1 to 1; they must count from 0"),
        ({"y_train": np.arange(30) % 3 + 254}, "from 254 to 256; they must count from 0, to 255 at most"),
        ({"x_test": np.zeros((6, 1, 8193), np.uint8)}, "at most 8,192 pixels a side"),
        ({"y_test": np.array([0, 1, 2, 3, 0, 0])}, "y_test has label 3, but y_train has none above 2"),
        ({"y_train": np.arange(30) % 3 * 2}, "fewer than two training images of class 1, 3"),
        ({"y_train": np.array([2, *[0, 1] * 14, 0])}, "fewer than two training images of class 2"),
        ({"x_train": np.array([None])}, "not arrays of numbers as numpy.savez writes them"),
    ],
)
def test_what_cannot_be_is_one_clear_line(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "leaves.npz", **arrays(**changes))
    with pytest.raises(WseError, match=told) as caught:
        load("leaves", data_dir=tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "leaves.npz"))
    assert "\n" not in str(caught.value)


def test_damaged_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "leaves.npz"
    np.savez(path, **arrays())
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[1000] ^= 1
    for damaged in (b"", b"hello", content[: len(content) // 2], content[:-10], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(WseError, match=r"leaves\.npz: damaged, or not arrays of numbers"):
            load("leaves", data_dir=tmp_path)


def npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        b"hello",  # NumPy hands out the bytes of what is no array
        b"",
        npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999, 8, 8)}\n"),
        npy(b"((((\n"),
    ],
    ids=["text", "nothing", "huge", "no header"],
)
def test_what_stands_in_place_of_an_array_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "leaves.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays().items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", content if name == "x_test" else stream.getvalue())
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(WseError, match="not arrays of numbers") as caught,
    ):
        load("leaves", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "bits"), [(8, 1), (10, 99), (6, 84)], ids=["encrypted", "unknown compression", "newer zip"]
)
def test_archives_that_cannot_be_unpacked_are_told(offset: int, bits: int, tmp_path: Path) -> None:
    path = tmp_path / "leaves.npz"
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + offset] |= bits  # of the first array's entry in the directory
    path.write_bytes(content)
    with pytest.raises(WseError, match=r"leaves\.npz: damaged, or not arrays of numbers"):
        load("leaves", data_dir=tmp_path)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    np.savez(tmp_path / "leaves.npz", **arrays())
    source = source_of("leaves", data_dir=tmp_path)
    with pytest.raises(WseError, match=r"gone\.npz: cannot be read \(No such file or directory\)"):
        source.read((tmp_path / "gone.npz",))


def test_a_folder_that_may_not_be_looked_into_has_no_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's cache may lie in a home that another user owns; what is there is not asked for."""
    monkeypatch.setenv("WSE_CACHE", str(tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX") * 2)))
    np.savez(tmp_path / "leaves.npz", **arrays())
    assert available(tmp_path)[-1] == "leaves"


def test_fewer_large_images_are_converted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.random.default_rng(1).integers(0, 256, (6, 300, 200, 3), np.uint8)
    np.savez(tmp_path / "leaves.npz", **arrays(x_test=large))
    converted = []

    def counting(images: np.ndarray) -> np.ndarray:
        converted.append(images.size)
        return to_rgb32(images)

    monkeypatch.setattr(cache, "to_rgb32", counting)
    monkeypatch.setattr(cache, "_CHUNK_VALUES", 500_000)
    images = load("leaves", data_dir=tmp_path)
    assert converted == [30 * 20 * 24 * 3, 2 * 300 * 200 * 3, 2 * 300 * 200 * 3, 2 * 300 * 200 * 3]
    np.testing.assert_array_equal(images.test_images, to_rgb32(large))
