"""Networks of the study become zoos."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wse.engine.errors import UsageError, WseError
from wse.engine.exchange import import_zoo
from wse.engine.zoo import Zoo

from .theirs import nws_index, nws_logits, nws_run, nws_vector


def test_networks_compute_what_theirs_do(tmp_path: Path) -> None:
    images = np.random.default_rng(1).random((3, 32, 32, 3))
    seen = torch.from_numpy(images).float().permute(0, 3, 1, 2)
    theirs = {name: nws_run(tmp_path / "runs" / name, seed=int(name), activation=int(name)) for name in "0123"}
    import_zoo([tmp_path / "runs"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    for member, name in zip(zoo, "0123", strict=True):
        snapshots = theirs[name]
        np.testing.assert_array_equal(
            zoo[member].weights(), np.stack([nws_vector(tensors) for tensors in snapshots]).astype(np.float32)
        )
        with torch.no_grad():
            ours = zoo[member].module(7)(seen).numpy()
        wanted = nws_logits(snapshots[7], images, zoo[member].config["activation"])
        np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_setup_and_outcomes(tmp_path: Path) -> None:
    nws_run(tmp_path / "one")
    import_zoo([tmp_path / "one"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    known = {name: value for name, value in zoo[0].config.items() if value is not None}
    assert known == {
        "dataset": "fashion-mnist",
        "optimizer": "momentum",
        "learning_rate": 0.001,
        "learning_rate_schedule": "constant",
        "batch_size": 64,
        "augmentation": False,
        "activation": "elu",
        "initialization": "normal",
        "init_std": 1.0,
        "dropout": 0.5,
        "l2": 0.0,
        "weight_decay": 0.0,
        "train_fraction": 1.0,
        "epochs": 1000,
        "batch_norm": True,
        "filter_size": 3,
        "depth_conv": 3,
        "depth_fc": 2,
        "width_conv": 2,
        "width_fc": 8,
    }
    # 31 evaluations, before training and after 30 epochs; the places of 20 of them, as NumPy rounds.
    places = [0, 2, 3, 5, 6, 8, 9, 11, 13, 14, 16, 17, 19, 21, 22, 24, 25, 27, 28, 30]
    rows = zoo[0].snapshots
    assert [row["epoch"] for row in rows] == places
    assert [row["step"] for row in rows] == [50 * place for place in places]
    assert [row["train_accuracy"] for row in rows] == pytest.approx([0.1 + place / 100 for place in places])
    assert rows[-1]["validation_accuracy"] == pytest.approx(0.39)
    assert rows[-1]["test_accuracy"] == pytest.approx(0.38)
    assert rows[-1]["test_loss"] is None
    record = zoo[0].record
    assert (record["epochs"], record["steps"], record["seconds"], record["status"]) == (30, 1500, 12.5, "ok")
    assert zoo.verify() == []


def test_index(tmp_path: Path) -> None:
    """Paths start where the index lies; of what is not listed nothing is read."""
    folders = [tmp_path / "nws" / "nets" / name for name in ("0007", "0003")]
    for seed, folder in enumerate(folders):
        nws_run(folder, seed=seed)
    (tmp_path / "nws" / "nets" / "broken").mkdir()
    nws_index(tmp_path / "nws" / "train.csv", folders[:1])
    nws_index(tmp_path / "nws" / "test.csv", folders[1:], batch_size=256, batch_norm="True")
    imported = import_zoo([tmp_path / "nws" / "train.csv", tmp_path / "nws" / "test.csv"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.members["config.batch_size"].to_pylist() == [64, 256]
    assert imported.manifest.imported is not None
    assert set(imported.manifest.imported.files) == {"train.csv", "test.csv"}


def test_networks_of_several_architectures(tmp_path: Path) -> None:
    nws_run(tmp_path / "nets" / "a")
    nws_run(tmp_path / "nets" / "b", seed=1)
    nws_run(tmp_path / "nets" / "c", batch_norm=0)
    with pytest.raises(WseError, match=r"001.bin has .* values, and a network of that set-up"):
        import_zoo([tmp_path / "nets"], tmp_path / "zoo")
    for file in (tmp_path / "nets" / "c" / "weights").iterdir():
        np.zeros(1596).tofile(file)
    import_zoo([tmp_path / "nets"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    assert len(zoo.architectures) == 2
    assert len(zoo.manifest.shards) == 2
    assert zoo.verify() == []


def test_a_network_may_be_there_once(tmp_path: Path) -> None:
    nws_run(tmp_path / "nets" / "a")
    nws_index(tmp_path / "one.csv", [tmp_path / "nets" / "a"])
    nws_index(tmp_path / "two.csv", [tmp_path / "nets" / "a"])
    with pytest.raises(UsageError, match="is in the sources 2 times: name each once"):
        import_zoo([tmp_path / "one.csv", tmp_path / "two.csv"], tmp_path / "zoo")


def test_weights_that_are_too_large_are_not_finite(tmp_path: Path) -> None:
    nws_run(tmp_path / "net")
    weights = np.fromfile(tmp_path / "net" / "weights" / "003.bin")
    weights[7] = 1e300
    weights.tofile(tmp_path / "net" / "weights" / "003.bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert import_zoo([tmp_path / "net"], tmp_path / "zoo").left_out == 18
    assert Zoo.open(tmp_path / "zoo").members["status"].to_pylist() == ["diverged"]


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda run: (run / "stat.bin").unlink(), UsageError, "cannot read .*stat.bin: No such file"),
        (lambda run: _cut(run / "error.bin"), WseError, "error.bin is damaged"),
        (lambda run: _cut(run / "weights" / "003.bin"), WseError, "003.bin is damaged"),
        (lambda run: (run / "weights" / "004.bin").write_bytes(b""), WseError, "004.bin is empty"),
        (lambda run: np.zeros(5).tofile(run / "error.bin"), WseError, "do not go together"),
        (lambda run: np.array([np.nan, 1, 1, 1]).tofile(run / "stat.bin"), WseError, "do not go together"),
        (lambda run: np.array([0.0, 1, 1, 1]).tofile(run / "stat.bin"), WseError, "do not go together"),
        (lambda run: np.full(155, np.nan).tofile(run / "error.bin"), WseError, "do not go together"),
        (lambda run: (run / "meta.csv").write_text("dataset,lrate\n"), WseError, "has 0 rows and not the one"),
        (lambda run: np.zeros(9).tofile(run / "weights" / "021.bin"), WseError, "do not go together"),
    ],
)
def test_damage(tmp_path: Path, spoil: Callable[[Path], Any], kind: type[WseError], words: str) -> None:
    nws_run(tmp_path / "net")
    spoil(tmp_path / "net")
    with pytest.raises(kind, match=words):
        import_zoo([tmp_path / "net"], tmp_path / "zoo")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": 3}, "meta.csv: optimizer cannot be '3'"),
        ({"augmentation": "maybe"}, "augmentation cannot be 'maybe'"),
        ({"width_fc": "wide"}, "width_fc cannot be 'wide'"),
        ({"dataset": "pascal"}, "dataset is 'pascal', and wse knows only mnist"),
        ({"depth_conv": 9}, "`depth_conv`"),
    ],
)
def test_other_networks(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    nws_run(tmp_path / "net", **change)
    with pytest.raises(WseError, match=words):
        import_zoo([tmp_path / "net"], tmp_path / "zoo")


def test_index_without_paths(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("dataset,lrate\nmnist,0.1\n")
    with pytest.raises(WseError, match=r"index.csv, line 2 has no 'path'"):
        import_zoo([tmp_path / "index.csv"], tmp_path / "zoo")
