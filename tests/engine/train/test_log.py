"""What a log tells later on: of each sitting of a run, whole or killed, and nothing of torn lines."""

import json
from pathlib import Path

import pytest

from wse.engine.train import Options, Run
from wse.engine.train.log import LOGGED, logged, logged_facts, sittings
from wse.engine.zoo import Timing, Zoo


def written(folder: Path, *lines: str) -> Path:
    (folder / "log.jsonl").write_text("\n".join(lines))
    return folder


def event(second: int, name: str, **fields: object) -> str:
    return json.dumps({"time": f"2026-01-02T03:04:{second:02}.500+00:00", "event": name, **fields})


def test_sittings_that_stopped_were_killed_and_ended(tmp_path: Path) -> None:
    stages = {"total": 4.0, "training": 7.0, "workers": 2.0, "overhead": 0.1}
    folder = written(
        tmp_path,
        event(0, "start"), event(3, "member", id=0), event(5, "stop", seconds=stages),
        event(10, "start"), event(12, "member", id=1), event(13, "member", id=2),
        event(20, "start"), event(26, "end", seconds={"total": 6.0, "training": 11.0, "workers": 2.0}),
        event(50, "repair", done="tables"),
    )  # fmt: skip
    stopped, killed, ended = sittings(folder)
    assert stopped.seconds == stages
    assert killed.seconds == {"total": 3.0}
    assert Timing.of_all([stopped, killed, ended]) == Timing(
        started="2026-01-02T03:04:00.500+00:00",
        finished="2026-01-02T03:04:26.500+00:00",
        seconds={"total": 13.0, "training": 18.0},
    )
    assert Timing.of_all([stopped]) is stopped


def test_lines_that_are_torn_or_strange_are_left_out(tmp_path: Path) -> None:
    strange = ("[]", "3", "null", '{"event": "start"}', '{"event": "start", "time": 5}', '{"event": "start", "ti')
    folder = written(tmp_path, event(1, "start"), *strange, event(2, "note", text="on"))
    assert [each["event"] for each in logged(folder)] == ["start", "note"]
    assert not list(logged(tmp_path / "nowhere"))


def test_the_timing_of_a_zoo_covers_all_sittings(tiny_space, tmp_path: Path) -> None:
    def run(**more: object) -> Run:
        return Run(Options(space=tiny_space(), models=4, folder=tmp_path / "zoo", threads=1, **more))

    first = run()
    first.stop()
    assert not first.execute()
    second = run(resume=True)
    assert second.execute()
    timing = Zoo.open(tmp_path / "zoo").manifest.timing
    assert timing.seconds["total"] == pytest.approx(first.seconds["total"] + second.seconds["total"], abs=1e-3)
    assert timing.seconds["training"] == pytest.approx(second.seconds["training"], abs=1e-3)
    assert timing.started <= sittings(tmp_path / "zoo")[0].started
    assert "workers" not in timing.seconds
    assert second.seconds["workers"] == 1


def test_a_member_without_a_number_is_left_out(tmp_path: Path) -> None:
    facts = dict.fromkeys(LOGGED, 1)
    folder = written(tmp_path, event(1, "member", id=[0], **facts), event(2, "member", id=3, **facts))
    assert logged_facts(folder) == {3: facts}
