"""Whether networks trained by the CPU backend are as good as those that the reference backend makes of them.

    python benchmarks/paired_accuracy.py --datasets mnist,fashion-mnist [--models 100] [--threads 2]

Trains the same members, small ones of ``nws-main``, for one full epoch with both backends, and compares their
test accuracies pair by pair. Both begin with the same weights and see the same batches under the same dropout
masks, so what is left is rounding, which training magnifies until single networks differ. If that is all there
is, the differences have no preferred sign. Printed are the mean difference with its 95 % confidence interval
(Student's t), the paired t-test, Wilcoxon's signed-rank test, and the correlation of the two accuracies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

SMALL = {
    "filter_size": [3, 5],
    "depth_conv": 3,
    "width_conv": 4,
    "depth_fc": [2, 3],
    "width_fc": 64,
    "epochs": 1,
    "images_per_epoch": "all",
    "early_stopping": False,
    "snapshots": [1],
    "training_images": 10,
    "validation_images": 10,
}


def accuracies(space: Space, device: str, options: argparse.Namespace) -> np.ndarray:
    """Test accuracy of each member, by id."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = Run(
            Options(
                space=space, models=options.models, folder=Path(folder) / "zoo", seed=options.seed,
                device=device, threads=options.threads,
            )
        )  # fmt: skip
        run.execute()
        members = Zoo.open(Path(folder) / "zoo").members.sort_by("id")
        print(f"{device}: {time.perf_counter() - began:.0f} s, {run.progress().counts}", flush=True)
        return members["test_accuracy"].to_numpy()


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--datasets", default="mnist,fashion-mnist")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    space = Space.load(preset="nws-main", overrides={**SMALL, "dataset": options.datasets.split(",")})
    ours, reference = (accuracies(space, device, options) for device in ("cpu", "reference"))
    difference = 100 * (ours - reference)
    mean, error = difference.mean(), stats.sem(difference)
    half = stats.t.ppf(0.975, len(difference) - 1) * error
    means = [f"{100 * found.mean():.3f} %" for found in (ours, reference)]
    print(f"test accuracy, mean of {len(ours)}: cpu {means[0]}, reference {means[1]}")
    print(f"difference: mean {mean:+.4f}, 95 % interval {mean - half:+.4f} to {mean + half:+.4f} points")
    print(
        f"single differences: standard deviation {difference.std(ddof=1):.3f}, "
        f"{difference.min():+.2f} to {difference.max():+.2f}, exactly equal {np.count_nonzero(difference == 0)}"
    )
    print(f"paired t-test p = {stats.ttest_rel(ours, reference).pvalue:.3f}")
    print(f"Wilcoxon signed-rank p = {stats.wilcoxon(difference).pvalue:.3f}")
    print(f"correlation {np.corrcoef(ours, reference)[0, 1]:.5f}")


if __name__ == "__main__":
    main()
