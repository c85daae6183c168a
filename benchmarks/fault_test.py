"""Let every single write, flush, fsync, rename and removal of a run fail, go on, and compare the zoo.

    python benchmarks/fault_test.py [--of generate|repair] [--device cpu] [--step 1]

For each call and each way to fail (input/output error, full disk, half a write) a run of a few members must end
with one clear line or do its work all the same; what it had stored must not be trained again; and gone on with, it
must make the undisturbed zoo, byte for byte but for times. Leaves with 1 if not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from faults import KINDS, Faults, Kind, Outcome, failing, outcome
from zoo_content import but_times, content

from wse.engine.space import Space
from wse.engine.train import Options, Run, plan_repair, repair
from wse.engine.zoo import Zoo, find_problems

SPACE = {
    "dataset": "digits", "filter_size": [3, 5], "width_conv": 2, "width_fc": 8, "batch_size": 32, "epochs": 2,
    "early_stopping": False, "images_per_epoch": 64, "snapshots": 2, "training_images": 20,
    "validation_images": 20, "test_images": 20,
}  # fmt: skip
MODELS = 5


def generate(folder: Path, device: str) -> None:
    """Begin a run, or go on with it."""
    space = Space.load(preset="nws-fixed", overrides=SPACE)
    options = Options(
        space=space, models=MODELS, folder=folder, device=device, threads=1, checkpoint_seconds=0,
        resume=(folder / "zoo.json").exists(),
    )  # fmt: skip
    Run(options).execute()


def mend(folder: Path) -> None:
    """Repair a zoo."""
    zoo = Zoo.open(folder)
    repair(zoo, plan_repair(zoo, find_problems(zoo)))


def spoil(folder: Path) -> None:
    """Damage a shard and both tables."""
    path = min((folder / "shards").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    (folder / "members.parquet").unlink()
    (folder / "snapshots.parquet").write_bytes(b"")


def trials(base: Path, of: str, device: str, step: int, kinds: tuple[Kind, ...] = KINDS) -> list[Outcome]:
    """Let calls of generating or repairing a zoo fail, one in each trial.

    Args:
        base: an empty folder.
        of: "generate" or "repair".
        device: as for ``Options``.
        step: 1: every call, in every way; n: every n-th, the ways in turns.
        kinds: the ways.
    """
    undisturbed = base / "undisturbed"
    generate(undisturbed, device)
    is_repair = of == "repair"
    seen = content if is_repair else but_times
    expected = seen(undisturbed)

    def begun(name: str) -> Path:
        folder = base / name
        if is_repair:
            shutil.copytree(undisturbed, folder)
            (folder / "log.jsonl").write_bytes((undisturbed / "log.jsonl").read_bytes())
            spoil(folder)
        return folder

    def work(folder: Path) -> None:
        mend(folder) if is_repair else generate(folder, device)

    def same(folder: Path) -> bool:
        return seen(folder) == expected

    counted = Faults(folder=begun("counted"))
    with failing(counted):
        work(counted.folder)
    found = []
    for number, at in enumerate(range(0, len(counted.calls), step)):
        for kind in kinds if step == 1 else (kinds[number % len(kinds)],):
            folder = begun(f"{kind}-{at}")
            faults = Faults(folder=folder, at=at, kind=kind)
            do = partial(work, folder)
            found.append(outcome(faults, do, do, partial(same, folder)))
            shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", default="generate", choices=["generate", "repair"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "reference"])
    parser.add_argument("--step", type=int, default=1, help="1: every call, in every way; n: every n-th, in turns")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = trials(Path(name), options.of, options.device, options.step)
    ended = Counter(trial.ended for trial in found if trial.call)
    print(f"{sum(ended.values())} faults: {ended['told']} told, {ended['completed']} did no harm")
    failed = [trial for trial in found if not trial.passed]
    for trial in failed:
        print(f"{trial.call} ({trial.kind}): {trial.ended}, trained twice {list(trial.lost)}, same: {trial.same}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
