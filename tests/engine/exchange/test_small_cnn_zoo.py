"""Folders of the small CNN zoo become zoos."""

from __future__ import annotations

import csv
import gzip
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wse.engine.errors import UsageError, WseError
from wse.engine.exchange import import_zoo
from wse.engine.meta.targets import target_of
from wse.engine.zoo import Zoo

from .theirs import EPOCHS, small_cnn_logits, small_cnn_zoo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Zoo, np.ndarray]:
    """A zoo of six networks, and their weights as they were."""
    folder = tmp_path_factory.mktemp("theirs")
    weights = small_cnn_zoo(folder / "fashion_mnist")
    import_zoo([folder / "fashion_mnist"], folder / "zoo")
    return Zoo.open(folder / "zoo"), weights


def test_networks_compute_what_theirs_do(made: tuple[Zoo, np.ndarray]) -> None:
    zoo, weights = made
    images = np.random.default_rng(1).random((5, 28, 28))
    seen = torch.from_numpy(images).float()[:, None].expand(-1, 3, -1, -1)
    for member in zoo:
        for snapshot in (0, 3):
            with torch.no_grad():
                ours = zoo[member].module(snapshot)(seen).numpy()
            theirs = small_cnn_logits(weights[member, snapshot], 0.9999 * images, zoo[member].config["activation"])
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_every_weight_is_there_once(made: tuple[Zoo, np.ndarray]) -> None:
    zoo, weights = made
    for member in zoo:
        np.testing.assert_array_equal(np.sort(zoo[member].weights()), np.sort(weights[member]))


def test_setups(made: tuple[Zoo, np.ndarray]) -> None:
    zoo, _ = made
    assert zoo[0].config == {
        "dataset": "fashion-mnist",
        "optimizer": "adam",
        "learning_rate": 0.01,
        "learning_rate_schedule": "constant",
        "batch_size": 512,
        "augmentation": False,
        "activation": "relu",
        "initialization": "normal",
        "init_std": 0.125,
        "dropout": 0.0,
        "l2": 1e-3,
        "weight_decay": 0.0,
        "train_fraction": 0.1,
        "epochs": 20,
        "images_per_epoch": None,
        "batch_norm": False,
        "filter_size": 3,
        "depth_conv": 2,
        "width_conv": 4,
        "depth_fc": None,
        "width_fc": None,
    }
    assert zoo[1].config["initialization"] == "he_normal"
    assert zoo[1].config["init_std"] is None  # there in the file, and of no effect


def test_outcomes(made: tuple[Zoo, np.ndarray]) -> None:
    zoo, _ = made
    rows = zoo[2].snapshots
    assert [row["epoch"] for row in rows] == list(EPOCHS)
    assert [row["step"] for row in rows] == [None] * 4
    assert rows[3]["test_accuracy"] == pytest.approx(0.302)
    assert rows[3]["generalization_gap"] == pytest.approx(0.4 - 0.302)
    assert rows[3]["validation_accuracy"] is None
    record = zoo[2].record
    assert (record["status"], record["epochs"], record["snapshots"]) == ("ok", 20, 4)
    assert (record["steps"], record["seconds"], record["predicted_classes"]) == (None, None, None)
    assert (record["train_loss"], record["test_loss"]) == (1.9, pytest.approx(1.8))


def test_what_is_asked(made: tuple[Zoo, np.ndarray]) -> None:
    items = made[0].items(snapshots="all")
    kinds = {
        name: target_of(items, name).kind for name in ("train_fraction", "optimizer", "epoch", "test_accuracy")
    }
    assert kinds == {
        "train_fraction": "classification",
        "optimizer": "classification",
        "epoch": "regression",
        "test_accuracy": "regression",
    }


def test_many_values_are_not_classified(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs", 12)
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    assert target_of(Zoo.open(tmp_path / "zoo").items(), "learning_rate").kind == "regression"


def test_zoo_is_whole_and_says_what_it_is(made: tuple[Zoo, np.ndarray]) -> None:
    zoo, _ = made
    assert zoo.verify() == []
    assert zoo.manifest.format_version == 3
    assert zoo.manifest.imported is not None
    assert zoo.manifest.imported.format == "small-cnn-zoo"
    assert set(zoo.manifest.imported.files) == {
        f"fashion_mnist/{name}" for name in ("weights.npy", "metrics.csv.gz", "layout.csv")
    }
    assert zoo.manifest.image_sets["fashion-mnist"].sha256 is None
    assert zoo.manifest.runs == ()


def test_rows_in_any_order(tmp_path: Path) -> None:
    """Rows of a network may come in any order: it is the epoch that counts."""
    weights = small_cnn_zoo(tmp_path / "theirs", epochs=(20, 0, 2, 1))
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    np.testing.assert_array_equal(np.sort(zoo[3].weights()), np.sort(weights[3, [1, 3, 2, 0]]))
    assert [row["epoch"] for row in zoo[3].snapshots] == [0, 1, 2, 20]


def test_networks_without_folders_are_told_by_their_setup(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs", change={"modeldir": None})
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    assert Zoo.open(tmp_path / "zoo").members["snapshots"].to_pylist() == [4] * 6


def test_several_folders(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "fashion_mnist", 3)
    small_cnn_zoo(tmp_path / "svhn", 2, change={"config.dataset": "svhn_cropped"})
    imported = import_zoo([tmp_path / "fashion_mnist", tmp_path / "svhn"], tmp_path / "zoo", dtype="float16")
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.members["config.dataset"].to_pylist() == ["fashion-mnist"] * 3 + ["svhn"] * 2
    assert (zoo.manifest.dtype, imported.manifest.models) == ("float16", 5)
    assert zoo.verify() == []


def test_weights_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    weights = small_cnn_zoo(tmp_path / "theirs")
    weights[1, 2:] = np.nan
    weights[4, 0, 7] = np.inf
    np.save(tmp_path / "theirs" / "weights.npy", weights.reshape(24, -1))
    imported = import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    assert imported.left_out == 6
    assert zoo.members["snapshots"].to_pylist() == [4, 2, 4, 4, 0, 4]
    assert zoo.members["status"].to_pylist() == ["ok", "diverged", "ok", "ok", "diverged", "ok"]
    assert zoo[1].record["test_accuracy"] == pytest.approx(0.111)  # of the last that is kept
    assert zoo[4].record["test_accuracy"] is None
    assert zoo.verify() == []


@pytest.mark.parametrize("row", [0, 2, 3])
def test_a_loss_that_is_not_finite_is_a_divergence(tmp_path: Path, row: int) -> None:
    small_cnn_zoo(tmp_path / "theirs", 2)
    _set(tmp_path / "theirs", "train_loss", {row: "inf"})
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.members["status"].to_pylist() == ["diverged", "ok"]
    assert zoo.members["snapshots"].to_pylist() == [4, 4]  # their weights are finite


def test_weights_that_are_too_large_are_not_finite(tmp_path: Path) -> None:
    weights = small_cnn_zoo(tmp_path / "theirs").reshape(24, -1).astype(np.float64)
    weights[2, 5] = 1e300
    np.save(tmp_path / "theirs" / "weights.npy", weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert import_zoo([tmp_path / "theirs"], tmp_path / "zoo").left_out == 2
    assert Zoo.open(tmp_path / "zoo").members["status"].to_pylist() == ["diverged"] + 5 * ["ok"]


def test_without_any_finite_weights_there_is_no_zoo(tmp_path: Path) -> None:
    weights = small_cnn_zoo(tmp_path / "theirs").reshape(24, -1)
    np.save(tmp_path / "theirs" / "weights.npy", np.nan * weights)
    with pytest.raises(WseError, match="the first weights of every network are not finite"):
        import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("change", [lambda w: w.astype(np.float64), lambda w: w.astype(">f4"), np.asfortranarray])
def test_floats_of_all_kinds(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    weights = small_cnn_zoo(tmp_path / "theirs")
    np.save(tmp_path / "theirs" / "weights.npy", change(weights.reshape(24, -1)))
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    np.testing.assert_array_equal(np.sort(Zoo.open(tmp_path / "zoo")[3].weights()), np.sort(weights[3]))


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    _set(tmp_path / "theirs", "step", {row: f"{EPOCHS[row % 4]}.0" for row in range(24)})
    layout = tmp_path / "theirs" / "layout.csv"
    layout.write_text(re.sub(r",(\d+),(\d+),", r",\1.0,\2.0,", layout.read_text()))
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    assert [row["epoch"] for row in Zoo.open(tmp_path / "zoo")[3].snapshots] == list(EPOCHS)


def _set(folder: Path, column: str, values: dict[int, str]) -> None:
    """Other words in some rows of the metrics."""
    packed = folder / "metrics.csv.gz"
    rows = list(csv.DictReader(gzip.decompress(packed.read_bytes()).decode().splitlines()))
    for row, value in values.items():
        rows[row][column] = value
    with gzip.open(packed, "wt", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _cut(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def _other_tensor(folder: Path) -> None:
    text = (folder / "layout.csv").read_text()
    (folder / "layout.csv").write_text(text.replace("dense/kernel", "dense/gamma"))


def _other_network(folder: Path) -> None:
    text = (folder / "layout.csv").read_text().splitlines()
    (folder / "layout.csv").write_text("\n".join(text[:-2]))


def _shorter(folder: Path) -> None:
    np.save(folder / "weights.npy", np.load(folder / "weights.npy")[:-1])


def _shifted(folder: Path, by: int) -> None:
    text = (folder / "layout.csv").read_text()
    shifted = re.sub(r",(\d+),(\d+),", lambda found: f",{int(found[1]) + by},{int(found[2]) + by},", text)
    (folder / "layout.csv").write_text(shifted)


def _twice(folder: Path) -> None:
    packed = folder / "metrics.csv.gz"
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()).replace(b"config.num_layers", b"step")))


def _archive(folder: Path) -> None:
    with (folder / "weights.npy").open("wb") as file:
        np.savez(file, weights=np.zeros((24, 238)))


def _saved(folder: Path, dtype: str) -> None:
    np.save(folder / "weights.npy", np.zeros((24, 238), dtype))


def _pickled(folder: Path) -> None:
    np.save(folder / "weights.npy", np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda folder: (folder / "layout.csv").unlink(), UsageError, "cannot read .*layout.csv: No such file"),
        (lambda folder: (folder / "metrics.csv.gz").unlink(), UsageError, "cannot read .*metrics.csv.gz"),
        (lambda folder: _cut(folder, "metrics.csv.gz"), WseError, "metrics.csv.gz is damaged"),
        (lambda folder: _cut(folder, "weights.npy"), WseError, "weights.npy is damaged"),
        (_pickled, WseError, "weights.npy is damaged"),
        (_shorter, WseError, r"has shape \[23, 238\], and the files beside it tell of 24 rows of 238 values"),
        (_archive, WseError, "weights.npy is damaged: the magic string is not correct"),
        (lambda folder: _saved(folder, "complex64"), WseError, "weights.npy holds complex64 and not real numbers"),
        (lambda folder: _saved(folder, "V4"), WseError, r"weights.npy holds \|V4 and not real numbers"),
        (lambda folder: _shifted(folder, 5), WseError, "conv2d/bias:0 of shape .* in the columns from 5 to 9"),
        (lambda folder: _shifted(folder, -4), WseError, "in the columns from -4 to 0"),
        (_twice, WseError, "has twice the column 'step'"),
        (_other_tensor, WseError, "gamma:0 of shape .*: wse has no such networks"),
        (_other_network, WseError, "describes networks that wse does not have"),
    ],
)
def test_damage(tmp_path: Path, spoil: Callable[[Path], Any], kind: type[WseError], words: str) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    spoil(tmp_path / "theirs")
    with pytest.raises(kind, match=words):
        import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config.activation": "swish"}, "line 2: config.activation is 'swish', and wse knows only relu, elu"),
        ({"config.dataset": "imagenet"}, "config.dataset is 'imagenet'"),
        ({"config.l2reg": None}, "lacks the column 'config.l2reg'"),
        ({"step": 3}, "two rows of the network /x/0 at one epoch"),
    ],
)
def test_other_networks(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    small_cnn_zoo(tmp_path / "theirs", change=change)
    with pytest.raises(WseError, match=words):
        import_zoo([tmp_path / "theirs"], tmp_path / "zoo")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("step", "", "line 4 does not say which epoch of which network it is"),
        ("step", "-1", "line 4 does not say which epoch of which network it is"),
        ("step", "0.5", "metrics.csv.gz is damaged: Float value 0.5"),
        ("step", "last", "metrics.csv.gz is damaged: .*'last'"),
        ("modeldir", "", "line 4 does not say which epoch of which network it is"),
        ("test_loss", "low", "metrics.csv.gz is damaged: .*'low'"),
        ("config.learning_rate", "slow", "metrics.csv.gz is damaged: .*'slow'"),
        ("config.learning_rate", "0.5", "has 2 set-ups of the network /x/0"),
        ("config.epochs", "20.5", "metrics.csv.gz is damaged: Float value 20.5"),
    ],
)
def test_a_row_that_makes_no_sense(tmp_path: Path, column: str, value: str, words: str) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    _set(tmp_path / "theirs", column, {2: value})
    with pytest.raises(WseError, match=words):
        import_zoo([tmp_path / "theirs"], tmp_path / "zoo")


def test_no_rows(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs", networks=1)
    packed = tmp_path / "theirs" / "metrics.csv.gz"
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()).splitlines(keepends=True)[0]))
    np.save(tmp_path / "theirs" / "weights.npy", np.zeros((0, 238), np.float32))
    with pytest.raises(UsageError, match="there are no networks in the sources"):
        import_zoo([tmp_path / "theirs"], tmp_path / "zoo")


def test_metrics_need_not_be_compressed(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    packed = tmp_path / "theirs" / "metrics.csv.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    assert len(Zoo.open(tmp_path / "zoo")) == 6
