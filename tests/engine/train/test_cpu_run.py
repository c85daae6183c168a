"""Whole runs by the CPU backend: the same zoo in any company, and networks that PyTorch agrees with."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from zoo_content import but_times

from wse.engine.data import ImageSet, load
from wse.engine.space import Space
from wse.engine.train import Options, Run
from wse.engine.zoo import Zoo

from .conftest import run_of as any_run
from .test_run import Stopping

run_of = partial(any_run, device="cpu")


@pytest.fixture(scope="module")
def alone(tiny_space, tmp_path_factory) -> Path:
    """Six members over several architectures, trained one after the other."""
    folder = tmp_path_factory.mktemp("cpu") / "zoo"
    assert run_of(tiny_space(), folder).execute()
    return folder


@pytest.mark.parametrize("company", [{}, {"threads": 2}, {"rows": 3}, {"rows": 2, "threads": 3}], ids=str)
def test_company_does_not_matter(company: dict[str, int], alone: Path, tiny_space, tmp_path: Path) -> None:
    assert run_of(tiny_space(), tmp_path / "zoo", **company).execute()
    assert but_times(tmp_path / "zoo") == but_times(alone)


def test_a_stopped_run_resumes_to_the_same_zoo(alone: Path, tiny_space, tmp_path: Path) -> None:
    run = run_of(tiny_space(), tmp_path / "zoo")
    Stopping(run, 2)
    assert not run.execute()
    assert run_of(tiny_space(), tmp_path / "zoo", resume=True).execute()
    assert but_times(tmp_path / "zoo") == but_times(alone)


def test_the_zoo_says_what_trained_it(alone: Path) -> None:
    manifest = Zoo.open(alone).manifest
    assert (manifest.backend, manifest.precision) == ("cpu", "fp32")


def images_right(network: torch.nn.Module, images: ImageSet) -> int:
    """How many of all test images PyTorch finds that a network classifies rightly."""
    right = 0
    for first in range(0, len(images.test_labels), 500):
        here = slice(first, first + 500)
        batch = torch.from_numpy(np.array(images.test_images[here])).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            predicted = network(batch).argmax(dim=1).numpy()
        right += int((predicted == images.test_labels[here]).sum())
    return right


def test_a_module_has_the_recorded_test_accuracy(tiny_space, tmp_path: Path) -> None:
    assert run_of(tiny_space(test_images="all"), tmp_path / "zoo").execute()
    zoo, digits = Zoo.open(tmp_path / "zoo"), load("digits")
    for member in zoo:
        for index, snapshot in enumerate(zoo[member].snapshots):
            recorded = round(snapshot["test_accuracy"] * len(digits.test_labels))
            # Two sums in another order may decide one near-tie among a few hundred images differently.
            assert abs(images_right(zoo[member].module(index), digits) - recorded) <= 1


@pytest.mark.parametrize("preset", ["nws-main", "small-cnn"])
def test_on_real_images_a_module_agrees_within_two_of_ten_thousand(
    preset: str, real_sets: list[str], tmp_path: Path
) -> None:
    space = Space.load(
        preset=preset,
        overrides={
            "dataset": real_sets,
            "learning_rate": 0.002,
            "optimizer": ["adam", "rmsprop"],
            "batch_size": 32,
            "epochs": 1,
            "images_per_epoch": 2048,
            "snapshots": [0, 1],
            "training_images": 10,
            "validation_images": 10,
        },
    )
    assert run_of(space, tmp_path / "zoo", models=8).execute()
    zoo = Zoo.open(tmp_path / "zoo")
    sets = {name: load(name) for name in real_sets}
    assert set(zoo.members["config.dataset"].to_pylist()) == set(real_sets)
    for member in zoo:
        images = sets[zoo[member].config["dataset"]]
        assert len(images.test_labels) == 10_000
        for index, snapshot in enumerate(zoo[member].snapshots):
            recorded = snapshot["test_accuracy"] * 10_000
            assert abs(images_right(zoo[member].module(index), images) - recorded) <= 2, (member, index)
    assert max(zoo.members["test_accuracy"].to_pylist()) > 0.4  # so that there is something to agree about


def test_members_learn_as_in_the_reference(tiny_space, tmp_path: Path) -> None:
    """The differences of 100 pairs of test accuracies have no sign that matters.

    100 members of nws-main, small ones, are trained for one full epoch of the digits by the CPU backend and by
    the reference: the same weights, batches and dropout masks. What may differ is rounding, but training
    magnifies it: the reference in float32 and in float64 end 3 percentage points apart (standard deviation), and
    so do these. Three statements about the differences of the pairs, each of which a systematic mistake breaks:

    - Equivalence: the 95 % confidence interval of their mean (Student's t) lies within 2 percentage points.
    - No preferred sign: Wilcoxon's signed-rank test does not reject it at the level 0.001.
    - Half of the pairs differ by no more than two test images.

    `benchmarks/paired_accuracy.py` does the same on real images, of which there are more to tell apart.
    """
    space = tiny_space(
        width_conv=4,
        width_fc=32,
        depth_conv=3,
        depth_fc=2,
        learning_rate={"uniform": [0.001, 0.004]},
        dropout=0.2,
        batch_size=32,
        augmentation=False,
        images_per_epoch="all",
        epochs=1,
        snapshots=[1],
        training_images=10,
        validation_images=10,
        test_images="all",
        early_stopping=False,
    )
    found = []
    for device in ("cpu", "reference"):
        folder = tmp_path / device
        run = Run(Options(space=space, models=100, folder=folder, seed=3, threads=2, device=device))
        assert run.execute()
        found.append(Zoo.open(folder).members.sort_by("id")["test_accuracy"].to_numpy())
    ours, reference = found
    assert ours.mean() > 0.3  # they do learn: a guess is right once in ten
    difference = ours - reference
    assert difference.any(), "not one accuracy differs: were they trained by two backends?"
    half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
    assert abs(difference.mean()) + half < 0.02
    assert stats.wilcoxon(difference).pvalue > 0.001
    assert np.median(np.abs(difference)) <= 2.5 / len(load("digits").test_labels)


def test_real_images_are_learned(real_sets: list[str], tmp_path: Path) -> None:
    space = Space.load(
        preset="nws-fixed",
        overrides={
            "dataset": real_sets,
            "epochs": 2,
            "images_per_epoch": 2048,
            "initialization": "glorot_normal",
            "activation": ["relu", "elu"],
            "optimizer": "adam",
            "learning_rate": 0.002,
            "batch_size": 32,
            "validation_images": 500,
            "training_images": 500,
            "test_images": 2000,
        },
    )
    folder = tmp_path / "zoo"
    assert Run(Options(space=space, models=8, folder=folder, seed=1, device="cpu")).execute()
    members = Zoo.open(folder).members
    assert set(members["config.dataset"].to_pylist()) == set(real_sets)
    assert min(members["test_accuracy"].to_pylist()) > 0.5
    assert max(members["test_accuracy"].to_pylist()) > 0.85
