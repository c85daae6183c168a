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
from collections import Counter
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
from ..space import arrow_types
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
_SETUP = {f"config.{name}": ours for name, ours in (_COLUMNS | {name: name for name in _FIXED}).items()}


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
    types = {name: arrow_types()[ours] for name, ours in _SETUP.items()}
    types |= {"step": "int64", **dict.fromkeys(_MEASURED, "double")}
    rows = _read_csv(metrics, types, required=[name for name in types if name.partition(".")[2] not in _FIXED])
    with reading(source / _WEIGHTS, ValueError):
        weights = np.lib.format.open_memmap(source / _WEIGHTS, mode="r")
    if weights.dtype.kind != "f":
        raise WseError(f"{source / _WEIGHTS} holds {weights.dtype} and not real numbers: get it again")
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


def _read_csv(path: Path, types: Mapping[str, str], required: Iterable[str]) -> pa.Table:
    """A table, compressed or not, whose columns have these types if they are there."""
    with reading(path):
        path.open("rb").close()
    # Whole numbers may stand there as 86.0, as pandas writes them where any is missing.
    read = {name: "double" if type_ == "int64" else type_ for name, type_ in types.items()}
    options = csv.ConvertOptions(column_types={name: pa.type_for_alias(type_) for name, type_ in read.items()})
    # OSError: a compressed file that ends too early.
    with reading(path, pa.ArrowException, UnicodeDecodeError, OSError):
        table = csv.read_csv(path, convert_options=options)
        names = Counter(table.column_names)
    for name in (*types, _NETWORK):
        if names[name] > 1 or (name in required and not names[name]):
            fault = "has twice" if names[name] else "lacks"
            raise WseError(f"{path} {fault} the column {name!r}: it is not of the small CNN zoo")
    for place, name in enumerate(table.column_names):
        if types.get(name) == "int64":
            with reading(path, pa.ArrowException):
                table = table.set_column(place, name, table[name].cast(pa.int64()))
    return table


def _read_layout(path: Path) -> tuple[Layout, NDArray[np.int64]]:
    """The layout of the networks, and for each of its values the column of the weights that has it [D]."""
    tensors: dict[str, dict[str, NDArray[np.int64]]] = {}
    types = {"varname": "string", "start_idx": "int64", "end_idx": "int64", "shape": "string"}
    at = 0
    for row in _read_csv(path, types, required=types).sort_by("start_idx").to_pylist():
        layer, _, kind = row["varname"].partition(":")[0].rpartition("/")
        shape = [int(size) for size in re.findall(r"\d+", row["shape"])]
        start, at = at, at + math.prod(shape)
        if kind not in ("kernel", "bias") or (row["start_idx"], row["end_idx"]) != (start, at):
            raise WseError(
                f"{path} has a tensor {row['varname']} of shape {row['shape']} in the columns from "
                f"{row['start_idx']} to {row['end_idx']}: wse has no such networks"
            )
        columns = np.arange(start, at)
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
    known = [name for name in _SETUP if name in rows.column_names]
    setups = rows.select(known).rename_columns([_SETUP[name] for name in known])
    # Without a column that names the network, rows are of one if they have one set-up.
    named = _NETWORK in rows.column_names
    names = rows[_NETWORK].to_pylist() if named else [str(row) for row in setups.to_pylist()]
    epochs = rows["step"].to_pylist()
    found: dict[str, list[int]] = {}
    for row, (name, epoch) in enumerate(zip(names, epochs, strict=True)):
        if name in (None, "") or epoch is None or epoch < 0:
            raise WseError(f"{file}, line {row + 2} does not say which epoch of which network it is: get it again")
        found.setdefault(name, []).append(row)
    if named:
        _check_setups(file, rows.select([_NETWORK, *known]))
    config = setups.take(pa.array([own[0] for own in found.values()], pa.int64())).to_pylist()
    measured = [
        {name: math.nan if value is None else value for name, value in row.items()}  # as NaN is written there
        for row in rows.select(_MEASURED).to_pylist()
    ]
    members = []
    for (name, own), theirs in zip(found.items(), config, strict=True):
        first = own[0]
        own.sort(key=lambda row: epochs[row])
        if len({epochs[row] for row in own}) < len(own):
            raise WseError(f"{file} has two rows of the network {name} at one epoch: get it again")
        members.append(
            ForeignMember(
                origin=f"{file.parent.resolve()}: {name}",
                layout=layout,
                config=_setup(theirs, layout, f"{file}, line {first + 2}"),
                snapshots=tuple(
                    ForeignSnapshot(epoch=epochs[row], step=None, metrics=measured[row]) for row in own
                ),
                read=_Rows(weights, own, order),
                facts={"epochs": epochs[own[-1]]},
            )
        )
    return members


def _check_setups(file: Path, rows: pa.Table) -> None:
    """Rows of one network tell of one set-up; else some are of another, and its answers would be wrong."""
    setups = Counter(rows.group_by(rows.column_names).aggregate([])[_NETWORK].to_pylist())
    for name, count in setups.most_common(1):
        if count > 1:
            raise WseError(f"{file} has {count} set-ups of the network {name}: get it again")


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
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and left out
            return self._weights[self._rows][:, self._order].astype(np.float32, copy=False)


def needed(items: Items) -> int:
    """Bytes of the weights of all snapshots."""
    return 4 * sum(
        items.layout(index).size * int(items.zoo[member].record["snapshots"])
        for index, member in enumerate(items.members.tolist())
    )


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
