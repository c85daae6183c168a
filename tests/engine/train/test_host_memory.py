"""Members train side by side only as far as the host has memory for their snapshots."""

from __future__ import annotations

import pytest

from wse.engine.nets import Layout
from wse.engine.train import Options, ReferenceBackend, Run, host_memory, run
from wse.engine.train.schedule import HELD_SNAPSHOTS
from wse.engine.zoo import Zoo


def test_rows_that_fit():
    fits = host_memory.rows_in_memory
    assert fits(1000, 16, bytes_free=2 * 4 * 1000 * 20 * 7) == 7
    assert fits(1000, 16, bytes_free=2 * 4 * 1000 * 20 * 7 - 1) == 6
    assert fits(1000, 16, bytes_free=0) == 1


class Watched(ReferenceBackend):
    """Says how many rows are opened."""

    def __init__(self):
        super().__init__()
        self.opened = []

    def open(self, architecture, rows, context):
        self.opened.append(rows)
        return super().open(architecture, rows, context)


@pytest.mark.parametrize(("early_stopping", "held"), [(True, HELD_SNAPSHOTS), (False, 3)])
def test_a_run_that_does_not_fit_trains_fewer_at_a_time(
    early_stopping, held, tiny_space, tmp_path, monkeypatch, capsys
):
    space = tiny_space("small-cnn", early_stopping=early_stopping)
    backend = Watched()
    small = Run(Options(space=space, models=3, folder=tmp_path / "zoo", rows=3, threads=1), backend)
    (pack,) = small.plan.packs
    a_row = 2 * 4 * Layout(pack.architecture).size * (held + host_memory.SPARE_VECTORS)
    monkeypatch.setattr(run, "available_bytes", lambda: 3 * a_row - 1)
    assert small.rows(pack) == 2
    before = small.memory_bytes()
    assert small.execute()
    assert backend.opened == [2]
    assert "host memory for the snapshots of 2 members: training 2 at a time, not 3" in capsys.readouterr().err
    assert Zoo.open(tmp_path / "zoo").members.num_rows == 3
    monkeypatch.setattr(run, "available_bytes", lambda: 3 * a_row)
    assert small.rows(pack) == 3
    assert small.memory_bytes() > before


def test_members_with_room_are_not_limited(tiny_space, tmp_path, capsys):
    space = tiny_space("small-cnn")
    backend = Watched()
    assert Run(Options(space=space, models=3, folder=tmp_path / "zoo", rows=3, threads=1), backend).execute()
    assert backend.opened == [3]
    assert "host memory" not in capsys.readouterr().err
