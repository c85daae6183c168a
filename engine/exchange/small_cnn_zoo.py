"""The small CNN zoo of Unterthiner et al., "Predicting Neural Network Accuracy from Weights" (2020).

A folder an image set: ``weights.npy`` [rows, D], a row a snapshot; ``metrics.csv.gz``, of each row what was
measured, the set-up of its network in ``config.*`` columns, the folder ``modeldir`` that the network was trained
in and the epoch (``step``); ``layout.csv``, which columns of the weights are which tensor. Tensors have
TensorFlow's shapes: a convolution [height, width, in, out], a linear layer [in, out].
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from ..errors import WseError
from ..nets import FAMILIES, Layout
from ..text import name_text
from ..zoo import Value
from .foreign import Float32, Foreign, ForeignMember, ForeignSnapshot, reading, setup, sha256_of, translated

_WEIGHTS, _METRICS, _LAYOUT = "weights.npy", ("metrics.csv.gz", "metrics.csv"), "layout.csv"
_MEASURED = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_NETWORK = "modeldir"
_CONFIG = (  # without "config."
    "activation", "dataset", "dropout", "epochs", "init_std", "l2reg", "learning_rate", "optimizer",
    "train_fraction", "w_init",
)  # fmt: skip

_ACTIVATIONS = {name: name for name in ("relu", "tanh", "sigmoid", "elu")}
_DATASETS = {
    "mnist": "mnist",
    "fashionmnist": "fashion-mnist",
    "cifar10": "cifar10",
    "svhncropped": "svhn",
}
_INITIALIZATIONS = {
    "glorotnormal": "glorot_normal",
    "glorotuniform": "glorot_uniform",
    "henormal": "he_normal",
    "orthogonal": "orthogonal",
    "randomnormal": "normal",
    "truncatednormal": "truncated_normal",
}
_SCALED = ("normal", "truncated_normal")
_OPTIMIZERS = {name: name for name in ("sgd", "adam", "rmsprop")}
# What no column says and their code fixes.
_FIXED: Mapping[str, Value] = {
    "learning_rate_schedule": "constant",
    "batch_size": 512,
    "augmentation": False,
    "weight_decay": 0.0,
    "batch_norm": False,
}


def recognises(source: Path) -> bool:
    """Whether a folder is one of this format."""
    return (source / _WEIGHTS).is_file()


def read(source: Path) -> Foreign:
    """What a folder of this format holds.

    Raises:
        UsageError: a file is missing or cannot be read.
        WseError: a file is damaged, the files do not go together, or wse has no such networks.
    """
    metrics = next((source / name for name in _METRICS if (source / name).is_file()), source / _METRICS[0])
    layout, order = _read_layout(source / _LAYOUT)
    rows = _read_csv(metrics, required=(*_MEASURED, "step", *(f"config.{name}" for name in _CONFIG)))
    with reading(source / _WEIGHTS, ValueError, EOFError):
        weights = np.load(source / _WEIGHTS, mmap_mode="r", allow_pickle=False)
    if weights.shape != (rows.num_rows, layout.size):
        raise WseError(
            f"{source / _WEIGHTS} has shape {list(weights.shape)}, and the files beside it tell of "
            f"{rows.num_rows:,} rows of {layout.size:,} values: get all three again"
        )
    return Foreign(
        members=_members(metrics, rows, weights, layout, order),
        files={
            f"{name_text(source.resolve())}/{path.name}": sha256_of(path)
            for path in (source / _WEIGHTS, metrics, source / _LAYOUT)
        },
    )


def _read_csv(path: Path, required: Iterable[str]) -> pa.Table:
    with reading(path):
        path.open("rb").close()
    with reading(path, pa.ArrowException, OSError):  # the second for a compressed file that ends too early
        table = csv.read_csv(path)
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise WseError(f"{path} lacks the column {missing[0]!r}: it is not of the small CNN zoo")
    return table


def _read_layout(path: Path) -> tuple[Layout, NDArray[np.int64]]:
    """The layout of the networks, and for each of its values the column of the weights that has it [D]."""
    tensors: dict[str, dict[str, NDArray[np.int64]]] = {}
    rows = _read_csv(path, required=("varname", "start_idx", "end_idx", "shape")).to_pylist()
    for row in sorted(rows, key=lambda row: int(row["start_idx"])):
        layer, _, kind = str(row["varname"]).partition(":")[0].rpartition("/")
        shape = [int(size) for size in re.findall(r"\d+", str(row["shape"]))]
        columns = np.arange(row["start_idx"], row["end_idx"])
        if kind not in ("kernel", "bias") or columns.size != np.prod(shape):
            raise WseError(
                f"{path} has a tensor {row['varname']} of shape {row['shape']}: wse has no such networks"
            )
        # [height, width, in, out] and [in, out] become PyTorch's [out, in, height, width] and [out, in].
        axes = (3, 2, 0, 1) if len(shape) == 4 else tuple(range(len(shape)))[::-1]
        tensors.setdefault(layer, {})[kind] = columns.reshape(shape).transpose(axes)
    kernels = [tensor["kernel"] for tensor in tensors.values() if "kernel" in tensor]
    convolutions = [kernel for kernel in kernels if kernel.ndim == 4]
    if convolutions:
        width, _, size, _ = convolutions[0].shape
        family = FAMILIES["small-cnn"]
        layout = Layout(
            family.build(filter_size=size, depth_conv=len(convolutions), width_conv=width, batch_norm=False)
        )
        found = [tensor[kind] for tensor in tensors.values() for kind in ("kernel", "bias") if kind in tensor]
        if [tensor.shape for tensor in found] == [spec.shape for spec in layout.tensors.values()]:
            return layout, np.concatenate([tensor.ravel() for tensor in found])
    raise WseError(
        f"{path} describes networks that wse does not have: convolutions of one width, then a linear layer"
    )


def _members(
    file: Path, rows: pa.Table, weights: NDArray[Any], layout: Layout, order: NDArray[np.int64]
) -> list[ForeignMember]:
    """The networks, in the order of their first rows; each with its rows in the order of epochs."""
    config = rows.select([f"config.{name}" for name in _CONFIG]).rename_columns(list(_CONFIG)).to_pylist()
    # Without a column that names the network, rows are of one if they have one set-up.
    names = rows[_NETWORK].to_pylist() if _NETWORK in rows.column_names else [str(row) for row in config]
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    epochs = rows["step"].to_pylist()
    measured = [
        {name: math.nan if value is None else value for name, value in row.items()}  # as NaN is written there
        for row in rows.select(_MEASURED).to_pylist()
    ]
    members = []
    for name, own in found.items():
        own.sort(key=lambda row: epochs[row])
        if len({epochs[row] for row in own}) < len(own):
            raise WseError(f"{file} has two rows of the network {name} at one epoch: get it again")
        members.append(
            ForeignMember(
                origin=f"{file.parent.resolve()}: {name}",
                layout=layout,
                config=_setup(config[own[0]], layout, f"{file}, line {own[0] + 2}"),
                snapshots=tuple(
                    ForeignSnapshot(epoch=epochs[row], step=None, metrics=measured[row]) for row in own
                ),
                read=_Rows(weights, own, order),
                facts={"epochs": epochs[own[-1]]},
            )
        )
    return members


def _setup(theirs: dict[str, Any], layout: Layout, where: str) -> dict[str, Value]:
    """The set-up of a network in our words."""

    def word(name: str, words: Mapping[str, str]) -> str:
        return translated(str(theirs[name]), words, f"{where}: config.{name}")

    initialization = word("w_init", _INITIALIZATIONS)
    convolutions = [spec.shape for spec in layout.tensors.values() if len(spec.shape) == 4]
    return setup(
        **_FIXED,
        dataset=word("dataset", _DATASETS),
        activation=word("activation", _ACTIVATIONS),
        optimizer=word("optimizer", _OPTIMIZERS),
        initialization=initialization,
        init_std=float(theirs["init_std"]) if initialization in _SCALED else None,
        learning_rate=float(theirs["learning_rate"]),
        dropout=float(theirs["dropout"]),
        l2=float(theirs["l2reg"]),
        train_fraction=float(theirs["train_fraction"]),
        epochs=int(theirs["epochs"]),
        filter_size=convolutions[0][-1],
        depth_conv=len(convolutions),
        width_conv=convolutions[0][0],
    )


class _Rows:
    """Reads rows of the weights, in the order of the layout."""

    def __init__(self, weights: NDArray[Any], rows: Sequence[int], order: NDArray[np.int64]) -> None:
        self._weights = weights
        self._rows = rows
        self._order = order

    def __call__(self) -> Float32:
        """[snapshots, D] float32."""
        return self._weights[self._rows][:, self._order].astype(np.float32, copy=False)
