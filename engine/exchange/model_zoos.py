"""The raw zoos of "Model Zoos: A Dataset of Diverse Populations of Neural Network Models" (Schürholt et al.).

A folder a network, as Ray Tune leaves it: ``result.json``, a line an epoch with what was measured, the set-up
under ``config`` and the epoch as ``training_iteration``; ``checkpoint_000000/checkpoints``, ... (in some without
the zeros), the state dict after so many epochs. Networks are three convolutions and two linear layers;
``model::type`` says which.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WseError
from ..nets import Layout
from ..nets.architecture import Activate, Architecture, Conv, Dropout, Flatten, Input, Layer, Linear, MaxPool
from ..text import counted_text
from ..zoo import Value
from .foreign import Float32, Foreign, ForeignMember, ForeignSnapshot, reading, setup, translated

if TYPE_CHECKING:
    import torch

NAME = "model-zoos"

_RESULTS, _WEIGHTS = "result.json", "checkpoints"
# Channels and filters of the convolutions; whether the last one is pooled, too; pixels of a side.
_TYPES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], bool, int]] = {
    "CNN": ((8, 6, 4), (5, 5, 2), False, 28),
    "CNN2": ((6, 9, 6), (5, 5, 2), False, 28),
    "CNN3": ((16, 32, 15), (3, 3, 3), True, 32),
}
_ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "gelu": "gelu", "leakyrelu": "leaky_relu"}
_INITIALIZATIONS = {
    "uniform": "uniform",
    "normal": "normal",
    "kaiming_uniform": "he_uniform",
    "kaiming_normal": "he_normal",
    "xavier_uniform": "glorot_uniform",
    "xavier_normal": "glorot_normal",
}
_OPTIMIZERS = {"adam": "adam", "sgd": "sgd", "rms_prop": "rmsprop"}
# Image sets by what paths say of them; the first that is found counts.
_DATASETS = {
    r"f[-_]?mnist|fashion": "fashion-mnist",
    r"mnist": "mnist",
    r"cifar[-_]?10(?!\d)": "cifar10",
    r"svhn": "svhn",
    r"stl[-_]?10": "stl10",
}
_MEASURED = {
    "train_loss": "train_loss",
    "train_acc": "train_accuracy",
    "test_loss": "test_loss",
    "test_acc": "test_accuracy",
}
_NOT_MEASURED = -999  # stands for the figures of training before any


def recognises(source: Path) -> bool:
    """Whether a folder holds networks."""
    return source.is_dir() and bool(_folders(source))


def read(source: Path) -> Foreign:
    """What a folder of networks, or that of one network, holds.

    Raises:
        UsageError: a file cannot be read.
        WseError: a file is damaged, or wse has no such networks.
    """
    folders = _folders(source)
    with_weights = [folder for folder in folders if _checkpoints(folder)]
    lost = len(folders) - len(with_weights)
    return Foreign(
        members=[_member(folder) for folder in with_weights],
        files={},
        notes=(f"left out: {counted_text(lost, 'folder')} of {source} without any checkpoint",) if lost else (),
    )


def _folders(source: Path) -> list[Path]:
    """The folder itself if it is a network's, or those in it that are."""
    if (source / _RESULTS).is_file():
        return [source]
    return sorted(results.parent for results in source.glob(f"*/{_RESULTS}"))


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The files of weights by epoch, in order."""
    files = folder.glob(f"checkpoint_*/{_WEIGHTS}")
    found = {int(file.parent.name.removeprefix("checkpoint_")): file for file in files if _number(file)}
    return dict(sorted(found.items()))


def _number(file: Path) -> bool:
    return re.fullmatch(r"checkpoint_\d+", file.parent.name) is not None


def _member(folder: Path) -> ForeignMember:
    path = folder / _RESULTS
    with reading(path, ValueError), path.open(encoding="utf-8") as file:
        results = [json.loads(line) for line in file if line.strip()]
    if not results or not all(isinstance(result, dict) and "config" in result for result in results):
        raise WseError(f"{path} has no line with a set-up: remove the folder, or get it again")
    config = results[0]["config"]
    layout = _layout_of(config, str(path))
    measured = {result.get("training_iteration"): result for result in results}
    files = _checkpoints(folder)
    return ForeignMember(
        origin=str(folder.resolve()),
        layout=layout,
        config=_setup(config, folder, layout, str(path)),
        snapshots=tuple(
            ForeignSnapshot(epoch=epoch, step=None, metrics=_metrics(measured.get(epoch, {}))) for epoch in files
        ),
        read=_States(list(files.values()), layout),
        facts={"epochs": max(files), "seconds": float(results[-1].get("time_total_s", np.nan))},
    )


def _metrics(result: Mapping[str, Any]) -> dict[str, float]:
    return {
        ours: float(result[theirs])
        for theirs, ours in _MEASURED.items()
        if result.get(theirs) is not None and result[theirs] != _NOT_MEASURED
    }


def _entry(config: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in config:
        raise WseError(f"{where} has no {name!r} in its set-up: it is not of the model zoos")
    return config[name]


def _layout_of(config: Mapping[str, Any], where: str) -> Layout:
    kind, channels = (_entry(config, f"model::{name}", where) for name in ("type", "channels_in"))
    if kind not in _TYPES or channels not in (1, 3):
        raise WseError(
            f"{where}: model::type is {kind!r} with {channels} channels, and wse reads {', '.join(_TYPES)} with "
            "1 or 3: leave such networks out"
        )
    return _layout(kind, channels)


@cache
def _layout(kind: str, channels: int) -> Layout:
    widths, kernels, pooled, size = _TYPES[kind]
    layers: list[Layer] = []
    for place, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        last = place == len(widths) - 1
        pool = [MaxPool(size=2)] if pooled or not last else []
        drop = [Dropout()] if pooled or not last else []
        layers += [Conv(channels=width, kernel=kernel, padding="valid"), *pool, Activate(), *drop]
    layers += [Flatten(), Linear(features=20), Activate(), Dropout(), Linear(features=10)]
    # Images come as they normalised them, each set in its own way.
    seen = Input(size=size, color="grey" if channels == 1 else "rgb")
    return Layout(Architecture(name=f"model-zoos-{kind.lower()}-{channels}", input=seen, layers=tuple(layers)))


class _States:
    """Reads the weights of a network, a state dict a snapshot."""

    def __init__(self, files: Sequence[Path], layout: Layout) -> None:
        self._files = files
        self._layout = layout

    def __call__(self) -> Float32:
        """[snapshots, D] float32."""
        weights = np.empty((len(self._files), self._layout.size), np.float32)
        for row, file in zip(weights, self._files, strict=True):
            for spec, values in zip(self._layout.tensors.values(), self._tensors(file), strict=True):
                row[spec.offset : spec.stop] = values.ravel()
        return weights

    def _tensors(self, file: Path) -> Iterator[Float32]:
        """The tensors of a snapshot in our order and our shapes."""
        import torch

        with reading(file):
            content = file.read_bytes()
        with reading(file, Exception):  # of damaged bytes torch makes errors of many kinds
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        specs = list(self._layout.tensors.values())
        found = [tensor for _, tensor in sorted(state.items(), key=_place)]
        if [tuple(tensor.shape) for tensor in found] != [spec.shape for spec in specs]:
            raise WseError(f"{file} has other tensors than a network of that set-up: get it again")
        first_linear = next(spec for spec in specs if spec.layer == "fc1")
        pixels = self._pixels()
        for spec, tensor in zip(specs, found, strict=True):
            values: Float32 = tensor.float().numpy()
            if spec is first_linear:  # what comes in is flattened channel by channel there, pixel by pixel here
                values = values.reshape(len(values), -1, *pixels).transpose(0, 2, 3, 1)
            yield values

    def _pixels(self) -> tuple[int, ...]:
        architecture = self._layout.architecture
        shapes = zip(architecture.shapes(), architecture.layers, strict=False)
        return next(shape[:2] for shape, layer in shapes if isinstance(layer, Flatten))


def _place(item: tuple[str, torch.Tensor]) -> tuple[int, bool]:
    """Where a tensor stands: ``module_list.3.weight`` before its bias, and before ``module_list.6.weight``."""
    numbers = re.findall(r"\d+", item[0])
    return int(numbers[0]) if numbers else -1, item[0].endswith("bias")


def _setup(config: Mapping[str, Any], folder: Path, layout: Layout, where: str) -> dict[str, Value]:
    """The set-up of a network in our words."""

    def word(name: str, words: Mapping[str, str]) -> str:
        return translated(str(_entry(config, name, where)), words, f"{where}: {name}")

    optimizer = word("optim::optimizer", _OPTIMIZERS)
    if optimizer == "sgd" and config.get("optim::momentum"):
        optimizer = "momentum"
    initialization = word("model::init_type", _INITIALIZATIONS)
    kernels = {spec.shape[-1] for spec in layout.tensors.values() if len(spec.shape) == 4}
    return setup(
        dataset=_dataset(config, folder, where),
        optimizer=optimizer,
        learning_rate=float(_entry(config, "optim::lr", where)),
        learning_rate_schedule=None if config.get("optim::scheduler") else "constant",
        batch_size=int(_entry(config, "training::batchsize", where)),
        augmentation=False,
        activation=word("model::nlin", _ACTIVATIONS),
        initialization=initialization,
        init_std=1.0 if initialization == "normal" else None,
        dropout=float(_entry(config, "model::dropout", where)),
        l2=0.0,
        weight_decay=float(_entry(config, "optim::wd", where)),
        epochs=int(_entry(config, "training::epochs_train", where)),
        batch_norm=False,
        filter_size=kernels.pop() if len(kernels) == 1 else None,
        depth_conv=3,
        depth_fc=1,
        width_fc=20,
    )


def _dataset(config: Mapping[str, Any], folder: Path, where: str) -> str:
    """The image set, which only paths tell: of the images, or else of the zoo."""
    texts = [str(config.get(name, "")) for name in ("dataset::dump", "training::data_path")]
    for text in (*texts, folder.resolve().parent.name):
        for pattern, name in _DATASETS.items():
            if re.search(pattern, text.lower()):
                return name
    raise WseError(
        f"{where} does not say which image set ({', '.join(_DATASETS.values())}) the network was trained on: name "
        "the folder of the zoo after it, or leave the network out"
    )
