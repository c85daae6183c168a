"""Whether networks trained by one backend are as good as those that another makes of them.

    python benchmarks/paired_accuracy.py [--datasets mnist,fashion-mnist] [--models 100] [--threads 2]
        [--backends reference cpu reference-bf16 cuda cuda-bf16] [--preset NAME] [--set KEY=VALUE]

Trains the same members, small ones of ``nws-main`` or those of ``--preset``, for one full epoch with each
backend, and compares their test accuracies with those of the first, pair by pair. All begin with the same weights
and see the same batches under the same dropout masks, so what is left is rounding, which training magnifies until
single networks differ. If that is all there is, the differences have no preferred sign. Printed are the mean
difference with its 95 % confidence interval (Student's t), the paired t-test, Wilcoxon's signed-rank test, and the
correlation of the two accuracies, and the mean difference by optimizer, activation and initialization.
``reference-bf16`` rounds what passes between layers where the CUDA backend does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import stats

from wse.engine.space import Space, parse_override
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

SMALL = {
    "filter_size": [3, 5],
    "depth_conv": 3,
    "width_conv": 4,
    "depth_fc": [2, 3],
    "width_fc": 64,
}
COMMON = {
    "epochs": 1,
    "images_per_epoch": "all",
    "early_stopping": False,
    "snapshots": [1],
    "training_images": 10,
    "validation_images": 10,
}


def trained(space: Space, backend: str, options: argparse.Namespace) -> pa.Table:
    """The members, by id."""
    device, _, precision = backend.partition("-")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = Run(
            Options(
                space=space, models=options.models, folder=Path(folder) / "zoo", seed=options.seed,
                device=device, precision=precision or "fp32", threads=options.threads,
            )
        )  # fmt: skip
        run.execute()
        print(f"{backend}: {time.perf_counter() - began:.0f} s, {run.progress().counts}", flush=True)
        return Zoo.open(Path(folder) / "zoo").members.sort_by("id")


def compare(name: str, members: pa.Table, first_name: str, first: pa.Table) -> None:
    """Print how the members differ from the same ones of the first backend."""
    ours, others = (table["test_accuracy"].to_numpy() for table in (members, first))
    difference = 100 * (ours - others)
    mean, error = difference.mean(), stats.sem(difference)
    half = stats.t.ppf(0.975, len(difference) - 1) * error
    means = [f"{100 * found.mean():.3f} %" for found in (ours, others)]
    print(f"test accuracy, mean of {len(ours)}: {name} {means[0]}, {first_name} {means[1]}")
    print(f"difference: mean {mean:+.4f}, 95 % interval {mean - half:+.4f} to {mean + half:+.4f} points")
    print(
        f"single differences: standard deviation {difference.std(ddof=1):.3f}, "
        f"{difference.min():+.2f} to {difference.max():+.2f}, exactly equal {np.count_nonzero(difference == 0)}"
    )
    print(f"paired t-test p = {stats.ttest_rel(ours, others).pvalue:.3f}")
    print(f"Wilcoxon signed-rank p = {stats.wilcoxon(difference).pvalue:.3f}")
    print(f"correlation {np.corrcoef(ours, others)[0, 1]:.5f}")
    for column in ("optimizer", "activation", "initialization"):
        values = np.array(first[f"config.{column}"].to_pylist())
        groups = [(value, difference[values == value]) for value in sorted(set(values))]
        print(f"by {column}: " + ", ".join(f"{value} {some.mean():+.2f} ({len(some)})" for value, some in groups))


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", nargs="+", default=["reference", "cpu"], help="the first is the judge")
    parser.add_argument("--preset", default="nws-main")
    parser.add_argument("--datasets", default="mnist,fashion-mnist")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    common = {**COMMON, "dataset": options.datasets.split(",")}
    small = SMALL if options.preset == "nws-main" else {}
    chosen = dict(parse_override(text) for text in options.set)
    space = Space.load(preset=options.preset, overrides={**common, **small, **chosen})
    first, *others = options.backends
    exact = trained(space, first, options)
    for backend in others:
        compare(backend, trained(space, backend, options), first, exact)


if __name__ == "__main__":
    main()
