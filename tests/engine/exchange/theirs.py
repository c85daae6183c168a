"""Files as the others write them, and their networks, run by NumPy alone where they were TensorFlow's."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.floating[Any]]

EPOCHS = (0, 1, 2, 20)
SHAPES = (
    ("conv2d", (3, 3, 1, 4)),
    ("conv2d_1", (3, 3, 4, 4)),
    ("dense", (4, 10)),
)


def small_cnn_row(network: int, epoch: int) -> dict[str, Any]:
    """A row of ``metrics.csv.gz``."""
    return {
        "": f"/x/{network}/permanent_ckpt-{epoch}",
        "config.activation": ("relu", "tanh")[network % 2],
        "config.b_init": "zeros",
        "config.dataset": "fashion_mnist",
        "config.dnn_architecture": "cnn",
        "config.dropout": 0.25 * (network % 3),
        "config.epochs": 20,
        "config.init_std": 0.125,
        "config.l2reg": 1e-3,
        "config.learning_rate": 0.01 * (network + 1),
        "config.num_layers": 2,
        "config.num_units": 4,
        "config.optimizer": ("adam", "sgd", "rmsprop")[network % 3],
        "config.train_fraction": (0.1, 0.5, 1.0)[network % 3],
        "config.w_init": ("RandomNormal", "he_normal", "TruncatedNormal", "orthogonal")[network % 4],
        "modeldir": f"/x/{network}",
        "step": epoch,
        "test_accuracy": 0.1 + 0.01 * epoch + 0.001 * network,
        "test_loss": 2.0 - 0.01 * epoch,
        "train_accuracy": 0.2 + 0.01 * epoch,
        "train_loss": 1.9,
    }


def small_cnn_zoo(
    folder: Path, networks: int = 6, *, epochs: Sequence[int] = EPOCHS, change: Mapping[str, Any] | None = None
) -> Floats:
    """A folder of the small CNN zoo; its weights [networks, epochs, D] in the order of the file.

    Args:
        folder: to make.
        networks: how many.
        epochs: of each, in the order of rows.
        change: columns with other values in all rows; None for a column that is not there.
    """
    folder.mkdir(parents=True)
    layout, at = [], 0
    for layer, shape in SHAPES:
        for kind, tensor in (("bias", shape[-1:]), ("kernel", shape)):
            layout.append((f"sequential/{layer}/{kind}:0", at, at + int(np.prod(tensor)), str(tensor)))
            at += int(np.prod(tensor))
    with (folder / "layout.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("varname", "start_idx", "end_idx", "shape"), *layout])
    weights = np.random.default_rng(networks).normal(size=(networks, len(epochs), at)).astype(np.float32)
    np.save(folder / "weights.npy", weights.reshape(-1, at))
    rows = [small_cnn_row(network, epoch) | dict(change or {}) for network in range(networks) for epoch in epochs]
    names = [name for name in rows[0] if (change or {}).get(name, "") is not None]
    with gzip.open(folder / "metrics.csv.gz", "wt", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return weights


def small_cnn_logits(vector: Floats, images: Floats, activation: str) -> Floats:
    """What a network of the zoo makes of grey images [n, H, W] in [0, 1]: logits [n, 10]."""
    values = 2.0 * images[..., None] - 1.0
    at = 0
    for _, shape in SHAPES:
        bias, kernel = vector[at : at + shape[-1]], vector[at + shape[-1] :][: np.prod(shape)].reshape(shape)
        at += shape[-1] + int(np.prod(shape))
        if len(shape) == 2:
            return values.mean(axis=(1, 2)) @ kernel + bias
        values = _activated(_convolution(values, kernel, stride=2) + bias, activation)
    raise AssertionError


def _convolution(values: Floats, kernel: Floats, *, stride: int) -> Floats:
    """[n, H, W, in] with [h, w, in, out], "valid"."""
    height, width = kernel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(values, (height, width), axis=(1, 2))
    return np.einsum("nyxihw,hwio->nyxo", windows[:, ::stride, ::stride], kernel)


def _activated(values: Floats, activation: str) -> Floats:
    if activation == "relu":
        return np.maximum(values, 0)
    if activation == "elu":
        return np.where(values > 0, values, np.expm1(np.minimum(values, 0)))
    return np.tanh(values) if activation == "tanh" else 1 / (1 + np.exp(-values))


# The study's networks: filter 3, one convolution a block, widths 2, 4 and 8, hidden layers of 8 and 4.
NWS_SETUP = {
    "dataset": "fashion",
    "lrate": 0.001,
    "batch_size": 64,
    "batch_norm": True,
    "augmentation": False,
    "optimizer": 2,
    "activation": 1,
    "initialization": 1,
    "filter_size": 3,
    "depth_conv": 3,
    "depth_fc": 2,
    "width_conv": 2,
    "width_fc": 8,
}
_NORM = ("beta", "gamma", "mean", "variance")


def nws_tensors(seed: int) -> list[tuple[str, Floats]]:
    """The variables of a network, in the order in which they were made."""
    rng = np.random.default_rng(seed)
    shapes = [(3, 3, 3, 2), (3, 3, 2, 4), (3, 3, 4, 8), (4 * 4 * 8, 8), (8, 4), (4, 20)]
    tensors: list[tuple[str, Floats]] = []
    for layer, shape in enumerate(shapes):
        tensors += [(f"{layer}.W", rng.normal(size=shape)), (f"{layer}.b", rng.normal(size=shape[-1]))]
        if layer < 5:
            made = [rng.normal(size=shape[-1]) for _ in _NORM]
            tensors += [(f"{layer}.{name}", tensor) for name, tensor in zip(_NORM, made, strict=True)]
            tensors[-1] = (tensors[-1][0], np.abs(tensors[-1][1]) + 0.5)
    return [(name, tensor.astype(np.float32).astype(np.float64)) for name, tensor in tensors]


def nws_vector(tensors: Sequence[tuple[str, Floats]]) -> Floats:
    """The variables as their code writes them out: output by output, in it input by input."""
    parts = []
    for _, tensor in tensors:
        if tensor.ndim == 4:
            parts += [tensor[:, :, i, o].ravel() for o in range(tensor.shape[3]) for i in range(tensor.shape[2])]
        elif tensor.ndim == 2:
            parts += [tensor[:, o] for o in range(tensor.shape[1])]
        else:
            parts.append(tensor)
    return np.concatenate(parts)


def nws_logits(tensors: Sequence[tuple[str, Floats]], images: Floats, activation: str) -> Floats:
    """What a network makes of images [n, 32, 32, 3] in [0, 1], with moving averages: logits [n, 20]."""
    named = dict(tensors)
    values = images
    for layer in range(6):
        kernel, bias = named[f"{layer}.W"], named[f"{layer}.b"]
        if layer == 3:
            values = values.reshape(len(values), -1)
        if layer < 3:
            padded = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
            values = _activated(
                _normalised(_convolution(padded, kernel, stride=1) + bias, named, layer), activation
            )
            n, height, width, channels = values.shape
            values = values.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
        else:
            values = values @ kernel + bias
            if layer < 5:
                values = _normalised(_activated(values, activation), named, layer)
    return values


def _normalised(values: Floats, named: Mapping[str, Floats], layer: int) -> Floats:
    beta, gamma, mean, variance = (named[f"{layer}.{name}"] for name in _NORM)
    return (values - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def nws_run(
    folder: Path, *, seed: int = 0, evaluations: int = 31, **change: Any
) -> list[list[tuple[str, Floats]]]:
    """The folder of a network of the study; the variables of each of its 20 snapshots."""
    (folder / "weights").mkdir(parents=True)
    row = NWS_SETUP | change
    with (folder / "meta.csv").open("w", newline="") as file:
        csv.writer(file).writerows([row.keys(), row.values()])
    snapshots = [nws_tensors(1000 * seed + place) for place in range(20)]
    for place, tensors in enumerate(snapshots):
        nws_vector(tensors).tofile(folder / "weights" / f"{place + 1:03d}.bin")
    places = np.arange(evaluations)
    errors = np.stack([50 * places, 90 - places, 91 - places, 92 - places, 93 - places], axis=1)
    errors.astype(np.float64).tofile(folder / "error.bin")
    np.array([evaluations, 50 * (evaluations - 1), evaluations - 1, 12.5]).tofile(folder / "stat.bin")
    return snapshots


def nws_index(file: Path, folders: Sequence[Path], **change: Any) -> None:
    """An index of runs, with paths from where it lies."""
    rows = [
        NWS_SETUP | change | {"weightn_conv": 1, "weightn_fc": 1, "path": str(folder.relative_to(file.parent))}
        for folder in folders
    ]
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


# The model zoos: channels, filters and pixels of each type; whether the last convolution is pooled.
MODEL_ZOOS = {"CNN": ((8, 6, 4), (5, 5, 2), 28, False), "CNN3": ((16, 32, 15), (3, 3, 3), 32, True)}
_FUNCTIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "leakyrelu": nn.LeakyReLU, "silu": nn.SiLU}


class ModelZooNetwork(nn.Module):
    """A network of the model zoos: its layers in a list, so that names of tensors depend on dropout."""

    def __init__(self, kind: str, channels: int, activation: str, dropout: float) -> None:
        super().__init__()
        widths, kernels, size, pooled = MODEL_ZOOS[kind]
        self.module_list = nn.ModuleList()
        drop = [nn.Dropout(dropout)] if dropout > 0 or kind == "CNN3" else []
        before = channels
        for place, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            pool = pooled or place < 2
            size = (size - kernel + 1) // (2 if pool else 1)
            self.module_list.append(nn.Conv2d(before, width, kernel))
            self.module_list.extend([nn.MaxPool2d(2, 2)] if pool else [])
            self.module_list.append(_FUNCTIONS[activation]())
            self.module_list.extend(drop if pool else [])
            before = width
        self.module_list.extend([nn.Flatten(), nn.Linear(size * size * before, 20), _FUNCTIONS[activation]()])
        self.module_list.extend([*drop, nn.Linear(20, 10)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [n, 10] of images [n, channels, size, size]."""
        for layer in self.module_list:
            images = layer(images)
        return images


def model_zoo(
    folder: Path, networks: int = 4, *, kind: str = "CNN", channels: int = 1, first: int = 0, **change: Any
) -> list[list[ModelZooNetwork]]:
    """A folder of networks as Ray Tune leaves it; the networks, each at three times.

    Args:
        folder: to make.
        networks: how many.
        kind: their type.
        channels: of images.
        first: the epoch of the first line of ``result.json``, 0 or 1.
        change: entries of the set-up by other values; ``__`` stands for ``::``.
    """
    torch.manual_seed(networks)
    made = []
    for number in range(networks):
        config = {
            "model::type": kind,
            "model::channels_in": channels,
            "model::o_dim": 10,
            "model::nlin": ("tanh", "relu", "gelu", "leakyrelu")[number % 4],
            "model::dropout": (0, 0.5)[number % 2],
            "model::init_type": ("uniform", "normal", "kaiming_uniform", "kaiming_normal")[number % 4],
            "optim::optimizer": ("adam", "sgd")[number % 2],
            "optim::lr": 1e-3,
            "optim::wd": 1e-4,
            "optim::momentum": 0.9,
            "seed": 7,
            "training::batchsize": 10,
            "training::epochs_train": 2,
            "dataset::dump": "/scratch/zoos/F_MNIST/tune_zoo_f_mnist_hyperparameter_10_fixed_seeds/dataset.pt",
        } | {name.replace("__", "::"): value for name, value in change.items()}
        run = folder / f"NN_tune_trainable_{number:05d}"
        run.mkdir(parents=True)
        lines = [
            {
                "train_loss": 2.0 - epoch if epoch else -999,
                "train_acc": 0.2 + 0.1 * epoch if epoch else -999,
                "test_loss": 2.5 - epoch,
                "test_acc": 0.1 + 0.1 * epoch,
                "training_iteration": epoch,
                "time_total_s": 30.0 * epoch,
                "config": config,
            }
            for epoch in range(first, 3)
        ]
        (run / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        times = []
        for epoch in range(3):
            network = ModelZooNetwork(kind, channels, config["model::nlin"], config["model::dropout"])
            checkpoint = run / (f"checkpoint_{epoch:06d}" if number % 2 else f"checkpoint_{epoch}")
            checkpoint.mkdir()
            torch.save(network.state_dict(), checkpoint / "checkpoints")
            (checkpoint / "optimizer").write_bytes(b"not read")
            times.append(network.eval())
        made.append(times)
    return made
