"""One small population by several backends, and how far their members' accuracies are apart.

    python benchmarks/gpu_population.py --folder FOLDER [--members 96] [--device cuda:bf16 cuda:fp32 cpu]

Members are those of nws-main with their own optimizers, batch sizes and augmentation, of three architectures, on
the digits. Prints for each backend the time, the mean and spread of test accuracies, and against the last one
named the members' differences and their correlation.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

SPACE = {
    "dataset": "digits",
    "filter_size": [3, 5, 7],
    "depth_conv": 3,
    "width_conv": 8,
    "depth_fc": 2,
    "width_fc": 64,
    "initialization": ["glorot_uniform", "glorot_normal"],
    "epochs": 8,
    "snapshots": 2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the zoos; they must not be there yet")
    parser.add_argument("--members", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=SPACE["epochs"])
    parser.add_argument("--device", nargs="+", default=["cuda:bf16", "cuda:fp32", "cpu"])
    options = parser.parse_args()
    space = Space.load(preset="nws-main", overrides={**SPACE, "epochs": options.epochs})
    found: dict[str, np.ndarray] = {}

    def train(named: str, folder: Path, space: Space) -> None:
        device, _, precision = named.partition(":")
        given = Options(
            space=space, models=options.members, folder=folder, device=device, precision=precision or None
        )
        Run(given).execute()

    for named in options.device:
        folder = options.folder / named.replace(":", "-")
        # Kernels are compiled, which is not timed.
        short = Space.load(preset="nws-main", overrides={**SPACE, "epochs": 1, "images_per_epoch": 256})
        train(named, folder.with_name(f"{folder.name}-compiled"), short)
        began = time.perf_counter()
        train(named, folder, space)
        seconds = time.perf_counter() - began
        members = Zoo.open(folder).members
        found[named] = np.asarray(members["test_accuracy"], dtype=float)
        accuracies, quartiles = found[named], np.quantile(found[named], [0.25, 0.5, 0.75])
        print(
            f"{named:10} {seconds:7.1f} s   test accuracy: mean {accuracies.mean():.4f}, "
            f"standard deviation {accuracies.std():.4f}, quartiles {quartiles.round(4)}",
            flush=True,
        )
        kept = {name: values.tolist() for name, values in found.items()}
        (options.folder / "accuracies.json").write_text(json.dumps(kept))
    last = options.device[-1]
    for named in options.device[:-1]:
        difference = found[named] - found[last]
        error = difference.std() / len(difference) ** 0.5
        print(
            f"{named} less {last}: mean {difference.mean():+.4f} (standard error {error:.4f}), "
            f"root mean square {np.sqrt((difference**2).mean()):.4f}, "
            f"correlation {np.corrcoef(found[named], found[last])[0, 1]:.3f}"
        )


if __name__ == "__main__":
    main()
