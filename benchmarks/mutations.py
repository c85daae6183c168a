"""Do the tests see mistakes? Each of a list is made in a copy of the tree, and the tests concerned are run.

    python benchmarks/mutations.py benchmarks/mutations_cuda.toml [--only TEXT] [--out FILE]

A list has ``tests``, which says for each source file (or folder) which tests concern it, and ``mutations``: a
file, the text that is replaced, which must stand there exactly once, and what replaces it. Prints for each whether
it was caught (a test fails) or survives, and at the end how many were caught.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("cli", "engine", "kernels")
LIMIT_SECONDS = 300  # a mutation that makes a test wait for ever is caught too


def copied(folder: Path) -> Path:
    """A copy of the tree's tracked files, imported before any installed one."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    path = folder / "path" / "wse"
    path.mkdir(parents=True)
    for part in PARTS:
        (path / part).symlink_to(folder / part)
    return folder


def is_caught(tree: Path, tests: list[str]) -> bool:
    environment = os.environ | {"PYTHONPATH": str(tree / "path"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return True
    if done.returncode > 2:  # below 0: the process was ended, as for writing where there is no memory
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--only", default="", help="only mutations whose file or text contains this")
    parser.add_argument("--out", type=Path, help="append what was found, a JSON line each")
    given = parser.parse_args()
    asked = tomllib.loads(given.list.read_text())
    mutations = [one for one in asked["mutations"] if given.only in one["file"] + one["old"] + one["new"]]
    tests_of = {
        one["file"]: next(tests for part, tests in asked["tests"].items() if one["file"].startswith(part))
        for one in mutations
    }
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        for tests in {tuple(tests) for tests in tests_of.values()}:
            if is_caught(tree, list(tests)):
                raise SystemExit(f"{' '.join(tests)}: fail without any mutation")
        caught = 0
        for one in mutations:
            source, began = tree / one["file"], time.perf_counter()
            before = source.read_text()
            if before.count(one["old"]) != 1:
                raise SystemExit(f"{one['file']}: {one['old']!r} stands there {before.count(one['old'])} times")
            source.write_text(before.replace(one["old"], one["new"]))
            found = is_caught(tree, tests_of[one["file"]])
            source.write_text(before)
            caught += found
            seconds = time.perf_counter() - began
            what = "caught  " if found else "SURVIVES"
            print(f"{what} {seconds:5.0f} s  {one['file']}: {one['old']!r} -> {one['new']!r}", flush=True)
            if given.out:
                with given.out.open("a") as file:
                    file.write(json.dumps({**one, "caught": found}) + "\n")
    print(f"{caught} of {len(mutations)} caught")


if __name__ == "__main__":
    main()
