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
from pathlib import Path

from wse.engine.bench.damage import trials
from wse.engine.space import Space
from wse.engine.train import Options, Run

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
