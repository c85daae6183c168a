"""What tests of zoos share: manifests in which only what matters is said, the log, and damage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wse.engine.nets import Layout
from wse.engine.zoo import ArchitectureEntry, ImageSetEntry, Manifest, Timing

TIMING = Timing(started="2026-11-22T10:00:00Z", finished="2026-11-22T11:00:00Z", seconds={"train": 3.5})


def manifest_of(layouts: Mapping[str, Layout], **entries: Any) -> Manifest:
    """The manifest of a zoo of these architectures; ``entries`` are what it says otherwise or besides."""
    plain = {
        "wse_version": "0.1.0",
        "software": {},
        "space": {},
        "labels": "eval",
        "backend": "reference",
        "precision": "fp32",
        "dtype": "float32",
        "image_sets": {"digits": ImageSetEntry(sha256="ab" * 32, train=50, test=10, classes=10)},
        "architectures": {name: ArchitectureEntry.of(layout) for name, layout in layouts.items()},
    }
    return Manifest(**{**plain, **entries})


def events(folder: Path, name: str | None = None) -> list[dict[str, Any]]:
    """What the log of a zoo tells, all of it or of one kind."""
    found = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [event for event in found if name in (None, event["event"])]


def flip_bit(path: Path, position: int = -3, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
