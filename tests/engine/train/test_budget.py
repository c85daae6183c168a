"""A budget shortens a space by its rule, no more than it must, and the zoo can be made again without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wse.cli.app import app
from wse.engine import train
from wse.engine.errors import UsageError
from wse.engine.space import Space
from wse.engine.train import Options, Run, Speed, fit_space
from wse.engine.train import budget as rule
from wse.engine.train.budget import LEAST_EPOCHS, SHARE
from wse.engine.zoo import Zoo

SPEED = Speed(training=2e9, evaluation=4e9, workers=2)
SMALL = {"dataset": "digits", "test_images": 100, "training_images": 100, "validation_images": 100}


LEAST_IMAGES = 300  # the digits are few


@pytest.fixture(autouse=True)
def fewer_images(monkeypatch) -> None:
    monkeypatch.setattr(rule, "LEAST_IMAGES", LEAST_IMAGES)


def run_of(models: int = 20, **keys) -> Run:
    space = Space.load(preset="small-cnn", overrides={**SMALL, "train_fraction": 1.0, **keys})
    return Run(Options(space=space, models=models, folder=Path("unused"), device="reference"))


def seconds(run: Run, space: Space) -> float:
    options = run.options
    again = Run(Options(space=space, models=options.models, folder=options.folder, device="reference"))
    return SPEED.seconds(again.plan)


@pytest.fixture(scope="module")
def full() -> float:
    run = run_of()
    return SPEED.seconds(run.plan)


def test_what_fits_stays_as_it_is(full: float) -> None:
    run = run_of()
    assert fit_space(run, SPEED, 1.01 * full / SHARE) == run.options.space


@pytest.mark.parametrize("share", [0.9, 0.7, 0.6])
def test_images_go_first_and_no_further_than_they_must(share: float, full: float) -> None:
    run = run_of()
    space = fit_space(run, SPEED, share * full)
    (images,) = space.choices("images_per_epoch")
    assert LEAST_IMAGES <= images < 1300  # of all
    assert space == run.options.space.capped("images_per_epoch", images)
    assert seconds(run, space) <= SHARE * share * full
    more = images + (10 if images < 1000 else 100)  # the next number of two digits
    assert seconds(run, run.options.space.capped("images_per_epoch", more)) > SHARE * share * full


def test_then_epochs(full: float) -> None:
    run = run_of()
    space = fit_space(run, SPEED, 0.15 * full)
    (epochs,) = space.choices("epochs")
    assert space.choices("images_per_epoch") == (LEAST_IMAGES,)
    assert LEAST_EPOCHS <= epochs < 86
    more = run.options.space.capped("images_per_epoch", LEAST_IMAGES).capped("epochs", epochs + 1)
    assert seconds(run, space) <= SHARE * 0.15 * full < seconds(run, more)


def test_what_cannot_fit_is_refused_with_what_would(full: float) -> None:
    budget = 0.005 * full
    with pytest.raises(UsageError, match=r"take (\d+) --models") as caught:
        fit_space(run_of(), SPEED, budget)
    fitting = int(re.findall(r"take (\d+) --models", str(caught.value))[0])
    assert 0 < fitting < 20
    fit_space(run_of(fitting), SPEED, budget)
    with pytest.raises(UsageError):
        fit_space(run_of(fitting + 2), SPEED, budget)
    with pytest.raises(UsageError, match="images; take fewer snapshots"):
        fit_space(run_of(1), SPEED, 1e-4 * full)


def test_members_that_may_stop_early_are_taken_to_use_all_epochs() -> None:
    run = run_of(early_stopping=True, epochs=40, min_epochs=5)
    most = SPEED.estimate(run)
    assert most.least_seconds == pytest.approx(most.seconds * 5 / 40)
    assert fit_space(run, SPEED, 0.8 * most.seconds) != run.options.space


def test_distributions_are_cut_off() -> None:
    run = run_of(epochs=[10, 40, 80], images_per_epoch={"uniform": [300, 1000]})
    full = SPEED.seconds(run.plan)
    space = fit_space(run, SPEED, 0.8 * full)
    low, high = space.choices("images_per_epoch")
    assert low == 300 < high < 1000
    space = fit_space(run, SPEED, 0.4 * full)
    assert space.choices("images_per_epoch") == (300,)
    assert max(space.choices("epochs")) < 80
    assert min(space.choices("epochs")) == 10


def test_the_command_stores_what_it_resolved(tmp_path: Path, monkeypatch) -> None:
    speed = Speed(training=1e8, evaluation=1e12, workers=1)
    monkeypatch.setattr(train, "measure_speed", lambda run: speed)
    keys = ["width_conv=2", "train_fraction=1.0", "epochs=3", "snapshots=2"]
    keys += [f"{name}={value}" for name, value in SMALL.items()]
    common = ["generate", "--preset", "small-cnn", "--models", "2", "--device", "reference"]
    common += [part for key in keys for part in ("--set", key)]
    made = CliRunner().invoke(app, [*common, "--budget", "1.5s", "--out", str(tmp_path / "fitted")])
    assert made.exit_code == 0, made.output
    assert "images_per_epoch of at most" in made.stderr
    assert "expected" in made.stdout
    fitted = Zoo.open(tmp_path / "fitted")
    images = fitted.manifest.space["images_per_epoch"]
    assert LEAST_IMAGES <= images < 1300
    again = [*common, "--set", f"images_per_epoch={images}", "--out", str(tmp_path / "plain")]
    assert CliRunner().invoke(app, again).exit_code == 0
    plain = Zoo.open(tmp_path / "plain")
    assert plain.manifest.space == fitted.manifest.space
    assert plain.manifest.shards == fitted.manifest.shards
    refused = CliRunner().invoke(app, ["generate", "--resume", "--budget", "1h", "--out", str(tmp_path / "plain")])
    assert isinstance(refused.exception, UsageError)
