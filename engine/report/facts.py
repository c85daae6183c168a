"""What a zoo is, in a few lines, and how to make the same one again."""

from __future__ import annotations

import json
from typing import Any

from ..text import bytes_text, count_text, seconds_text
from ..zoo import Manifest, Zoo
from .summary import summarize


def facts(zoo: Zoo) -> list[tuple[str, str]]:
    """(name, words) of each fact, in the order they are shown."""
    manifest, summary = zoo.manifest, summarize(zoo)
    sizes = sorted(entry.size for entry in manifest.architectures.values())
    span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    counts = ", ".join(f"{count:,} {status}" for status, count in manifest.counts.items() if count)
    images = ", ".join(
        f"{name} ({entry.train:,} + {entry.test:,} images, {entry.classes} classes)"
        for name, entry in manifest.image_sets.items()
    )
    shown = [
        ("members", f"{manifest.models:,} ({counts})"),
        ("nets", f"{len(sizes):,} architecture{'s' if len(sizes) > 1 else ''} of {span} values"),
        ("snapshots", f"{summary.snapshots:,}, {bytes_text(summary.bytes)} of weights in {manifest.dtype}"),
        ("image sets", images),
        ("made by", f"wse {manifest.wse_version}, {manifest.backend} backend in {manifest.precision}"),
        ("seed", f"{manifest.seed}"),
        (
            "test accuracy",
            f"best {100 * summary.everything.best:.1f} %, median {100 * summary.everything.median:.1f} %",
        ),
    ]
    if manifest.cost is not None and manifest.timing is not None:
        samples = count_text(manifest.cost.samples_trained)
        operations = count_text(manifest.cost.training_flops)
        took = seconds_text(manifest.timing.seconds["total"])
        shown.append(("cost", f"{samples} samples trained, {operations} operations in training, {took}"))
        shown.append(("finished", manifest.timing.finished))
    return shown


def command(manifest: Manifest, space_file: str) -> str:
    """The command that makes the same zoo, given a file with its space."""
    flags = [
        f"wse generate --config {space_file}",
        f"--models {manifest.models}",
        f"--seed {manifest.seed}",
        f"--device {manifest.backend}",
    ]
    if manifest.backend == "cuda":
        flags.append(f"--precision {manifest.precision}")
    if manifest.dtype != "float32":
        flags.append(f"--dtype {manifest.dtype}")
    if manifest.labels == "faithful":
        flags.append("--faithful")
    return " ".join([*flags, "--out zoo"])


def space_toml(space: dict[str, Any]) -> str:
    """A resolved space as a space file; a key without a value is left out, as TOML has none."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in sorted(space.items()) if value is not None)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)  # strings, numbers and truth values are written alike
