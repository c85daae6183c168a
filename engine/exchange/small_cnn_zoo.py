"""The small CNN zoo of Unterthiner et al., "Predicting Neural Network Accuracy from Weights" (2020).

A folder an image set: ``weights.npy`` [rows, D], a row a snapshot; ``metrics.csv.gz``, of each row what was
measured, the set-up of its network in ``config.*`` columns, the folder ``modeldir`` that the network was trained
in and the epoch (``step``); ``layout.csv``, which columns of the weights are which tensor. Tensors have
TensorFlow's shapes: a convolution [height, width, in, out], a linear layer [in, out].
"""

from __future__ import annotations

import gzip
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from csv import DictWriter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from wse.kernels.optim import OptimizerKind

from ..data import IMAGE_SET_NAMES
from ..errors import UsageError, WseError
from ..files import atomic_write
from ..nets import FAMILIES, Activation, Initialization, Layout
from ..text import name_text
from ..zoo import Items, Value, ZooMember, saving
from .foreign import Float32, Foreign, ForeignMember, ForeignSnapshot, reading, setup, sha256_of, translated

NAME = "small-cnn-zoo"

_WEIGHTS, _METRICS, _LAYOUT = "weights.npy", ("metrics.csv.gz", "metrics.csv"), "layout.csv"
_MEASURED = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_NETWORK = "modeldir"
# What may stand in a column of words, in ours; and their words for ours where they differ.
_WORDS: Mapping[str, Sequence[str]] = {
    "activation": get_args(Activation),
    "dataset": IMAGE_SET_NAMES,
    "initialization": get_args(Initialization),
    "optimizer": get_args(OptimizerKind),
}
_THEIRS = {
    "fashion-mnist": "fashion_mnist",
    "svhn": "svhn_cropped",
    "normal": "RandomNormal",
    "truncated_normal": "TruncatedNormal",
}
# Properties by the names that their columns have after "config.".
_COLUMNS = {
    "activation": "activation",
    "dataset": "dataset",
    "dropout": "dropout",
    "epochs": "epochs",
    "init_std": "init_std",
    "l2reg": "l2",
    "learning_rate": "learning_rate",
    "optimizer": "optimizer",
    "train_fraction": "train_fraction",
    "w_init": "initialization",
}
_SCALED = ("normal", "truncated_normal")
# What their code fixes; only files that wse made have columns for it.
_FIXED: Mapping[str, Value] = {
    "learning_rate_schedule": "constant",
    "batch_size": 512,
    "augmentation": False,
    "weight_decay": 0.0,
    "images_per_epoch": None,
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
    rows = _read_csv(metrics, required=(*_MEASURED, "step", *(f"config.{name}" for name in _COLUMNS)))
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
    known = dict(_COLUMNS) | {name: name for name in _FIXED}
    known = {name: ours for name, ours in known.items() if f"config.{name}" in rows.column_names}
    config = rows.select([f"config.{name}" for name in known]).rename_columns(list(known.values())).to_pylist()
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


def _setup(theirs: Mapping[str, Any], layout: Layout, where: str) -> dict[str, Value]:
    """The set-up of a network in our words."""
    config = setup(**{**_FIXED, **theirs, **_shape(layout)})
    for name, words in _WORDS.items():
        column = next(column for column, ours in _COLUMNS.items() if ours == name)
        known = {_THEIRS.get(word, word): word for word in words}
        config[name] = translated(str(theirs[name]), known, f"{where}: config.{column}")
    if config["initialization"] not in _SCALED:
        config["init_std"] = None
    return config


def _shape(layout: Layout) -> dict[str, Value]:
    """What the architecture says of the set-up."""
    kernels = [spec.shape for spec in layout.tensors.values() if len(spec.shape) == 4]
    return {
        "batch_norm": False,
        "filter_size": kernels[0][-1],
        "depth_conv": len(kernels),
        "width_conv": kernels[0][0],
    }


class _Rows:
    """Reads rows of the weights, in the order of the layout."""

    def __init__(self, weights: NDArray[Any], rows: Sequence[int], order: NDArray[np.int64]) -> None:
        self._weights = weights
        self._rows = rows
        self._order = order

    def __call__(self) -> Float32:
        """[snapshots, D] float32."""
        return self._weights[self._rows][:, self._order].astype(np.float32, copy=False)


def write(items: Items, folder: Path, tell: Callable[[int, int], None]) -> None:
    """Write networks as a folder of this format, with all their snapshots.

    Beside the columns of the original there are ``config.*`` columns for what its code fixes.

    Args:
        items: one of each network.
        folder: an empty one.
        tell: told how many networks have been written, and of how many.

    Raises:
        UsageError: the networks are not of one architecture of that family.
        WseError: a shard is missing or damaged, or a file cannot be written.
    """
    layout = _writable_layout(items)
    zoo, ids = items.zoo, items.members.tolist()
    order = np.concatenate([columns.ravel() for _, columns in _their_tensors(layout)])
    members = [zoo[member] for member in ids]
    rows = sum(member.record["snapshots"] for member in members)
    path = folder / _WEIGHTS
    with saving(path), atomic_write(path) as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, layout.size)}
        np.lib.format.write_array_header_1_0(file, header)
        for done, member in enumerate(members, 1):
            file.write(np.ascontiguousarray(member.weights()[:, order]).tobytes())
            tell(done, len(members))
    _write_csv(folder / _METRICS[0], [row for member in members for row in _their_rows(member)])
    at, tensors = 0, []
    for name, columns in _their_tensors(layout):
        place = {"start_idx": at, "end_idx": at + columns.size, "size": columns.size, "shape": str(columns.shape)}
        tensors.append({"varname": name, **place})
        at += columns.size
    _write_csv(folder / _LAYOUT, tensors)


def _writable_layout(items: Items) -> Layout:
    layouts = [items.zoo.layout(name) for name in items.compact().architectures]
    kernels = [spec for spec in layouts[0].tensors.values() if len(spec.shape) == 4]
    family = FAMILIES["small-cnn"]
    if len(layouts) == 1 and kernels:
        shape = {name: value for name, value in _shape(layouts[0]).items() if name in family.properties}
        if family.build(**shape) == layouts[0].architecture:
            return layouts[0]
    raise UsageError(
        f"the format {NAME} holds networks of one architecture of the family small-cnn, without batch "
        f"normalisation, and these are of {', '.join(layout.architecture.name for layout in layouts[:3])}: choose "
        "others by --where"
    )


def _their_tensors(layout: Layout) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The tensors in their order, with their names; in their shapes, the places of the values in our vector."""
    for number, layer in enumerate(layout.layers):
        bias, weight = (layout.tensors[f"{layer}.{kind}"] for kind in ("bias", "weight"))
        name = "dense" if len(weight.shape) == 2 else f"conv2d_{number}" if number else "conv2d"
        yield f"sequential/{name}/bias:0", np.arange(bias.offset, bias.stop)
        places = np.arange(weight.offset, weight.stop).reshape(weight.shape)
        yield f"sequential/{name}/kernel:0", places.transpose((2, 3, 1, 0) if places.ndim == 4 else (1, 0))


def _their_rows(member: ZooMember) -> Iterator[dict[str, Any]]:
    config = member.config
    setup = {
        f"config.{name}": _THEIRS.get(config[ours], config[ours]) if ours in _WORDS else config[ours]
        for name, ours in _COLUMNS.items()
    }
    setup |= {f"config.{name}": config[name] for name in _FIXED}
    setup |= {"config.num_layers": config["depth_conv"], "config.num_units": config["width_conv"]}
    folder = f"member-{member.id}"
    for row in member.snapshots:
        measured = {name: row[name] for name in _MEASURED}
        yield {
            "": f"{folder}/permanent_ckpt-{row['epoch']}",
            **setup,
            _NETWORK: folder,
            "step": row["epoch"],
            **measured,
        }


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table, compressed if its name says so; the same rows always give the same bytes."""
    text = io.StringIO(newline="")
    writer = DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    with saving(path), atomic_write(path) as file:
        file.write(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
