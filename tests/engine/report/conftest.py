"""Small zoos with invented studies beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from wse.engine.meta import write_study
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

from .studies import invented_study


@pytest.fixture(scope="session")
def studied_zoo(tiny_space, tmp_path_factory) -> Zoo:
    """Twelve members of several architectures, a study of everything and one of little."""
    folder = tmp_path_factory.mktemp("studied") / "zoo"
    space = tiny_space(
        depth_conv=[3, 4], depth_fc=[2, 3], filter_size=[3, 5], initialization=["glorot_uniform", "normal"]
    )
    assert Run(Options(space=space, models=12, folder=folder, seed=3, threads=2)).execute()
    write_study(folder / "meta" / "all-5000", invented_study())
    write_study(folder / "meta" / "conv3", invented_study(slice_name="conv3", seed=1, views=False))
    return Zoo.open(folder)


@pytest.fixture(scope="session")
def page(studied_zoo: Zoo, tmp_path_factory) -> Path:
    """Its page."""
    from wse.engine.report import write_report

    path = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(studied_zoo, path) == path.with_name("report-data")
    return path
