"""Let every single write, flush, fsync, rename and removal of a run fail, go on, and compare the zoo.

    python benchmarks/fault_test.py [--of generate|repair] [--device cpu] [--step 1]

For each call and each way to fail (input/output error, full disk, half a write) a run of a few members must end
with one clear line or do its work all the same; what it had stored must not be trained again; and gone on with, it
must make the undisturbed zoo, byte for byte but for times. Leaves with 1 if not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from wse.engine.bench.fault_trials import trials


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
