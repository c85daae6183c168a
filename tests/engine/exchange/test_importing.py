"""What holds for imports whatever the format, and what can be done with an imported zoo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.exchange import import_zoo
from wse.engine.report import write_report
from wse.engine.report.summary import _clear_accuracy, summarize
from wse.engine.train import label_problems, plan_repair, regeneration_problems, resolve_options
from wse.engine.zoo import Zoo, find_problems, merge_zoos

from .theirs import nws_run, small_cnn_zoo


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    small_cnn_zoo(tmp_path / "theirs")
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    return Zoo.open(tmp_path / "zoo")


def test_progress(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    told: list[tuple[int, int]] = []
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo", tell=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]


def test_same_source_same_bytes(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    for name in ("one", "two"):
        import_zoo([tmp_path / "theirs"], tmp_path / name)
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_sources_are_of_one_known_format(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    nws_run(tmp_path / "net")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="different formats"):
        import_zoo([tmp_path / "theirs", tmp_path / "net"], tmp_path / "zoo")
    with pytest.raises(UsageError, match="empty is of no format that wse reads"):
        import_zoo([tmp_path / "empty"], tmp_path / "zoo")
    small_cnn_zoo(tmp_path / "zoos" / "mnist")
    with pytest.raises(UsageError, match=r"zoos is of no format .*: name what is in it, such as .*zoos/mnist$"):
        import_zoo([tmp_path / "zoos"], tmp_path / "zoo")
    with pytest.raises(UsageError, match=r"there is no .*nowhere"):
        import_zoo([tmp_path / "nowhere"], tmp_path / "zoo")
    with pytest.raises(UsageError, match="is in the sources 2 times"):
        import_zoo([tmp_path / "theirs"] * 2, tmp_path / "zoo")
    (tmp_path / "index.csv").write_text("dataset,path\n")
    with pytest.raises(UsageError, match="there are no networks in the sources"):
        import_zoo([tmp_path / "index.csv"], tmp_path / "zoo")


def test_place_is_free_and_large_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    with pytest.raises(UsageError, match="theirs is not empty"):
        import_zoo([tmp_path / "theirs"], tmp_path / "theirs")
    usage = type("Usage", (), {"free": 22_847})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(WseError, match=r"needs 22\.8 kB, but .* has 22\.8 kB free"):
        import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    usage.free += 1  # 6 networks of 4 snapshots of 238 values of 4 bytes
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    for name in ("a", "b"):
        nws_run(tmp_path / "nets" / name)
    (tmp_path / "nets" / "b" / "weights" / "020.bin").write_bytes(b"1234567")
    with pytest.raises(WseError, match=r"020\.bin is damaged"):
        import_zoo([tmp_path / "nets"], tmp_path / "zoo")
    assert [path.name for path in tmp_path.iterdir()] == ["nets"]


def test_what_a_killed_import_left_is_cleared_away(tmp_path: Path) -> None:
    small_cnn_zoo(tmp_path / "theirs")
    (tmp_path / ".zoo.importing" / "shards").mkdir(parents=True)
    (tmp_path / ".zoo.importing" / "shards" / "half").write_bytes(b"1")
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    assert Zoo.open(tmp_path / "zoo").verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs", "zoo"]


def test_wse_did_not_train_it(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was imported, and an imported zoo cannot be gone on with"):
        resolve_options(models=None, folder=zoo.folder, resume=True)
    with pytest.raises(UsageError, match="an imported zoo cannot be trained again"):
        regeneration_problems(zoo, 1)
    with pytest.raises(UsageError, match="cannot be measured again: it was imported"):
        label_problems(zoo, 1)
    with pytest.raises(UsageError, match="was imported: import all that it is to hold at once"):
        merge_zoos([zoo.folder, zoo.folder], tmp_path / "both")


def test_damage_is_told_and_beyond_repair(zoo: Zoo) -> None:
    (shard,) = zoo.manifest.shards
    path = zoo.path(shard.file)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    plan = plan_repair(zoo, find_problems(Zoo.open(zoo.folder)))
    assert not plan
    assert [problem.text for problem in plan.beyond] == ["the zoo was imported, not made by wse: import it again"]


def test_report(zoo: Zoo) -> None:
    write_report(zoo, zoo.folder / "report.html", embedding=False)
    page = (zoo.folder / "report.html").read_text()
    assert "small-cnn-zoo: theirs, by wse" in page
    assert "The same zoo again" not in page
    assert "epochs of a member" in page
    assert "seconds of a member" not in page  # they are not known
    assert "it is not known which are dead" in page
    assert "what their makers measured" in page
    assert "measured in eval mode" not in page
    assert "summed over the members trained side by side" not in page


def test_accuracies_that_are_not_known_count_for_nothing(tmp_path: Path) -> None:
    weights = small_cnn_zoo(tmp_path / "theirs", 3)
    weights[0, 0, 0] = np.nan  # the only one with that optimizer
    np.save(tmp_path / "theirs" / "weights.npy", weights.reshape(12, -1))
    import_zoo([tmp_path / "theirs"], tmp_path / "zoo")
    summary = summarize(Zoo.open(tmp_path / "zoo"))
    assert summary.everything.members == 3
    assert summary.everything.best == pytest.approx(0.302)
    assert summary.everything.median == pytest.approx(0.3015)
    adam = summary.properties["optimizer"][0]
    assert (adam.value, adam.members, adam.best, adam.median, adam.above_chance) == ("adam", 1, None, None, 0.0)


def test_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for networks in (2, 3):
        small_cnn_zoo(tmp_path / str(networks) / "mnist", networks)
    imported = import_zoo([tmp_path / "2" / "mnist", tmp_path / "3" / "mnist"], tmp_path / "zoo").manifest.imported
    assert imported is not None
    assert len(set(imported.files.values())) == 5  # their layout is the same
    assert {"mnist/weights.npy", "mnist/weights.npy (2)"} < set(imported.files)


def test_guessing_is_judged_by_all_test_images(zoo: Zoo) -> None:
    np.testing.assert_allclose(_clear_accuracy(zoo), 0.1 + 5 * np.sqrt(0.1 * 0.9 / 10_000))
