"""What this process may use: the memory that the system and its control groups leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from wse.engine.machine import available_bytes

MIB = 2**20
FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with 3,000 MiB to spare, without control groups."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9999999 kB\nMemFree: 5 kB\nMemAvailable: 3072000 kB\n")
    return tmp_path


def groups(root: Path, *lines: str) -> None:
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))


def limit(root: Path, group: str, text: str, *, version: str = "") -> None:
    """A limit of a group; 700 MiB are used there, 300 of them for files in the cache."""
    folder = root / "sys/fs/cgroup" / version / group
    folder.mkdir(parents=True, exist_ok=True)
    names = FILES[version]
    (folder / names[0]).write_text(f"{text}\n")
    (folder / names[1]).write_text(f"{700 * MIB}\n")
    (folder / "memory.stat").write_text(f"anon {400 * MIB}\n{names[2]} {300 * MIB}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("max", 3000 * MIB, id="no limit"),
        pytest.param(f"{1000 * MIB}", 600 * MIB, id="a limit"),
        pytest.param(f"{100 * MIB}", 0, id="used up"),
        pytest.param(f"{9000 * MIB}", 3000 * MIB, id="a limit beyond the system's"),
    ],
)
@pytest.mark.parametrize("version", ["", "memory"])
def test_a_limit(text: str, expected: int, version: str, root: Path) -> None:
    groups(root, "9:name=systemd:/", f"4:{version}:/job" if version else "0::/job")
    limit(root, "job", text, version=version)
    assert available_bytes(root) == expected


def test_the_limit_of_a_group_above(root: Path) -> None:
    groups(root, "0::/slurm/job_7/step_0")
    limit(root, "slurm/job_7/step_0", "max")
    limit(root, "slurm/job_7", f"{1000 * MIB}")
    limit(root, "slurm", f"{2000 * MIB}")
    assert available_bytes(root) == 600 * MIB


def test_a_container_sees_its_group_as_the_first(root: Path) -> None:
    groups(root, "0::/")
    limit(root, "", f"{1000 * MIB}")
    assert available_bytes(root) == 600 * MIB


def test_a_group_that_cannot_be_seen_in_a_container(root: Path) -> None:
    groups(root, "4:memory:/docker/0123")
    limit(root, "", f"{1000 * MIB}", version="memory")
    assert available_bytes(root) == 600 * MIB


def test_no_groups(root: Path) -> None:
    assert available_bytes(root) == 3000 * MIB


def test_no_linux(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) > MIB
