"""A small mixed population with few members of each architecture, by how many packs share the GPU at a time.

    python benchmarks/gpu_packs.py --folder FOLDER [--members 96] [--packs 1 4 16] [--device cuda]

Members are those of nws-main with their own optimizers, batch sizes and augmentation, of twelve architectures, on
the digits: about as many of each as among 2,000 members of the whole preset. First a short run compiles and loads
the kernels. Prints the time from nothing to a zoo, samples and useful FLOPs a second, evaluation included, and how
much faster than one pack after the other.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from statistics import mean

from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

SPACE = {
    "dataset": "digits",
    "filter_size": [3, 5],
    "depth_conv": 3,
    "width_conv": [8, 16],
    "depth_fc": [3, 4, 5],
    "width_fc": 64,
    "initialization": ["glorot_uniform", "glorot_normal"],
    "images_per_epoch": 1024,
    "snapshots": 2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the zoos; those there are replaced")
    parser.add_argument("--members", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 4, 16], help="at a time")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="append results, a JSON line each")
    given = parser.parse_args()

    def run(name: str, threads: int | None, **short: int) -> Run:
        folder = given.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        space = Space.load(preset="nws-main", overrides={**SPACE, "epochs": given.epochs, **short})
        options = Options(space=space, models=given.members, folder=folder, device=given.device, threads=threads)
        made = Run(options)
        made.execute()
        return made

    began = time.perf_counter()
    run("warm", None, epochs=1, images_per_epoch=256)
    print(f"compiled and loaded in {time.perf_counter() - began:.1f} s", flush=True)
    first = 0.0
    for packs in given.packs:
        began = time.perf_counter()
        done = run(f"packs-{packs}", packs)
        seconds = time.perf_counter() - began
        progress, members = done.progress(), Zoo.open(done.options.folder).members
        first = first or seconds
        print(
            f"{packs:3} packs at a time: {seconds:6.1f} s, {progress.training_images / seconds:12,.0f} samples/s, "
            f"{progress.flops / seconds / 1e12:7.2f} TFLOP/s, {first / seconds:5.2f} x the first",
            flush=True,
        )
        if given.out:
            row = {
                "packs": packs,
                "members": given.members,
                "seconds": seconds,
                "samples": progress.training_images,
                "flops": progress.flops,
                "mean_test_accuracy": mean(members["test_accuracy"].to_pylist()),
            }
            with given.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
