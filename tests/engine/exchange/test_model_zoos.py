"""Raw model zoos become zoos."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wse.engine.errors import UsageError, WseError
from wse.engine.exchange import import_zoo
from wse.engine.nets.permute import permute_neurons
from wse.engine.zoo import Zoo

from .theirs import model_zoo


@pytest.mark.parametrize(("kind", "channels", "size"), [("CNN", 1, 28), ("CNN", 3, 28), ("CNN3", 3, 32)])
def test_networks_compute_what_theirs_do(kind: str, channels: int, size: int, tmp_path: Path) -> None:
    theirs = model_zoo(tmp_path / "zoo", kind=kind, channels=channels)
    import_zoo([tmp_path / "zoo"], tmp_path / "ours")
    zoo = Zoo.open(tmp_path / "ours")
    images = torch.randn(5, channels, size, size, generator=torch.Generator().manual_seed(1))
    # Colours are weighted to grey, and the weights sum to 0.9999.
    seen = images.expand(-1, 3, -1, -1) / 0.9999 if channels == 1 else images
    for member, times in zip(zoo, theirs, strict=True):
        for snapshot, network in enumerate(times):
            with torch.no_grad():
                torch.testing.assert_close(zoo[member].module(snapshot)(seen), network(images))
            assert zoo[member].weights()[snapshot].size == sum(value.numel() for value in network.parameters())


def test_neurons_are_known(tmp_path: Path) -> None:
    """What reads networks by their neurons finds them: permuted ones compute the same."""
    model_zoo(tmp_path / "zoo", 2, kind="CNN3", channels=3)
    import_zoo([tmp_path / "zoo"], tmp_path / "ours")
    member = Zoo.open(tmp_path / "ours")[0]
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = member.module()(images)
        vector = torch.from_numpy(permute_neurons(member.layout, member.weights()[-1], np.random.default_rng(0)))
        moved = member.module()
        specs = member.layout.tensors.values()
        moved.load_state_dict({spec.name: vector[spec.offset : spec.stop].reshape(spec.shape) for spec in specs})
        torch.testing.assert_close(moved(images), wanted)


def test_setup_and_outcomes(tmp_path: Path) -> None:
    model_zoo(tmp_path / "zoo")
    import_zoo([tmp_path / "zoo"], tmp_path / "ours")
    zoo = Zoo.open(tmp_path / "ours")
    known = {name: value for name, value in zoo[1].config.items() if value is not None}
    assert known == {
        "dataset": "fashion-mnist",
        "optimizer": "momentum",
        "learning_rate": 1e-3,
        "learning_rate_schedule": "constant",
        "batch_size": 10,
        "augmentation": False,
        "activation": "relu",
        "initialization": "normal",
        "init_std": 1.0,
        "dropout": 0.5,
        "l2": 0.0,
        "weight_decay": 1e-4,
        "epochs": 2,
        "batch_norm": False,
        "depth_conv": 3,
        "depth_fc": 1,
        "width_fc": 20,
    }
    assert zoo.members["config.initialization"].to_pylist() == ["uniform", "normal", "he_uniform", "he_normal"]
    assert zoo.members["config.activation"].to_pylist() == ["tanh", "relu", "gelu", "leaky_relu"]
    first, _, last = zoo[1].snapshots
    assert [row["epoch"] for row in zoo[1].snapshots] == [0, 1, 2]
    assert (first["test_accuracy"], first["train_accuracy"], first["train_loss"]) == (0.1, None, None)
    assert (last["test_accuracy"], last["train_accuracy"]) == (pytest.approx(0.3), pytest.approx(0.4))
    assert (last["test_loss"], last["train_loss"]) == (0.5, 0.0)
    assert (zoo[1].record["epochs"], zoo[1].record["seconds"], zoo[1].record["steps"]) == (2, 60.0, None)
    assert zoo.verify() == []


def test_results_that_begin_after_an_epoch(tmp_path: Path) -> None:
    """In some zoos the initial networks were not measured."""
    model_zoo(tmp_path / "zoo", 1, first=1)
    import_zoo([tmp_path / "zoo"], tmp_path / "ours")
    accuracies = [row["test_accuracy"] for row in Zoo.open(tmp_path / "ours")[0].snapshots]
    assert accuracies == [None, pytest.approx(0.2), pytest.approx(0.3)]


def test_networks_without_weights_are_told(tmp_path: Path) -> None:
    model_zoo(tmp_path / "zoo", 3)
    for checkpoint in (tmp_path / "zoo" / "NN_tune_trainable_00001").glob("checkpoint_*"):
        shutil.rmtree(checkpoint)
    imported = import_zoo([tmp_path / "zoo"], tmp_path / "ours")
    assert len(Zoo.open(tmp_path / "ours")) == 2
    assert imported.notes == (f"left out: 1 folder of {tmp_path / 'zoo'} without any checkpoint",)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/x/zoos/MNIST/tune_zoo_mnist_uniform/dataset.pt", "mnist"),
        ("/x/zoos/CIFAR10/small/dataset.pt", "cifar10"),
        ("/x/zoos/STL-10/large/dataset.pt", "stl10"),
        ("/x/zoos/SVHN/dataset.pt", "svhn"),
    ],
)
def test_image_sets(text: str, name: str, tmp_path: Path) -> None:
    model_zoo(tmp_path / "zoo", 1, dataset__dump=text)
    import_zoo([tmp_path / "zoo"], tmp_path / "ours")
    assert Zoo.open(tmp_path / "ours")[0].config["dataset"] == name


def test_the_folder_may_tell_the_image_set(tmp_path: Path) -> None:
    model_zoo(tmp_path / "svhn-zoo", 1, dataset__dump="dataset.pt")
    import_zoo([tmp_path / "svhn-zoo"], tmp_path / "ours")
    assert Zoo.open(tmp_path / "ours")[0].config["dataset"] == "svhn"


def _first(folder: Path, file: str) -> Path:
    return next(folder.glob(f"*/{file}"))


def _other_tensors(folder: Path) -> None:
    torch.save({"module_list.0.weight": torch.zeros(3)}, _first(folder, "checkpoint_2/checkpoints"))


def _code(folder: Path) -> None:
    """A checkpoint that would run something when it is loaded carelessly."""

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "ran",))

    torch.save(Runs(), _first(folder, "checkpoint_2/checkpoints"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: _first(folder, "result.json").write_text(""), "result.json has no line with a set-up"),
        (lambda folder: _first(folder, "result.json").write_text("{"), "result.json is damaged"),
        (lambda folder: _first(folder, "checkpoint_1/checkpoints").write_bytes(b"abc"), "checkpoints is damaged"),
        (_other_tensors, "has other tensors than a network of that set-up"),
        (_code, "checkpoints is damaged"),
    ],
)
def test_damage(tmp_path: Path, spoil: Callable[[Path], Any], words: str) -> None:
    model_zoo(tmp_path / "zoo", 1)
    spoil(tmp_path / "zoo")
    with pytest.raises(WseError, match=words):
        import_zoo([tmp_path / "zoo"], tmp_path / "ours")
    assert not (tmp_path / "zoo" / "ran").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model__type": "Resnet18"}, "model::type is 'Resnet18' with 1 channels, and wse reads CNN, CNN2, CNN3"),
        ({"model__nlin": "silu"}, "model::nlin is 'silu', and wse knows only tanh"),
        ({"dataset__dump": "/x/USPS/dataset.pt"}, "does not say which image set"),
    ],
)
def test_other_networks(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    model_zoo(tmp_path / "zoo", 1, **change)
    with pytest.raises(WseError, match=words):
        import_zoo([tmp_path / "zoo"], tmp_path / "ours")


def test_one_network(tmp_path: Path) -> None:
    model_zoo(tmp_path / "zoo", 2)
    import_zoo([tmp_path / "zoo" / "NN_tune_trainable_00001"], tmp_path / "ours")
    assert len(Zoo.open(tmp_path / "ours")) == 1
    with pytest.raises(UsageError, match="is in the sources 2 times"):
        import_zoo([tmp_path / "zoo", tmp_path / "zoo" / "NN_tune_trainable_00001"], tmp_path / "both")
