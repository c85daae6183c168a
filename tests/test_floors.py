"""A floor of the house stands only on those below it (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each part may import from the project, besides itself.
BASE = {"engine.errors", "engine.files", "engine.interrupts", "engine.machine", "engine.text"}
FLOORS: dict[str, set[str]] = {
    "kernels": set(),
    "engine.data": BASE,
    "engine.nets": BASE | {"kernels"},
    "engine.space": BASE | {"kernels", "engine.nets"},
    "engine.zoo": BASE | {"kernels", "engine.nets"},
    "engine.train": BASE | {"kernels", "engine.data", "engine.nets", "engine.space", "engine.zoo"},
    "engine.exchange": BASE | {"kernels", "engine.data", "engine.nets", "engine.space", "engine.zoo"},
    "engine.scale": BASE | {"engine.train", "engine.zoo"},
    "engine.bench": BASE | {"kernels", "engine.data", "engine.nets", "engine.space", "engine.train", "engine.zoo"},
    "engine.meta": BASE | {"kernels", "engine.nets", "engine.zoo"},
    "engine.report": BASE | {"engine.meta", "engine.nets", "engine.zoo"},
    "engine": set(),
    "cli": BASE
    | {
        f"engine.{name}"
        for name in ("bench", "data", "exchange", "meta", "report", "scale", "space", "train", "zoo")
    },
}


def part_of(dotted: str) -> str:
    """The part a module of the project belongs to: the longest name in FLOORS or BASE that starts it."""
    known = sorted(FLOORS.keys() | BASE, key=len, reverse=True)
    return next(name for name in known if dotted == name or dotted.startswith(name + "."))


def imports_of(file: Path) -> set[str]:
    """Dotted names, without the leading ``wse.``, of the project's modules that a file imports."""
    package = [*file.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*(["wse"] if node.level else []), *above, *filter(None, [node.module])])
            # `from .. import x` names modules, `from ..x import y` is in x
            found |= {f"{prefix}.{name.name}" for name in node.names} if node.module is None else {prefix}
    return {name.removeprefix("wse.") for name in found if name.startswith("wse.")}


FILES = sorted(file for top in ("kernels", "engine", "cli") for file in (ROOT / top).rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_only_from_floors_below(file: Path) -> None:
    part = part_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    above = {name for name in imports_of(file) if part_of(name) not in FLOORS.get(part, set()) | {part}}
    assert not above, f"{part} must not import {above}"


def test_every_part_is_in_the_package() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    packages = {file.parent for file in FILES if file.name == "__init__.py"}
    packages.add(ROOT / "engine/space/presets")  # data, which setuptools wants listed as well
    there = {"wse." + ".".join(folder.relative_to(ROOT).parts) for folder in packages}
    assert listed == there


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_are_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400
