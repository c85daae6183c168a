"""Slices side by side on a small zoo: everyone right is timed, whoever is wrong is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from wse.engine.bench.slicers import SLICERS, Indexing, OursResident
from wse.engine.bench.slices import SliceEntry, SliceOptions, SliceResult, run_slices
from wse.engine.errors import UsageError

QUICK = {"megabytes": 8, "threads": 1, "seconds": 0.01, "rounds": 2}  # two networks


class Shifted(Indexing):
    """Starts a value too late."""

    name, label = "shifted", "shifted"

    def batches(self) -> Iterator[torch.Tensor]:
        for batch in super().batches():
            yield batch.roll(-1, dims=1)


def test_everyone_makes_the_slices_of_the_reference(tmp_path: Path) -> None:
    reports = list(run_slices(SliceOptions(folder=tmp_path, length=50, batch=7, **QUICK), lambda line: None))
    assert [report.result.workload for report in reports] == ["as they are", "standardised"]
    assert list(tmp_path.iterdir()) == []
    for report in reports:
        result, records = report.result, report.records()
        assert report.wrong == []
        assert [entry.contender for entry in result.entries] == [slicer.name for slicer in SLICERS]
        for record in records:
            assert record["status"] == "ok"
            assert len(record["rounds"]["slices_per_second"]) == 2
            assert record["bytes_per_second"] == pytest.approx(8 * 50 * record["slices_per_second"])
            assert record["workload"] == result.workload
        assert max(record["ratio"] for record in records if record["kind"] == "user") == 1.0


def test_slices_at_another_place_are_wrong(tmp_path: Path) -> None:
    options = SliceOptions(folder=tmp_path, length=50, batch=7, **QUICK)
    for report in run_slices(options, lambda line: None, [OursResident, Shifted]):
        (wrong,) = report.wrong
        assert wrong.startswith(f"shifted on {report.result.workload}: off by")
        assert list(report.result.rows()) == ["resident"]
        assert report.result.rows()["resident"].ratio is None


def test_whole_passes_survive_ctrl_c(tmp_path: Path) -> None:
    class Interrupted(Indexing):
        """Checked, warmed up, once in the first round; then Ctrl-C."""

        name, label, passes = "interrupted", "interrupted", 0

        def batches(self) -> Iterator[torch.Tensor]:
            Interrupted.passes += 1
            if Interrupted.passes > 3:
                raise KeyboardInterrupt
            return super().batches()

    options = SliceOptions(folder=tmp_path, length=50, batch=7, **{**QUICK, "seconds": 1e-9})
    found = run_slices(options, lambda line: None, [OursResident, Interrupted])
    result = next(found).result
    assert result.interrupted
    assert [len(entry.slices_per_second) for entry in result.entries] == [1, 1]
    assert len(result.copy_bytes_per_second) == 1
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert list(tmp_path.iterdir()) == []


def test_fractions_and_ratios() -> None:
    def entry(name: str, kind: str, *rates: float) -> SliceEntry:
        return SliceEntry(contender=name, label=name, kind=kind, error=0.0, slices_per_second=rates)

    entries = (entry("ours", "ours", 300.0, 100.0, 200.0), entry("a", "user", 50.0), entry("b", "user", 40.0))
    result = SliceResult(
        workload="w", length=1000, batch=8, entries=entries, copy_bytes_per_second=(2e6, 3.2e6, 9e6)
    )
    row = result.rows()["ours"]
    assert (row.low, row.slices_per_second, row.high, row.ratio) == (100, 200, 300, 4)
    assert (row.bytes_per_second, row.of_copy) == (1.6e6, 0.5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rounds": 0}, r"`rounds` \(=0\) must be at least 1"),
        ({"seconds": 0.0}, r"`seconds` \(=0.0\) must be more than 0"),
        ({"length": 10**6}, r"`length` \(=1000000\) must be at most 92868"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        SliceOptions(**changes)
