"""What a zoo has cost, and what the same population would have cost with plain PyTorch, a member at a time.

    python benchmarks/costs.py ZOO [ZOO ...] [--sample 20]

The cost of the zoo is what ``zoo.json`` and the log say, all sittings together. Its first members are then
trained again on this machine: by the backend that made them, and by PyTorch (the reference backend, as many
members side by side as there are cores, a thread each). What PyTorch would take for all is extrapolated
from that sample by floating point operations, evaluation included. The peak is that of multiply-adds on all cores,
the larger of two measurements before and after. Prints a column a zoo, as Markdown.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from wse.engine.bench.peak import Probe
from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.train.again import AGAIN
from wse.engine.train.log import sittings
from wse.engine.zoo import Manifest, Timing, Zoo


def sampled(manifest: Manifest, device: str, models: int) -> tuple[float, int]:
    """(wall seconds of training the first members of a zoo, floating point operations of that)."""
    run = manifest.the_run(Path(), AGAIN)
    with tempfile.TemporaryDirectory() as folder:
        space = Space.from_config(run.space)
        again = Run(Options(space=space, models=models, folder=Path(folder) / "zoo", seed=run.seed, device=device))
        began = time.perf_counter()
        again.execute()
        return time.perf_counter() - began, again.progress().flops


def figures(folder: Path, models: int, probe: Probe) -> dict[str, str]:
    """What is printed of one zoo, by what it is."""
    manifest = Zoo.open(folder).manifest
    cost, seconds = manifest.cost, Timing.of_all(sittings(folder)).seconds
    assert cost is not None  # every complete zoo has one
    backend = manifest.the_run(folder, AGAIN).backend
    sampled(manifest, backend, 2)  # compiles
    peak = probe.measure(1.0)
    ours, flops = sampled(manifest, backend, models)
    plain, _ = sampled(manifest, "reference", models)
    peak = max(peak, probe.measure(1.0))
    whole = cost.training_flops + cost.evaluation_flops
    return {
        "networks": f"{manifest.models:,}",
        "weights, GB": f"{sum(shard.bytes for shard in manifest.shards) / 1e9:.2f}",
        "samples trained on, M": f"{cost.samples_trained / 1e6:,.1f}",
        "wall time, s": f"{seconds['total']:,.0f}",
        "training, s of all workers": f"{seconds['training']:,.0f}",
        "evaluation, s of all workers": f"{seconds['evaluation']:,.0f}",
        "writing, s": f"{seconds['writing']:,.0f}",
        "networks/s": f"{manifest.models / seconds['total']:.2f}",
        "samples/s": f"{cost.samples_trained / seconds['total']:,.0f}",
        "share of peak": f"{whole / seconds['total'] / peak:.1%}",
        "sample, networks": str(models),
        "sample by wse, s": f"{ours:.1f}",
        "sample by PyTorch, s": f"{plain:.1f}",
        "ratio": f"{plain / ours:.1f}",
        "sample by wse, share of peak": f"{flops / ours / peak:.1%}",
        "sample by PyTorch, share of peak": f"{flops / plain / peak:.1%}",
        "all by PyTorch, extrapolated, h": f"{plain * whole / flops / 3600:.1f}",
    }


def main() -> None:
    """A column for each zoo."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoos", nargs="+", type=Path)
    parser.add_argument("--sample", type=int, default=20, help="members that are trained again")
    options = parser.parse_args()
    probe = Probe("fma", os.cpu_count() or 1)
    columns = [figures(folder, options.sample, probe) for folder in options.zoos]
    print("| |", " | ".join(folder.name for folder in options.zoos), "|")
    print("|---|" + "---:|" * len(columns))
    for name in columns[0]:
        print(f"| {name} |", " | ".join(column[name] for column in columns), "|")


if __name__ == "__main__":
    main()
