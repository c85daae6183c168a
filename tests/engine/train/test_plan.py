"""The plan: dearest first, and how much of what packs execute is of use."""

from __future__ import annotations

from pathlib import Path

import pytest

from wse.engine.nets import training_flops
from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.train.plan import PackPlan


@pytest.mark.parametrize(
    ("images", "rows", "executed"),
    [
        ((5, 4, 3), 1, 12),
        ((5, 4, 3), 3, 15),
        ((5, 4, 3), 2, 14),  # 5 beside 4 and 3
        ((9, 1, 1, 1), 2, 18),
        ((4, 4, 4, 4), 2, 16),
    ],
    ids=str,
)
def test_rows_that_have_no_member_left_are_executed_too(images, rows: int, executed: int) -> None:
    architecture = Space.load(preset="small-cnn").members(0, [0])[0].architecture
    assert PackPlan(architecture=architecture, members=(), images=images).executed_images(rows) == executed


@pytest.mark.parametrize(("rows", "least"), [(1, 1.0), (8, 0.97)])
def test_budgets_of_all_kinds_share_a_pack_well(rows: int, least: float, tmp_path: Path) -> None:
    space = Space.load(
        preset="small-cnn", overrides={"dataset": "digits", "epochs": {"uniform": [2, 90]}, "train_fraction": 1.0}
    )
    run = Run(Options(space=space, models=400, folder=tmp_path / "zoo", device="reference", rows=rows))
    # The reference trains one after the other; a pack of all members is what a GPU gets.
    run.backend.members_per_pack = None
    run.plan = run.plan_of(range(400))
    (pack,) = run.plan.packs
    assert list(pack.images) == sorted(pack.images, reverse=True)
    assert sum(pack.images) == run.plan.total("training_images")
    assert least <= run.useful_share() <= 1.0
    in_any_order = PackPlan(architecture=pack.architecture, members=(), images=pack.images[::-1])
    assert in_any_order.executed_images(rows) >= pack.executed_images(rows)


def test_costs_beyond_64_bits(tmp_path: Path) -> None:
    space = Space.load(preset="nws-fixed", overrides={"dataset": "digits", "epochs": 10**9, "width_conv": 64})
    run = Run(Options(space=space, models=30, folder=tmp_path / "zoo", device="reference"))
    (architecture,) = run.plan.architectures
    images = sum(images for pack in run.plan.packs for images in pack.images)
    assert architecture.training_images == images > 10**13
    assert architecture.training_flops == images * training_flops(architecture.architecture) > 2**64
    assert architecture.evaluation_flops > 0
