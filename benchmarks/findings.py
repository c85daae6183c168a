"""The main findings once more, from nothing, on smaller populations: do they hold?

    python benchmarks/findings.py --out findings [--models 200] [--datasets mnist,fashion-mnist]

(also ``make results``). Generates two populations of ``nws-fixed`` that differ in their seed, and one of
``nws-main``; asks what can be read from their weights, once with shuffled answers; trains twenty members again
in plain PyTorch. Every command is printed. At the end each finding is checked against what was measured here; one
that does not hold is marked, and then the exit code is 1. Under twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wse.engine.meta.results import Interval, Study, read_study
from wse.engine.zoo import Zoo

IMAGE_SETS = "mnist,fashion-mnist"
SHORT = (
    "epochs=10", "images_per_epoch=1000", "snapshots=6",
    "training_images=500", "validation_images=500", "test_images=1000",
)  # fmt: skip
PROPERTIES = "initialization,activation,optimizer,batch_size,dataset,learning_rate,test_accuracy"
MODELS = "majority,setup,statistics-boost"
AGAIN = 20  # members that plain PyTorch trains as well


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A sentence, what was measured of it, and whether that bears it out."""

    sentence: str
    measured: str
    holds: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("findings"), help="a folder for the zoos")
    parser.add_argument("--models", type=int, default=200, help="networks of each population")
    parser.add_argument("--datasets", default=IMAGE_SETS, help="image sets, two at least")
    parser.add_argument("--data-dir", help="a folder with image sets")
    options = parser.parse_args()
    began = time.perf_counter()
    make(options)
    found = list(findings(options.out))
    for finding in found:
        print(f"{'holds' if finding.holds else 'FAILS':<7}{finding.sentence}\n       {finding.measured}")
    minutes = (time.perf_counter() - began) / 60
    print(f"{sum(finding.holds for finding in found)} of {len(found)} hold; {minutes:.1f} min")
    return 0 if all(finding.holds for finding in found) else 1


def make(options: argparse.Namespace) -> None:
    """All zoos and studies."""
    sets = ["--datasets", options.datasets, *(["--data-dir", options.data_dir] if options.data_dir else [])]
    short = [part for setting in SHORT for part in ("--set", setting)]
    first, second, mixed, again = (options.out / name for name in ("first", "second", "mixed", "again"))
    fixed = ["generate", "--preset", "nws-fixed", *sets, *short, "--overwrite"]
    wse(*fixed, "--models", options.models, "--seed", 0, "--out", first)
    wse(*fixed, "--models", options.models, "--seed", 1, "--out", second)
    wse(*fixed, "--models", AGAIN, "--seed", 0, "--out", again, "--device", "reference")
    main = ["generate", "--preset", "nws-main", *sets, *short, "--overwrite"]
    wse(*main, "--models", options.models, "--seed", 0, "--out", mixed)
    asked = ["--models", MODELS, "--targets", PROPERTIES]
    for zoo in (first, second):
        wse("meta", zoo, *asked, "--layers", "--permuted", "--out", zoo / "meta" / "whole")
    wse("meta", first, *asked, "--shuffled", "--out", first / "meta" / "shuffled")
    unseen = ["--slice", "all:5000", "--holdout", "architecture"]
    wse("meta", mixed, *asked, *unseen, "--out", mixed / "meta" / "unseen")


def wse(*arguments: object) -> None:
    """One command of wse; what fails ends everything."""
    words = [str(argument) for argument in arguments]
    print("$", shlex.join(["wse", *words]), flush=True)
    ran = subprocess.run([sys.executable, "-m", "wse.cli", *words, "--quiet"], stdout=subprocess.DEVNULL)
    if ran.returncode:
        sys.exit(ran.returncode)


def findings(out: Path) -> Iterator[Finding]:
    """Each finding, with what bears it out."""
    first, second = (read_study(out / name / "meta" / "whole") for name in ("first", "second"))
    for study, which in ((first, "first"), (second, "second")):
        for target, more in (("initialization", 0.15), ("optimizer", 0.2), ("activation", 0.0)):
            read, known = score(study, target), score(study, target, model="setup")
            yield Finding(
                sentence=f"The {target} is read from weights, better than it is guessed from everything else "
                f"({which} population).",
                measured=f"accuracy {shown(read)}, without weights {shown(known)}",
                holds=read.low > known.value + more,
            )
        rate, known = score(study, "learning_rate"), score(study, "learning_rate", model="setup")
        yield Finding(
            sentence=f"The learning rate is read in part, and not from anything else ({which} population).",
            measured=f"R2 {shown(rate)}, without weights {shown(known)}",
            holds=rate.low > known.high,
        )
        accuracy = score(study, "test_accuracy")
        yield Finding(
            sentence=f"How good a network is shows in its weights ({which} population).",
            measured=f"R2 of the test accuracy {shown(accuracy)}",
            holds=accuracy.low > 0.6,
        )
    early, late = (score(first, "optimizer", view="layer", group=layer) for layer in ("conv1", "fc3"))
    yield Finding(
        sentence="The optimizer shows in the last layer more than in the first.",
        measured=f"accuracy from fc3 {shown(late)}, from conv1 {shown(early)}",
        holds=late.low > early.value,
    )
    kept, permuted = score(first, "initialization"), score(first, "initialization", view="permuted")
    yield Finding(
        sentence="Statistics do not depend on the order of neurons.",
        measured=f"accuracy of the initialization {kept.value:.3f}, with neurons permuted {permuted.value:.3f}",
        holds=abs(kept.value - permuted.value) < 0.02,
    )
    shuffled = read_study(out / "first" / "meta" / "shuffled")
    for target, chance in (("initialization", 1 / 4), ("optimizer", 1 / 3), ("activation", 1 / 4)):
        guessed = score(shuffled, target)
        yield Finding(
            sentence=f"With shuffled answers nothing is read of the {target}.",
            measured=f"accuracy {shown(guessed)}, chance {chance:.3f}",
            holds=guessed.low - 0.05 < chance < guessed.high + 0.05,
        )
    unseen = read_study(out / "mixed" / "meta" / "unseen")
    read = score(unseen, "initialization")
    yield Finding(
        sentence="Slices of 5,000 weights tell the initialization of architectures never seen.",
        measured=f"accuracy {shown(read)}, chance 0.250",
        holds=read.low > 0.5,
    )
    yield same_by_pytorch(out)


def same_by_pytorch(out: Path) -> Finding:
    """Whether members that plain PyTorch trained are as good as they are in the zoo."""
    ours, theirs = (
        np.array(Zoo.open(out / name).members["test_accuracy"].to_pylist()[:AGAIN]) for name in ("first", "again")
    )
    off = ours - theirs
    return Finding(
        sentence=f"The first {AGAIN} networks are as good when plain PyTorch trains them.",
        measured=f"test accuracy differs by {100 * off.mean():+.2f} points on average, "
        f"{100 * np.abs(off).max():.1f} at most; correlation {np.corrcoef(ours, theirs)[0, 1]:.3f}",
        holds=bool(abs(off.mean()) < 0.02 and np.corrcoef(ours, theirs)[0, 1] > 0.9),
    )


def score(
    study: Study, target: str, *, model: str = "statistics-boost", view: str = "all", group: str = ""
) -> Interval:
    """The main figure of one row of a study."""
    for each in study.scores:
        if (each.target, each.model, each.view) == (target, model, view) and group in ("", each.group):
            return each.metrics.get("accuracy") or each.metrics["r2"]
    raise LookupError(f"the study of {study.zoo} has no {model} of {target} ({view} {group})")


def shown(figure: Interval) -> str:
    """A figure with its interval."""
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
