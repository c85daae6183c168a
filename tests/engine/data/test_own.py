"""Image sets of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wse.engine.data import available, known_names, load, locate, status
from wse.engine.data.resize import to_rgb32
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
        ({"y_test": None}, "lacks an array; it must have x_train, y_train, x_test and y_test"),
        ({"x_train": np.zeros((30, 8, 8))}, rf"x_train is float64 \[30, 8, 8, 1\]; {SHAPES}"),
        ({"x_train": np.zeros((30, 8, 8, 2), np.uint8)}, SHAPES),
        ({"x_test": np.zeros((0, 8, 8), np.uint8)}, SHAPES),
        ({"y_train": np.arange(29) % 3}, "30 images in x_train but 29 labels in y_train"),
        ({"y_train": np.arange(30) / 3}, r"y_train is float64 \[30\]; labels must be whole numbers"),
        ({"y_train": np.arange(30) % 3 - 1}, "y_train has labels from -1 to 1; they must count from 0"),
        ({"y_train": np.arange(30) % 3 + 254}, "they must count from 0"),
        ({"y_test": np.array([0, 1, 2, 3, 0, 0])}, "y_test has label 3, but y_train has none above 2"),
        ({"y_train": np.arange(30) % 3 * 2}, "fewer than two training images of class 1, 3"),
        ({"y_train": np.array([2, *[0, 1] * 14, 0])}, "fewer than two training images of class 2"),
        ({"x_train": np.array([None])}, "damaged, or not written by numpy.savez"),
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
        with pytest.raises(WseError, match=r"leaves\.npz: damaged, or not written by numpy\.savez"):
            load("leaves", data_dir=tmp_path)
