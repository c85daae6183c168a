"""Checkpoints: where the members in training are, so that a run that is killed goes on in the middle of them.

An unfinished zoo has a folder ``checkpoints`` beside its journal, with a file for each member that has been in
training for long enough: ``000123.safetensors``, of these tensors:

    weights [D], optimizer [slots, D], losses [steps done]    see ``RowState``
    last [D]                                                  the weights at the end of the last finite epoch
    held [snapshots, D]                                       weights of past epochs that may become snapshots

All else stands as sorted JSON under the single metadata key ``wse``, ``{"entry": ..., "sha256": ...}``, with the
checksum of the entry and of all tensors. A file that is not, byte for byte, what would be written for what it
says, or that is of another run, is removed and its member begins anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..files import atomic_write, make_folder, sync_folder
from ..zoo import CHECKPOINT_FOLDER, Manifest, saving
from .backend import RowState, Weights
from .log import Listener
from .schedule import StoppingCounters

CHECKPOINT_SECONDS = 300.0  # of work that may be lost
_FORMAT_VERSION = 1
# Checkpoints that take long are taken more rarely, so that they take no more than this share of the time.
_MOST_SHARE = 0.01
# What the bits of a member follow from. The software too: no member may be trained by two versions of PyTorch.
DECISIVE = ("wse_version", "software", "seed", "space", "image_sets", "backend", "precision")

Tensors = Mapping[str, npt.NDArray[Any]]


class Counters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the trainer counts of a member.

    Attributes:
        epochs: finite epochs that are done.
        steps_per_epoch: of an epoch; 0 before the first has ended.
        diverged: whether the loss or a weight stopped being finite.
        ended: whether it trains no further.
        samples_trained: images trained on.
        samples_evaluated: images measured.
        seconds: its share of the time.
    """

    epochs: int = 0
    steps_per_epoch: int = 0
    diverged: bool = False
    ended: bool = False
    samples_trained: int = 0
    samples_evaluated: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A member in the middle of its training.

    Attributes:
        member: its id.
        row: what the pack goes on from.
        counters: the trainer's.
        stopping: those of early stopping, if members may stop early.
        last: the weights at the end of the last finite epoch, float32 [D].
        held: weights that may become snapshots, by epoch, float32 [D] each.
        stride: see ``SnapshotKeeper``.
    """

    member: int
    row: RowState
    counters: Counters
    stopping: StoppingCounters | None
    last: Weights
    held: Mapping[int, Weights]
    stride: int


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    run: str
    member: int
    epoch: int
    counters: Counters
    stopping: StoppingCounters | None
    held: tuple[int, ...]
    stride: int


class _Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: _Entry
    sha256: str


class Checkpoints:
    """The checkpoints of a run; any thread may use them, each for members of its own.

    Args:
        zoo: the folder of the unfinished zoo.
        manifest: of the run.
        seconds: of work that may be lost; 0: a checkpoint at every end of an epoch.
        log: told of what is found.
    """

    def __init__(self, zoo: Path, manifest: Manifest, *, seconds: float, log: Listener) -> None:
        self.folder = zoo / CHECKPOINT_FOLDER
        self.seconds = seconds
        decisive = {name: getattr(manifest, name) for name in DECISIVE}
        self._run = hashlib.sha256(_canonical(decisive)).hexdigest()
        self._log = log
        self._closed = threading.Event()

    def start(self, missing: Collection[int]) -> None:
        """Make the folder, and remove all from it but checkpoints of members that are ``missing`` in the zoo.

        Raises:
            WseError: the folder cannot be written to.
        """
        keep = {self.path(member) for member in missing}
        with saving(self.folder):
            make_folder(self.folder)
            for path in set(self.folder.iterdir()) - keep:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)  # a worker of a run that was killed may just be leaving

    def path(self, member: int) -> Path:
        """Where the checkpoint of a member is kept."""
        return self.folder / f"{member:06d}.safetensors"

    def pause(self, took: float) -> float:
        """Seconds until the next checkpoints are due, when the last ones took so many."""
        return max(self.seconds, took / _MOST_SHARE) if self.seconds else 0.0

    def close(self) -> None:
        """From now on nothing is saved: the process is to leave at once."""
        self._closed.set()

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a member's checkpoint in the place of its last one; it is on the disk when this returns.

        Raises:
            WseError: the file cannot be written.
        """
        if self._closed.is_set():
            return
        path, content = self.path(checkpoint.member), _encode(checkpoint, self._run)
        with saving(path), atomic_write(path) as file:
            file.write(content)

    def load(self, member: int) -> Checkpoint | None:
        """A member's checkpoint, if there is a good one.

        Raises:
            WseError: a damaged file cannot be removed.
        """
        path = self.path(member)
        try:
            checkpoint = _decode(path.read_bytes(), member, self._run)
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            self._log.write("note", text=f"{path}: {error}; member {member} begins anew")
            self.discard(member)
            return None
        self._log.write("resumed", id=member, epochs=checkpoint.counters.epochs)
        return checkpoint

    def discard(self, member: int) -> None:
        """Remove a member's checkpoint, if there is one.

        Raises:
            WseError: it cannot be removed.
        """
        with saving(self.path(member)):
            self.path(member).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder: all members are stored.

        Raises:
            WseError: it cannot be removed.
        """
        with saving(self.folder):
            if self.folder.exists():
                shutil.rmtree(self.folder)
                sync_folder(self.folder.parent)


class Due:
    """Says when a trainer's members should be checkpointed, by a clock that nobody can set.

    Args:
        checkpoints: where they are kept.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._at = time.monotonic() + checkpoints.pause(0.0)

    def __bool__(self) -> bool:
        return time.monotonic() >= self._at

    def taken(self, began: float) -> None:
        """Checkpoints have been taken since ``began`` by the monotonic clock."""
        now = time.monotonic()
        self._at = now + self._checkpoints.pause(now - began)


def _encode(checkpoint: Checkpoint, run: str) -> bytes:
    tensors = {
        "weights": checkpoint.row.weights,
        "optimizer": checkpoint.row.optimizer,
        "losses": checkpoint.row.losses,
        "last": checkpoint.last,
        "held": np.array([*checkpoint.held.values()], np.float32).reshape(-1, len(checkpoint.last)),
    }
    entry = _Entry(
        format=_FORMAT_VERSION,
        run=run,
        member=checkpoint.member,
        epoch=checkpoint.row.epoch,
        counters=checkpoint.counters,
        stopping=checkpoint.stopping,
        held=tuple(checkpoint.held),
        stride=checkpoint.stride,
    )
    metadata = _Metadata(entry=entry, sha256=_checksum(entry, tensors))
    return save(tensors, {"wse": _canonical(metadata).decode()})


def _decode(content: bytes, member: int, run: str) -> Checkpoint:
    """The checkpoint in a file of this member and run; a ``ValueError`` says why there is none."""
    try:
        length = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + length])["__metadata__"]["wse"]
        metadata = msgspec.json.decode(text, type=_Metadata)
        # Copies, because what is loaded may not be written to.
        tensors = {name: values.copy() for name, values in load(content).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    entry = metadata.entry
    if metadata.sha256 != _checksum(entry, tensors):
        raise ValueError("it is damaged (its content does not match its sha256)")
    if (entry.format, entry.run, entry.member) != (_FORMAT_VERSION, run, member):
        raise ValueError("it is of another run")
    checkpoint = Checkpoint(
        member=member,
        row=RowState(
            weights=tensors["weights"],
            optimizer=tensors["optimizer"],
            epoch=entry.epoch,
            losses=tensors["losses"],
        ),
        counters=entry.counters,
        stopping=entry.stopping,
        last=tensors["last"],
        held=dict(zip(entry.held, tensors["held"], strict=True)),
        stride=entry.stride,
    )
    if _encode(checkpoint, run) != content:
        raise ValueError("it is damaged (it is not as it was written)")
    return checkpoint


def _checksum(entry: _Entry, tensors: Tensors) -> str:
    shapes = {name: [values.dtype.str, *values.shape] for name, values in tensors.items()}
    digest = hashlib.sha256(_canonical([entry, shapes]))
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _canonical(data: Any) -> bytes:
    return msgspec.json.encode(data, order="sorted")
