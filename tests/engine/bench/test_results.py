"""Rates, fractions and ratios, on made-up samples; and the machine's peak."""

from __future__ import annotations

import time

import pytest

from wse.engine.bench import Entry, Machine, Report, Result, draw
from wse.engine.bench.lanes import JobTime, combine, work_side_by_side
from wse.engine.bench.peak import Probe, vector_shape
from wse.engine.errors import UsageError, WseError

MACHINE = Machine(fma_one=(5e11,), fma_all=(1e12, 9e11, 1.1e12), triad_one=(1e10,), triad_all=(2e10,))


def entry(name: str, samples: tuple[float, ...], kind: str = "pytorch", **others) -> Entry:
    flops = tuple(1e7 * sample for sample in samples)
    fields = {"contender": name, "label": name, "kind": kind, "errors": {}}
    return Entry(**fields, samples_per_second=samples, flops_per_second=flops, **others)


def result(*entries: Entry) -> Result:
    return Result(workload="w", flops=1e7, datasets=("digits",), entries=entries, machine=MACHINE)


def test_ratios_are_to_the_best_pytorch_and_fractions_to_the_median_peak() -> None:
    rows = result(
        entry("ours", (30_000.0, 40_000.0, 20_000.0), kind="ours"),
        entry("slow", (5_000.0, 5_000.0, 5_000.0)),
        entry("fast", (10_000.0, 11_000.0, 9_000.0)),
        entry("wrong", (), status="wrong", note="it is wrong"),
    ).rows()
    assert list(rows) == ["ours", "slow", "fast"]
    assert (rows["ours"].low, rows["ours"].samples_per_second, rows["ours"].high) == (20_000, 30_000, 40_000)
    assert rows["ours"].ratio == pytest.approx(3.0)
    assert rows["slow"].ratio == pytest.approx(0.5)
    assert rows["ours"].of_peak == pytest.approx(0.3)


def test_without_pytorch_there_is_no_ratio() -> None:
    assert result(entry("ours", (1.0,), kind="ours")).rows()["ours"].ratio is None


@pytest.mark.parametrize(("share", "valid"), [(1.01, True), (1.03, False)])
def test_more_than_the_peak_is_refused(share: float, valid: bool) -> None:
    found = result(entry("ours", (share * 1e5,), kind="ours"))
    if valid:
        assert found.rows()["ours"].of_peak == pytest.approx(share)
    else:
        with pytest.raises(WseError, match="the run is invalid"):
            found.rows()


def test_every_job_counts_as_often_as_any_other() -> None:
    """Two lanes, one with a quick and a slow job: what a long list of such jobs would take."""
    jobs = [JobTime(images=100, work=1.0, seconds=0.1), JobTime(images=100, work=9.0, seconds=0.9)]
    rate = combine(jobs, lanes=2)
    assert rate.images == pytest.approx(2 * 200 / 1.0)
    assert rate.work == pytest.approx(2 * 10 / 1.0)


class Sleep:
    images, work = 3, 5.0

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls, self.starts = seconds, 0, 0

    def start(self) -> None:
        self.starts += 1

    def __call__(self) -> None:
        self.calls += 1
        time.sleep(self.seconds)


def test_each_job_is_started_and_done_at_least_once() -> None:
    lanes = [[Sleep(0.6), Sleep(0.6)], [Sleep(0.001)]]  # far apart: a busy machine may stand still for a while
    times = work_side_by_side(lanes, 0.5)
    assert [(job.starts, job.calls) for job in lanes[0]] == [(1, 1), (1, 1)]
    assert lanes[1][0].calls > 1
    assert [time.images for time in times] == [3, 3, 3]
    assert times[0].seconds >= 0.6


def test_an_error_in_a_lane_comes_out() -> None:
    class Fails(Sleep):
        def __call__(self) -> None:
            raise WseError("it diverged")

    with pytest.raises(WseError, match="it diverged"):
        work_side_by_side([[Sleep(0.0)], [Fails(0.0)]], 0.01)


def test_the_peak_is_plausible() -> None:
    """Above 1 GFLOP/s, and no more than two units at 6 GHz could do."""
    lanes, _ = vector_shape()
    one = Probe("fma", 1).measure(0.05)
    assert 1e9 < one < 2 * 2 * lanes * 6e9
    assert 1e9 < Probe("fma", 2).measure(0.05) < 2 * 2 * 2 * lanes * 6e9
    assert 1e8 < Probe("triad", 2).measure(0.05) < 2e12


def report() -> Report:
    wrong = entry("wrong", (), status="wrong", note="bad update")
    provenance = {"cpu": "a processor", "threads": 2, "torch": "2", "date": "2026-11-22"}
    return Report(
        provenance=provenance,
        seconds=1.0,
        result=result(entry("ours", (3.0, 1.0), kind="ours"), entry("theirs", (1.0, 2.0)), wrong),
    )


def test_records_hold_the_rounds() -> None:
    ours, _, wrong = report().records()
    assert ours["samples_per_second"] == 2.0
    assert ours["rounds"]["samples_per_second"] == (3.0, 1.0)
    assert ours["rounds"]["fma_all"] == MACHINE.fma_all
    assert wrong["status"] == "wrong"
    assert "ratio" not in wrong
    assert report().wrong == ["wrong on w: bad update"]


def test_the_plot_is_drawn(tmp_path) -> None:
    draw([report(), report()], tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="must end in"):
        draw([report()], tmp_path / "bars.txt")
