"""What is in a zoo, byte for byte: scripts and tests that disturb runs compare by it."""

from __future__ import annotations

import json
from pathlib import Path

from wse.engine.zoo import Zoo


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the log, which grows."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "log.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def but_times(folder: Path) -> dict[str, object]:
    """Every file but the log, without times; and what is found wrong with them."""
    zoo = Zoo.open(folder)
    described = json.loads((folder / "zoo.json").read_text())
    for name in ("timing", "checksum", "tables"):
        del described[name]
    members = zoo.members.drop_columns(["seconds"]).to_pylist()
    return {**content(folder), "zoo.json": described, "members.parquet": members, "problems": zoo.verify()}
