"""Networks of our zoos in the formats of others."""

from __future__ import annotations

import gzip
import subprocess
import sys
from csv import DictReader
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from wse.engine.errors import UsageError, WseError
from wse.engine.exchange import export_zoo, import_zoo
from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.zoo import Condition, Zoo

from .theirs import model_zoo, small_cnn_zoo

SPACE = {
    "preset": "small-cnn",
    "dataset": "digits",
    "batch_size": [16, 64],
    "augmentation": [False, True],
    "activation": ["relu", "leaky_relu", "gelu"],
    "optimizer": ["sgd", "momentum", "adam"],
    "initialization": ["normal", "he_uniform", "constant"],
    "depth_conv": 2,
    "width_conv": 4,
    "epochs": 2,
    "images_per_epoch": [64, "all"],
    "training_images": 40,
    "validation_images": 40,
    "test_images": 50,
    "snapshots": [0, 1, 2],
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A zoo that wse trained."""
    folder = tmp_path_factory.mktemp("ours") / "zoo"
    Run(Options(space=Space.from_config(SPACE), models=8, folder=folder, device="reference")).execute()
    return Zoo.open(folder)


def test_a_folder_of_theirs_comes_back(tmp_path: Path) -> None:
    """Their files, in and out: the same weights, layout and columns."""
    small_cnn_zoo(tmp_path / "theirs", 5)
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    assert export_zoo(Zoo.open(tmp_path / "zoo"), tmp_path / "back", to="small-cnn-zoo") == 5
    theirs, back = np.load(tmp_path / "theirs" / "weights.npy"), np.load(tmp_path / "back" / "weights.npy")
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, theirs)
    layouts = [
        list(DictReader((tmp_path / name / "layout.csv").read_text().splitlines())) for name in ("theirs", "back")
    ]
    for there, here in zip(*layouts, strict=True):
        assert here.items() >= there.items()
    packed = [(tmp_path / name / "metrics.csv.gz").read_bytes() for name in ("theirs", "back")]
    rows = [list(DictReader(gzip.decompress(content).decode().splitlines())) for content in packed]
    own = ("", "modeldir", "config.b_init", "config.dnn_architecture", "config.random_seed", "config.init_std")
    for there, here in zip(*rows, strict=True):
        assert {name: here[name] for name in there if name not in own} == {
            name: value for name, value in there.items() if name not in own
        }
    assert {row["config.init_std"] for row in rows[1]} == {"0.125", ""}  # only where it has an effect
    assert rows[1][4]["modeldir"] == "member-1"


def test_a_zoo_of_ours_comes_back(ours: Zoo, tmp_path: Path) -> None:
    export_zoo(ours, tmp_path / "theirs", to="small-cnn-zoo")
    import_zoo([tmp_path / "theirs"], tmp_path / "back")
    back = Zoo.open(tmp_path / "back")
    assert back.verify() == []
    for member in ours:
        assert back[member].config == ours[member].config
        np.testing.assert_array_equal(back[member].weights(), ours[member].weights())
        for here, there in zip(back[member].snapshots, ours[member].snapshots, strict=True):
            for name in ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"):
                assert here[name] == pytest.approx(there[name], nan_ok=True, abs=0)


def test_same_zoo_same_bytes(ours: Zoo, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_zoo(ours, tmp_path / name, to="small-cnn-zoo")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_chosen_networks(ours: Zoo, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    count = export_zoo(
        ours,
        tmp_path / "out",
        to="small-cnn-zoo",
        where=[Condition.parse("batch_size=16")],
        tell=lambda done, total: told.append((done, total)),
    )
    chosen = [member for member in ours if ours[member].config["batch_size"] == 16]
    assert 0 < count == len(chosen) < 8
    assert told == [(done, count) for done in range(1, count + 1)]
    assert len(np.load(tmp_path / "out" / "weights.npy")) == 3 * count


def test_programs_run_without_wse(ours: Zoo, tmp_path: Path) -> None:
    count = export_zoo(ours, tmp_path / "out", to="pt2", where=[Condition.parse("id=1,6")])
    assert count == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "member-000001.pt2",
        "member-000006.pt2",
        "members.parquet",
    ]
    assert pq.read_table(tmp_path / "out" / "members.parquet")["id"].to_pylist() == [1, 6]
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch; images = torch.load('images.pt')\n"
        "run = torch.export.load('out/member-000006.pt2').module()\n"
        "torch.save([run(images), run(images[:1])], 'logits.pt'); assert 'wse' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    logits, first = torch.load(tmp_path / "logits.pt")
    with torch.no_grad():
        torch.testing.assert_close(logits.detach(), ours[6].module()(images))
    torch.testing.assert_close(first.detach(), logits[:1].detach())


def test_programs_take_images_as_their_networks_do(tmp_path: Path) -> None:
    model_zoo(tmp_path / "theirs", 1)
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    export_zoo(zoo, tmp_path / "out", to="pt2")
    images = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    run = torch.export.load(tmp_path / "out" / "member-000000.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(run(images), zoo[0].module()(images))


@pytest.mark.parametrize("family", ["nws", "several"])
def test_the_format_is_for_one_architecture(make_foreign_zoo, family: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds networks of one architecture of the family small-cnn"):
        export_zoo(make_foreign_zoo(family), tmp_path / "out", to="small-cnn-zoo")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def make_foreign_zoo(tmp_path: Path):
    def make(family: str) -> Zoo:
        if family == "nws":
            change = {"preset": "nws-fixed", "filter_size": 3, "width_conv": 2, "width_fc": 8}
        else:
            change = {"width_conv": [4, 8]}
        keep = {name: SPACE[name] for name in SPACE if name not in ("depth_conv", "width_conv", "initialization")}
        space = Space.from_config(keep | {"depth_conv": 3} | change)
        Run(Options(space=space, models=4, folder=tmp_path / "zoo", device="reference")).execute()
        return Zoo.open(tmp_path / "zoo")

    return make


def test_wrong_use(ours: Zoo, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no format 'onnx': use small-cnn-zoo or pt2"):
        export_zoo(ours, tmp_path / "out", to="onnx")
    with pytest.raises(UsageError, match="no member has batch_size=17"):
        export_zoo(ours, tmp_path / "out", to="pt2", where=[Condition.parse("batch_size=17")])
    with pytest.raises(UsageError, match="zoo is not empty"):
        export_zoo(ours, ours.folder, to="pt2")
    with pytest.raises(UsageError, match=r"out lies in the zoo"):
        export_zoo(ours, ours.folder / "out", to="pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("to", "needed"), [("small-cnn-zoo", 2 * 3 * 238 * 4), ("pt2", 2 * 238 * 4)])
def test_room_is_for_what_is_written(
    ours: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, needed: int
) -> None:
    """Not for what the zoo holds: all snapshots or the last, in float32 whatever the zoo has."""
    usage = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    two = [Condition.parse("id=1,6")]
    with pytest.raises(WseError, match="needs "):
        export_zoo(ours, tmp_path / "out", to=to, where=two)
    usage.free = needed
    assert export_zoo(ours, tmp_path / "out", to=to, where=two) == 2


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs", 5)
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    path = zoo.path(zoo.manifest.shards[0].file)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WseError, match="is damaged"):
        export_zoo(zoo, tmp_path / "out", to="small-cnn-zoo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs", "zoo"]
