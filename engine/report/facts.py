"""What a zoo is, in a few lines, and how to make the same one again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..text import bytes_text, command_text, count_text, counted_text, percent_text, seconds_text
from ..zoo import Manifest, RunEntry, Zoo
from .summary import summarize


def facts(zoo: Zoo) -> list[tuple[str, str]]:
    """(name, words) of each fact, in the order they are shown."""
    manifest, summary = zoo.manifest, summarize(zoo)
    sizes = sorted(entry.size for entry in manifest.architectures.values())
    span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    images = ", ".join(
        f"{name} ({entry.train:,} + {entry.test:,} images, {entry.classes} classes)"
        for name, entry in manifest.image_sets.items()
    )
    shown = [
        *members(zoo),
        ("nets", f"{counted_text(len(sizes), 'architecture')} of {span} values"),
        ("snapshots", f"{summary.snapshots:,}, {bytes_text(summary.bytes)} of weights in {manifest.dtype}"),
        ("image sets", images),
        *origin(manifest),
        (
            "test accuracy",
            f"best {percent_text(summary.everything.best)}, median {percent_text(summary.everything.median)}",
        ),
    ]
    if manifest.cost is not None and manifest.timing is not None:
        samples = count_text(manifest.cost.samples_trained)
        operations = count_text(manifest.cost.training_flops)
        took = seconds_text(manifest.timing.seconds["total"])
        shown.append(("cost", f"{samples} samples trained, {operations} operations in training, {took}"))
        shown.append(("finished", manifest.timing.finished))
    return shown


def members(zoo: Zoo) -> list[tuple[str, str]]:
    """(name, words) of how many members there are, and whether they are all."""
    manifest = zoo.manifest
    counts = ", ".join(f"{count:,} {status}" for status, count in manifest.counts.items() if count)
    if manifest.status == "complete":
        return [("members", f"{len(zoo):,} ({counts})")]
    return [
        ("members", f"{len(zoo):,} of {manifest.models:,} so far ({counts})"),
        ("unfinished", "members do not end in random order, so these are not a fair sample of all"),
    ]


def origin(manifest: Manifest) -> list[tuple[str, str]]:
    """(name, words) of what the members come from: the run, the runs of merged zoos, or what was imported."""
    if manifest.imported is not None:
        names = _listed([name.rpartition("/")[0] or name for name in manifest.imported.files])
        of_what = f"{manifest.imported.format}: {names}" if names else manifest.imported.format
        return [("imported", f"{of_what}, by wse {manifest.wse_version}")]
    versions = _listed([f"wse {run.wse_version}" for run in manifest.runs])
    backends = _listed([f"{run.backend} backend in {run.precision}" for run in manifest.runs])
    return [
        *([("merged from", sources(manifest))] if manifest.sources else []),
        ("made by", f"{versions}, {backends}"),
        ("seeds" if len(manifest.runs) > 1 else "seed", _listed([str(run.seed) for run in manifest.runs])),
    ]


def seeds_in_common(manifest: Manifest) -> str:
    """Seeds that several of the merged runs had, with commas between; empty if there are none."""
    counts = Counter(run.seed for run in manifest.runs)
    return _listed([str(seed) for seed, count in counts.items() if count > 1])


def sources(manifest: Manifest) -> str:
    """The zoos that were merged, and how many members each had."""
    return _listed([f"{source.zoo} ({source.models:,})" for source in manifest.sources])


def _listed(words: Sequence[str], most: int = 4) -> str:
    distinct = list(dict.fromkeys(words))
    more = len(distinct) - most
    return ", ".join(distinct[:most]) + (f" and {more:,} more" if more > 0 else "")


def space_files(manifest: Manifest) -> dict[str, str]:
    """The space as a space file, name -> content; of a merged zoo one for each run, of an imported one none."""
    runs = manifest.runs
    names = ["space.toml"] if len(runs) == 1 else [f"space-{number}.toml" for number in range(len(runs))]
    return {name: space_toml(run.space) for name, run in zip(names, runs, strict=True)}


def commands(manifest: Manifest, files: Sequence[str]) -> list[str]:
    """The commands that make the same zoo, given a file for the space of each run; none for an imported zoo."""
    if not manifest.sources:
        return [_generate(manifest, run, file, "zoo") for run, file in zip(manifest.runs, files, strict=True)]
    parts = [f"zoo-{number}" for number in range(len(files))]
    generated = [
        _generate(manifest, run, file, part) for run, file, part in zip(manifest.runs, files, parts, strict=True)
    ]
    return [*generated, f"wse merge {' '.join(parts)} --out zoo"]


def _generate(manifest: Manifest, run: RunEntry, file: str, out: str) -> str:
    flags = [
        command_text("wse", "generate", "--config", file),
        f"--models {run.models}",
        f"--seed {run.seed}",
        f"--device {run.backend}",
    ]
    if run.backend == "cuda":
        flags.append(f"--precision {run.precision}")
    if manifest.dtype != "float32":
        flags.append(f"--dtype {manifest.dtype}")
    if manifest.labels == "faithful":
        flags.append("--faithful")
    return " ".join([*flags, f"--out {out}"])


def space_toml(space: dict[str, Any]) -> str:
    """A resolved space as a space file; a key without a value is left out, as TOML has none."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in sorted(space.items()) if value is not None)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps("all" if value is None else value)  # strings, numbers and truth values are written alike
