"""The networks of "Classifying the classifier" (Eilertsen et al., 2020), as their authors keep them.

A folder a network: ``meta.csv`` (one row, the set-up), ``weights/001.bin`` to ``020.bin`` (the vector [D] as
little-endian float64, in the order that wse has as well), ``error.bin`` (float64 [evaluations, 5]: optimizer step,
training, validation and test error in per cent, smoothed validation error; the first before any training, then one
an epoch) and ``stat.bin`` (float64: evaluations, steps, epochs, seconds). An index is a CSV file with the same
columns and ``path``, a row a network.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError, WseError
from ..nets import FAMILIES, Layout
from ..text import name_text
from ..zoo import Value
from .foreign import Float32, Foreign, ForeignMember, ForeignSnapshot, reading, setup, sha256_of, translated

NAME = "nws"

_META = "meta.csv"
_SNAPSHOTS = 20  # at most, spread evenly over the evaluations

_DATASETS = {
    "mnist": "mnist",
    "cifar10": "cifar10",
    "svhn": "svhn",
    "stl10": "stl10",
    "fashion": "fashion-mnist",
}
_FLAGS = {"false": False, "true": True, "0": False, "1": True}
# Codes are places in these.
_OPTIMIZERS = ("adam", "rmsprop", "momentum")
_ACTIVATIONS = ("relu", "elu", "sigmoid", "tanh")
_INITIALIZATIONS = ("constant", "normal", "glorot_uniform", "glorot_normal")
# What no column says and their code fixes.
_FIXED: Mapping[str, Value] = {
    "learning_rate_schedule": "constant",  # the decay in it counts steps of a counter that stands still
    "dropout": 0.5,
    "l2": 0.0,
    "weight_decay": 0.0,
    "train_fraction": 1.0,
    "epochs": 1000,
}


def recognises(source: Path) -> bool:
    """Whether a file is an index, or a folder holds networks."""
    return source.suffix == ".csv" if source.is_file() else bool(_folders(source))


def read(source: Path) -> Foreign:
    """What an index, a folder of networks or the folder of one network holds.

    Raises:
        UsageError: a file is missing or cannot be read.
        WseError: a file is damaged, or wse has no such networks.
    """
    if source.is_dir():
        folders = _folders(source)
        return Foreign(members=[_member(folder, *_own_row(folder / _META)) for folder in folders], files={})
    members = []
    for line, row in enumerate(_rows(source), 2):
        where = f"{source}, line {line}"
        members.append(_member(_resolved(source, _cell(row, "path", where)), row, where))
    return Foreign(members=members, files={name_text(source): sha256_of(source)})


def _folders(source: Path) -> list[Path]:
    """The folder itself if it is a network's, or those in it that are."""
    if (source / _META).is_file():
        return [source]
    return sorted(meta.parent for meta in source.glob(f"*/{_META}"))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with reading(path, UnicodeDecodeError, csv.Error), path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _own_row(path: Path) -> tuple[dict[str, str], str]:
    """The one row of a network's own file, and where it is."""
    rows = list(_rows(path))
    if len(rows) != 1:
        raise WseError(f"{path} has {len(rows)} rows and not the one of its network: get it again")
    return rows[0], str(path)


def _resolved(index: Path, path: str) -> Path:
    """A folder that an index names: beside it, or from where the command is given."""
    beside = index.parent / path
    return beside if beside.is_dir() else Path(path)


def _cell(row: dict[str, str], name: str, where: str) -> str:
    value = row.get(name)
    if value is None:
        raise WseError(f"{where} has no {name!r}: it is not of the study's networks")
    return value


def _member(folder: Path, row: dict[str, str], where: str) -> ForeignMember:
    config, layout = _setup(row, where)
    files = sorted((folder / "weights").glob("[0-9][0-9][0-9].bin"))
    if not files:
        raise UsageError(f"there are no weights in {folder / 'weights'}, which {where} names")
    stat = _numbers(folder / "stat.bin", 4)[0]
    errors = _numbers(folder / "error.bin", 5)
    numbers = [int(file.stem) for file in files]
    counted = np.isfinite([*stat, *errors[:, 0]]).all() and 1 <= stat[0] <= len(errors)
    if not counted or not 1 <= min(numbers) <= max(numbers) <= _SNAPSHOTS:
        raise WseError(f"the files of {folder} do not go together: get them again")
    evaluations = round(stat[0])
    places = np.linspace(1, evaluations, _SNAPSHOTS).round().astype(int) - 1  # counted from 0, before training
    return ForeignMember(
        origin=str(folder.resolve()),
        layout=layout,
        config=config,
        snapshots=tuple(_snapshot(places[number - 1], errors) for number in numbers),
        read=_Files(files, layout.size),
        facts={"epochs": evaluations - 1, "steps": int(stat[1]), "seconds": float(stat[3])},
    )


def _snapshot(place: int, errors: NDArray[np.float64]) -> ForeignSnapshot:
    step, *measured = errors[place].tolist()
    parts = ("train", "validation", "test")
    metrics = {f"{part}_accuracy": 1 - error / 100 for part, error in zip(parts, measured, strict=False)}
    return ForeignSnapshot(epoch=int(place), step=int(step), metrics=metrics)


def _numbers(path: Path, columns: int) -> NDArray[np.float64]:
    """Rows of a file of numbers [rows, columns]."""
    with reading(path, ValueError):
        content = path.read_bytes()
        numbers = np.frombuffer(content, "<f8").reshape(-1, columns)
    if not len(numbers):
        raise WseError(f"{path} is empty: get it again")
    return numbers


class _Files:
    """Reads the weights of a network, a file a snapshot."""

    def __init__(self, files: list[Path], size: int) -> None:
        self._files = files
        self._size = size

    def __call__(self) -> Float32:
        """[snapshots, D] float32; they were trained in single precision, so nothing is rounded."""
        weights = np.empty((len(self._files), self._size), np.float32)
        for row, file in zip(weights, self._files, strict=True):
            values = _numbers(file, 1)[:, 0]
            if len(values) != self._size:
                raise WseError(
                    f"{file} has {len(values):,} values, and a network of that set-up {self._size:,}: get it again"
                )
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and left out
                row[:] = values
        return weights


@cache
def _layout(**architecture: Any) -> Layout:
    return Layout(FAMILIES["nws"].build(**architecture))


def _setup(row: dict[str, str], where: str) -> tuple[dict[str, Value], Layout]:
    """The set-up of a network in our words, and its layout."""

    def number(name: str, kind: Callable[[str], Any] = int) -> Any:
        text = _cell(row, name, where)
        try:
            return kind(text)
        except (ValueError, KeyError):
            raise WseError(f"{where}: {name} cannot be {text!r}") from None

    def coded(name: str, words: tuple[str, ...]) -> str:
        return str(number(name, lambda text: dict(enumerate(words))[int(text)]))

    def flag(name: str) -> bool:
        return bool(number(name, lambda text: _FLAGS[text.strip().lower()]))

    architecture = {name: number(name) for name in ("filter_size", "depth_conv", "width_conv")}
    architecture |= {name: number(name) for name in ("depth_fc", "width_fc")} | {"batch_norm": flag("batch_norm")}
    initialization = coded("initialization", _INITIALIZATIONS)
    config = setup(
        **_FIXED,
        **architecture,
        dataset=translated(_cell(row, "dataset", where), _DATASETS, f"{where}: dataset"),
        learning_rate=number("lrate", float),
        batch_size=number("batch_size"),
        augmentation=flag("augmentation"),
        optimizer=coded("optimizer", _OPTIMIZERS),
        activation=coded("activation", _ACTIVATIONS),
        initialization=initialization,
        init_std=1.0 if initialization == "normal" else None,
    )
    return config, _layout(**architecture)
