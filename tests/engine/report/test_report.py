"""Summaries and pictures of a small zoo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.report import draw_learning_curves, summarize
from wse.engine.report.learning import quantile_curves
from wse.engine.report.summary import _clear_accuracy, groups_of
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo


@pytest.fixture(scope="module")
def zoo(tiny_space, tmp_path_factory) -> Zoo:
    folder = tmp_path_factory.mktemp("report") / "zoo"
    space = tiny_space("small-cnn", batch_size=[16, 32], init_std={"log_uniform": [0.01, 0.5]})
    assert Run(Options(space=space, models=12, folder=folder, threads=2)).execute()
    return Zoo.open(folder)


def test_everything_is_counted(zoo: Zoo) -> None:
    summary = summarize(zoo)
    accuracies = zoo.members["test_accuracy"].to_pylist()
    assert summary.everything.members == 12
    assert summary.everything.best == max(accuracies)
    assert summary.everything.median == pytest.approx(np.median(accuracies))
    assert summary.snapshots == zoo.snapshots.num_rows
    assert summary.values == sum(zoo[member].weights().size for member in zoo)
    assert summary.bytes == sum(path.stat().st_size for path in (zoo.folder / "shards").iterdir())
    for groups in summary.properties.values():
        assert sum(group.members for group in groups) == 12


def test_only_properties_that_vary_are_shown(zoo: Zoo) -> None:
    properties = summarize(zoo).properties
    assert {"optimizer", "batch_size", "learning_rate"} <= set(properties)
    assert not {"dataset", "epochs", "filter_size", "depth_fc"} & set(properties)


def test_groups_hold_the_right_members(zoo: Zoo) -> None:
    for group in summarize(zoo).properties["batch_size"]:
        here = [
            row["test_accuracy"] for row in zoo.members.to_pylist() if row["config.batch_size"] == int(group.value)
        ]
        assert (group.members, group.best) == (len(here), max(here))


def test_numbers_are_grouped_by_quartile_and_missing_ones_apart() -> None:
    groups = list(groups_of(pa.chunked_array([[*range(100), None, None]])))
    assert [int(here.sum()) for _, here in groups] == [25, 25, 25, 25, 2]
    assert groups[-1][0] == "-"
    assert np.flatnonzero(groups[3][1]).tolist() == list(range(75, 100))


def test_a_few_numbers_and_none_are_values() -> None:
    groups = [(value, here.tolist()) for value, here in groups_of(pa.chunked_array([[64, 32, None, 64]]))]
    assert groups == [
        ("32", [False, True, False, False]),
        ("64", [True, False, False, True]),
        ("-", [False, False, True, False]),
    ]


def test_clear_means_five_sigmas_of_the_images_that_were_tested(zoo: Zoo) -> None:
    expected = 0.1 + 5 * np.sqrt(0.1 * 0.9 / 50)
    np.testing.assert_allclose(_clear_accuracy(zoo), expected)


@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_curves_are_drawn(zoo: Zoo, ending: str, start: bytes, tmp_path: Path) -> None:
    draw_learning_curves(zoo, tmp_path / f"curves.{ending}")
    assert (tmp_path / f"curves.{ending}").read_bytes().startswith(start)


def test_curves_that_cannot_be_drawn(zoo: Zoo, tmp_path: Path) -> None:
    for name in ("curves.txt", "curves"):
        with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
            draw_learning_curves(zoo, tmp_path / name)
    with pytest.raises(WseError, match="cannot write"):
        draw_learning_curves(zoo, tmp_path / "missing" / "curves.png")


def test_curves_go_as_far_as_half_of_the_members() -> None:
    curves = [(np.array([0, end]), np.array([0.0, end / 10])) for end in (2, 4, 8)]
    epochs, (median,) = quantile_curves(curves, [0.5])
    assert epochs.tolist() == [0, 2, 4]
    np.testing.assert_allclose(median, [0, 0.2, 0.4])
