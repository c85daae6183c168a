"""Whether random damage to a zoo is noticed: by the reader, by `verify`, or by neither.

    python benchmarks/flip_bits.py [--count 1000] [--seed 0] [--zoo ZOO]

Flips a random bit of a random file or cuts it off, reads all there is to read (tables, weights, slices), verifies
the zoo, and puts it right again. Without `--zoo`, a zoo of twelve small networks of two architectures is trained
on the digits first. The log holds no data and is left alone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from wse.engine.errors import WseError
from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

SLICE = 20  # values; as short as the shortest part of a network may be
SPACE = {
    "dataset": "digits",
    "filter_size": 3,
    "width_conv": [2, 3],
    "width_fc": 8,
    "epochs": [1, 3],  # shards with padding
    "early_stopping": False,
    "images_per_epoch": 64,
    "training_images": 40,
    "validation_images": 40,
    "test_images": 50,
    "snapshots": 4,
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one damage.

    Attributes:
        kind: of file: its name, or "shard".
        how: what was done to which byte, in words.
        refused: whether the reader refused anything.
        found: whether ``verify`` found something.
        misread: what the reader gave out that was not what had been stored.
        crash: an error that no user should see, if there was one.
    """

    kind: str
    how: str
    refused: bool
    found: bool
    misread: tuple[str, ...]
    crash: str | None

    @property
    def passed(self) -> bool:
        """Whether it was noticed, nothing wrong was given out and nothing crashed."""
        return (self.refused or self.found) and not self.misread and self.crash is None


def trials(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """Damage a complete zoo ``count`` times, one file at a time, and put it right again after each.

    Files are drawn evenly over the kinds; half of the damages flip a bit anywhere in the file, half cut the file
    off anywhere.

    Args:
        folder: of the zoo; a copy, since a process that is killed here leaves it damaged.
        count: how many.
        seed: of where and how.
    """
    rng = np.random.default_rng(seed)
    zoo = Zoo.open(folder)
    kinds = {path.name: [path] for path in (folder / "zoo.json", *(folder / name for name in zoo.manifest.tables))}
    kinds["shard"] = [folder / "shards" / entry.file for entry in zoo.manifest.shards]
    stored = _read(folder, list(zoo))
    for _ in range(count):
        kind = str(rng.choice(list(kinds)))
        path = kinds[kind][rng.integers(len(kinds[kind]))]
        whole = path.read_bytes()
        how, broken = _damage(whole, rng)
        try:
            _replace(path, broken)
            yield _observe(folder, stored, kind=kind, how=f"{path.name}: {how}")
        finally:
            _replace(path, whole)


def _damage(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    position = int(rng.integers(len(content)))
    if rng.integers(2):
        return f"cut off at byte {position:,}", content[:position]
    bit = int(rng.integers(8))
    flipped = bytearray(content)
    flipped[position] ^= 1 << bit
    return f"bit {bit} of byte {position:,} flipped", bytes(flipped)


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # not written into: a reader may still have the old file mapped
    path.write_bytes(content)


def _observe(folder: Path, stored: dict[str, bytes | None], *, kind: str, how: str) -> Trial:
    members = [int(name.split()[1]) for name in stored if name.startswith("member ")]
    read: dict[str, bytes | None] = {}
    found, crash = False, None
    try:
        read = _read(folder, members)
        found = bool(_verify(folder))
    except Exception as error:  # whatever it is: that is the question
        crash = f"{type(error).__name__}: {error}"
    return Trial(
        kind=kind,
        how=how,
        refused=any(read[name] is None and stored[name] is not None for name in read),
        found=found,
        misread=tuple(name for name, content in read.items() if content not in (None, stored[name])),
        crash=crash,
    )


def _verify(folder: Path) -> list[str]:
    try:
        return Zoo.open(folder).verify()
    except WseError as error:
        return [str(error)]


def _read(folder: Path, members: list[int]) -> dict[str, bytes | None]:
    """All that a reader can get of a zoo, in bytes; None for what it refuses."""
    try:
        zoo = Zoo.open(folder)
    except WseError:
        return {"zoo": None}
    read: dict[str, Callable[[], bytes]] = {
        "zoo": lambda: repr(zoo.manifest).encode(),
        "members": lambda: _table_bytes(zoo.members),
        "snapshots": lambda: _table_bytes(zoo.snapshots),
        "slices": lambda: _slices(zoo),
    }
    for member in members:
        read[f"member {member}"] = partial(_weights, zoo, member)
    return {name: _or_refused(get) for name, get in read.items()}


def _or_refused(get: Callable[[], bytes]) -> bytes | None:
    try:
        return get()
    except WseError:
        return None


def _table_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _weights(zoo: Zoo, member: int) -> bytes:
    return zoo[member].weights().tobytes()


def _slices(zoo: Zoo) -> bytes:
    dataset = zoo.slices("all", SLICE, snapshots="all")
    values, targets = dataset.batch(np.arange(len(dataset)))
    return values.numpy().tobytes() + targets.numpy().tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--zoo", type=Path, help="damage a copy of this zoo")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "zoo"
        if arguments.zoo:
            shutil.copytree(arguments.zoo, folder)
        else:
            space = Space.load(preset="nws-fixed", overrides=SPACE)
            Run(Options(space=space, models=12, folder=folder, device="reference")).execute()
        found: Counter[tuple[str, str]] = Counter()
        failed = []
        for trial in trials(folder, arguments.count, arguments.seed):
            how = "cut" if "cut off" in trial.how else "bit"
            found.update(
                (f"{trial.kind}, {how}", column)
                for column, counts in {
                    "damaged": True,
                    "reader": trial.refused,
                    "verify": trial.found,
                    "neither": not (trial.refused or trial.found),
                    "misread": bool(trial.misread),
                    "crashed": trial.crash is not None,
                }.items()
                if counts
            )
            if not trial.passed:
                failed.append(trial)
    columns = ("damaged", "reader", "verify", "neither", "misread", "crashed")
    print(f"{'file, damage':<26}" + "".join(f"{column:>9}" for column in columns))
    rows = sorted({row for row, _ in found})
    for row in rows:
        print(f"{row:<26}" + "".join(f"{found[row, column]:>9,}" for column in columns))
    print(f"{'all':<26}" + "".join(f"{sum(found[row, column] for row in rows):>9,}" for column in columns))
    for trial in failed:
        print(trial)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
