from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.meta import (
    MODELS,
    Making,
    SliceSpec,
    Study,
    StudyInterrupted,
    StudyOptions,
    Target,
    find_studies,
    main_metric,
    make_study,
    read_study,
    run_study,
    target_of,
    write_study,
)
from wse.engine.meta import study as study_module
from wse.engine.meta.maps import where_and_when
from wse.engine.meta.options import pick_device
from wse.engine.meta.reading import Reading
from wse.engine.meta.trial import fit
from wse.engine.zoo import Condition
from wse.engine.zoo.slices import SliceDataset

BASELINES = ("majority", "setup", "statistics-linear", "statistics-boost")


def options_of(zoo, **changes) -> StudyOptions:
    asked = {"zoo": zoo.folder, "what": SliceSpec(part="all"), "targets": ("optimizer",), "models": BASELINES}
    return StudyOptions(**{**asked, "seeds": 2, "processes": 1, **changes})


def studied(zoo, tmp_path: Path, **changes) -> Study:
    return run_study(options_of(zoo, **changes), tmp_path / "study", overwrite=True)[0]


def figure(study: Study, model: str, view: str = "all", group: str = "", target: str = "optimizer"):
    kinds = {question.name: question.kind for question in study.questions}
    found = [s for s in study.scores if (s.target, s.model, s.view, s.group) == (target, model, view, group)]
    assert len(found) == 1
    return found[0].metrics[main_metric(kinds[target])]


def in_conv2(weights, layout, optimizer, rate, snapshot, rng) -> None:
    """The optimizer in the scale of one layer's weights, the learning rate in that of another's."""
    start, stop = layout.part("conv2.weight")
    weights[start:stop] *= (1.0, 2.0, 4.0)[optimizer]
    start, stop = layout.part("fc1.weight")
    weights[start:stop] *= 2 + np.log10(rate) / 4


def test_what_is_planted_is_found_in_its_layer_and_nowhere_else(make_zoo, tmp_path: Path) -> None:
    study = studied(make_zoo(in_conv2), tmp_path, targets=("optimizer", "learning_rate"), layers=True)
    assert figure(study, "statistics-boost").value > 0.9
    assert figure(study, "statistics-boost", "layer", "conv2").low > 0.8
    for layer in ("conv1", "fc1"):
        assert figure(study, "statistics-boost", "layer", layer).low < 1 / 3 + 0.05
    assert figure(study, "statistics-boost", "layer", "fc1", target="learning_rate").low > 0.2
    for layer in ("conv1", "conv2"):
        assert figure(study, "statistics-boost", "layer", layer, target="learning_rate").value < 0.1
    for blind in ("majority", "setup"):
        assert figure(study, blind).low < 1 / 3 + 0.05
        assert figure(study, blind, target="learning_rate").value < 0.1
    assert {fit.seed for fit in study.fits} == {0, 1}


@pytest.mark.parametrize("model", ["light-cnn", "statistics-boost"])
def test_a_map_shows_where_and_when(model: str, make_zoo, tmp_path: Path) -> None:
    def late(weights, layout, optimizer, rate, snapshot, rng) -> None:
        if snapshot == 2:
            start, stop = layout.part("fc1.weight")
            weights[start:stop] *= (1.0, 10.0, 100.0)[optimizer]

    study = studied(
        make_zoo(late),
        tmp_path,
        what=SliceSpec(part="all", length=60),
        models=(model,),
        snapshots="-2:",
        maps=True,
    )
    (found,) = study.maps
    assert (len(found.positions), len(found.snapshots)) == (100, 3)
    assert found.snapshots == (0.0, 0.5, 1.0)
    assert list(found.layers) == ["conv1", "conv2", "fc1"]
    shown = np.array(found.probabilities)
    start, _ = found.layers["fc1"]
    at = np.array(found.positions)
    assert shown[at > start + 0.05, 2].mean() > 0.6
    assert abs(shown[at < start - 0.15, 2].mean() - found.chance) < 0.12
    assert abs(shown[:, :2].mean() - found.chance) < 0.12


def test_a_map_knows_classes_by_name(make_zoo, tmp_path: Path) -> None:
    """Over all snapshots there are more epochs than a model was fitted to, and the same one has another code."""

    def grown(weights, layout, optimizer, rate, snapshot, rng) -> None:
        weights *= 10.0**snapshot

    study = studied(
        make_zoo(grown, models=40),
        tmp_path,
        what=SliceSpec(part="all", length=60),
        targets=("epoch",),
        kinds={"epoch": "classification"},
        models=("statistics-boost",),
        snapshots="-2:",
        maps=True,
    )
    (found,) = study.maps
    assert (found.snapshots, found.chance) == ((0.5, 1.0), 0.5)
    assert np.array(found.probabilities).min() > 0.9


def test_a_map_is_of_networks_from_the_first_to_the_last(make_zoo) -> None:
    """Not of the first ones, which in a merged zoo are all of one source."""

    class First:
        classes_ = np.array([0, 1])

        def predict_proba(self, X) -> np.ndarray:
            return np.tile([1.0, 0.0], (len(X), 1))

    items = make_zoo(models=100).items()
    late, names = (items.members >= 50).astype(np.int64), ("early", "late")
    target = Target(name="half", kind="classification", classes=names, values=late, present=np.ones(100, bool))
    found = where_and_when(
        First(), MODELS["statistics-boost"], SliceDataset(items, "all", 600), target, names, items.members
    )
    np.testing.assert_allclose(found.probabilities, 0.5)


def test_shuffled_answers_are_at_chance(make_zoo, tmp_path: Path) -> None:
    """Each network's snapshots are nearly the same, so a split by snapshot would find every answer again."""

    def signed(weights, layout, optimizer, rate, snapshot, rng) -> None:
        in_conv2(weights, layout, optimizer, rate, snapshot, rng)
        weights[:] = 1e-3 * weights + 100 * rate + optimizer

    zoo = make_zoo(signed)
    targets = ("optimizer", "learning_rate", "augmentation")
    models = (*BASELINES, "statistics-svm", "statistics-mlp", "values-linear")
    plain = studied(zoo, tmp_path, models=("statistics-boost",), snapshots="all", seeds=1)
    assert figure(plain, "statistics-boost").value == 1.0
    study = studied(zoo, tmp_path, targets=targets, models=models, snapshots="all", shuffled=True, seeds=1)
    assert (plain.shuffled, study.shuffled) == (False, True)
    for model in models:
        assert figure(study, model).low < 1 / 3 + 0.05
        assert figure(study, model, target="augmentation").low < 0.55
        assert figure(study, model, target="learning_rate").value < 0.15


def test_permuted_neurons(make_zoo, tmp_path: Path) -> None:
    """A model that reads places is misled: which of two neurons is the large one depends on the order."""

    def in_two_neurons(weights, layout, optimizer, rate, snapshot, rng) -> None:
        spec = layout.tensors["conv2.weight"]
        kernel = weights[spec.offset : spec.stop].reshape(spec.shape)
        kernel[0] += (3.0, 0.0, -3.0)[optimizer]
        kernel[1] -= (3.0, 0.0, -3.0)[optimizer]

    models = ("values-linear", "statistics-linear")
    study = studied(make_zoo(in_two_neurons), tmp_path, models=models, permuted=True)
    assert figure(study, "values-linear").low > 0.6
    assert figure(study, "values-linear", "permuted").value < 0.7
    told = [figure(study, "statistics-linear", view).value for view in ("all", "permuted")]
    assert abs(told[0] - told[1]) < 0.1  # statistics of a tensor know no order


def test_networks_of_several_architectures(make_zoo, tmp_path: Path) -> None:
    zoo = make_zoo(in_conv2, architectures=("small", "wide"))
    study = studied(zoo, tmp_path, models=(), what=SliceSpec(part="conv"), budget_seconds=20.0)
    assert figure(study, "statistics-boost").value > 0.9
    assert "light-cnn" in {score.model for score in study.scores}  # it reads random slices then
    held = studied(zoo, tmp_path, holdout=Condition.parse("architecture=wide"))
    assert {score.members for score in held.scores if score.view == "all"} == {45}
    assert {fit.note for fit in study.fits if fit.note.startswith("left out")} == set()
    every = studied(zoo, tmp_path, models=("all",), what=SliceSpec(part="conv"), seeds=1, budget_seconds=15.0)
    left_out = {fit.model for fit in every.fits if fit.note.startswith("left out")}
    whole = {"neurons-boost", "transformer", "equivariant", "graph", "probing"}
    assert left_out == whole | {"values-linear", "values-boost"}
    with pytest.raises(UsageError, match="not of one size"):
        studied(zoo, tmp_path, models=("values-linear",))


def test_slices_at_random_places(make_zoo, tmp_path: Path) -> None:
    zoo = make_zoo(in_conv2)
    study = studied(zoo, tmp_path, what=SliceSpec(part="conv2", length=50))
    score = next(s for s in study.scores if s.model == "statistics-boost" and s.view == "all")
    assert score.metrics["accuracy"].value > 0.9
    assert 1 / 3 < score.metrics["accuracy_one_slice"].value <= score.metrics["accuracy"].value
    other = studied(zoo, tmp_path, what=SliceSpec(part="conv2", length=50), test_length=90, seeds=1)
    assert figure(other, "statistics-linear", "length", "90").value > 0.7
    assert not [score for score in other.scores if score.model == "majority" and score.view == "length"]
    with pytest.raises(UsageError, match="reads a whole part"):
        studied(zoo, tmp_path, what=SliceSpec(part="conv2", length=50), models=("values-linear",))


def test_a_net_that_diverges_costs_no_other_model_its_figures(make_zoo, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        "wse.engine.meta.models.light_cnn.encode", lambda values: values[:, None].repeat(1, 3, 1) / 0
    )
    study = studied(make_zoo(models=20), tmp_path, models=("majority", "light-cnn"))
    assert {score.model for score in study.scores} == {"majority"}
    (note,) = {fit.note for fit in study.fits if fit.note}
    assert note.startswith("left out: training of a meta-classifier diverged at once")


def test_values_that_do_not_fit_into_memory(make_zoo, tmp_path: Path, monkeypatch) -> None:
    zoo = make_zoo(models=20)
    monkeypatch.setattr("wse.engine.meta.reading.free_bytes", lambda device: 150_000)
    with pytest.raises(
        UsageError, match=r"at once, which takes 0\.0 GB of memory, and 0\.0 GB are free: choose fewer"
    ):
        studied(zoo, tmp_path, models=("values-linear",))
    study = studied(zoo, tmp_path, models=("values-linear",), what=SliceSpec(part="conv1"))
    assert {score.model for score in study.scores} == {"values-linear"}


def test_permuted_networks_that_do_not_fit_into_memory(make_zoo, tmp_path: Path, monkeypatch) -> None:
    """Their slices are the only ones that are not cut from files: what was read of the others is kept."""
    monkeypatch.setattr("wse.engine.zoo.sources.free_bytes", lambda device: 1000)
    asked = {"models": ("majority", "light-cnn"), "budget_seconds": 5, "permuted": True}
    study = studied(make_zoo(models=20), tmp_path, **asked)
    assert {(score.model, score.view) for score in study.scores} == {("majority", "all"), ("light-cnn", "all")}
    assert "; permuted networks left out: the weights need" in study.fits[-1].note


def test_what_is_asked_twice_is_asked_once(make_zoo, tmp_path: Path) -> None:
    targets = ("optimizer", "config.optimizer", "optimizer")
    study = studied(make_zoo(models=20), tmp_path, targets=targets, models=("majority",))
    assert (len(study.questions), len(study.fits), study.scores[0].items) == (1, 2, 2 * 6)


def test_views(make_zoo, tmp_path: Path) -> None:
    study = studied(
        make_zoo(in_conv2), tmp_path, snapshots="all", test_snapshots="0,-1", models=("statistics-linear",)
    )
    views = {(score.view, score.group) for score in study.scores}
    assert views == {("all", ""), ("status", "ok"), ("progress", "0.0"), ("progress", "1.0")}
    alive = next(score for score in study.scores if score.view == "status")
    whole = next(score for score in study.scores if score.view == "all")
    assert alive.members < whole.members
    confusion = study.confusions[0]
    assert sum(map(sum, confusion.counts)) == whole.items == 2 * 27 * 2  # seeds x test members x snapshots


def test_targets_asked_beside_one_change_nothing(make_zoo, tmp_path: Path) -> None:
    """Half of the networks have no init_std; positions are those of all that are trained on."""
    zoo = make_zoo(in_conv2, models=60)
    asked = {"what": SliceSpec(part="conv2", length=20), "models": ("statistics-boost",), "normalize": "position"}
    alone = studied(zoo, tmp_path, targets=("optimizer",), **asked)
    beside = studied(zoo, tmp_path, targets=("init_std", "optimizer"), **asked)
    assert alone.scores == tuple(score for score in beside.scores if score.target == "optimizer")


def test_processes_change_nothing(make_zoo, tmp_path: Path) -> None:
    zoo = make_zoo(in_conv2, models=40)
    alone = studied(zoo, tmp_path, targets=("optimizer", "learning_rate"))
    together = studied(zoo, tmp_path, targets=("optimizer", "learning_rate"), processes=2)
    assert alone.scores == together.scores
    with pytest.raises(UsageError, match="reads a whole part"):
        studied(
            zoo, tmp_path, what=SliceSpec(part="all", length=9), models=("majority", "values-boost"), processes=2
        )


def test_what_is_told_of_an_interrupted_study(make_zoo, tmp_path: Path, monkeypatch) -> None:
    """Models that were fitted in both rounds, with the scores of the whole study; none of the others."""
    asked = options_of(make_zoo(in_conv2), targets=("optimizer", "learning_rate"), models=BASELINES[:3])
    whole, _ = make_study(asked, tmp_path / "study")

    def some(jobs, *given):
        for index in range(len(jobs.all) - 3):
            yield index, jobs.do(index, None)
        raise KeyboardInterrupt

    monkeypatch.setattr(study_module, "done", some)
    with pytest.raises(StudyInterrupted) as caught:
        run_study(asked, tmp_path / "study")
    told, left = caught.value.study, [("learning_rate", name) for name in BASELINES[1:3]]
    assert (caught.value.done, caught.value.fits) == (9, 12)
    assert told.scores == tuple(score for score in whole.scores if (score.target, score.model) not in left)
    assert {fit.model for fit in told.fits if fit.target == "learning_rate"} == {"majority"}
    assert not (tmp_path / "study").exists()


def test_where(make_zoo, tmp_path: Path) -> None:
    zoo = make_zoo()
    conditions = (Condition.parse("status=ok"), Condition.parse("augmentation=on"))
    study = studied(zoo, tmp_path, where=conditions, models=("majority",))
    assert study.where == ("status=ok", "augmentation=on")
    assert study.members == sum(zoo[each].status == "ok" and zoo[each].config["augmentation"] for each in zoo)


def test_a_study_is_kept_in_the_zoo(make_zoo) -> None:
    zoo = make_zoo(models=30)
    study, folder = run_study(options_of(zoo, models=("majority",)))
    assert folder == zoo.folder / "meta" / "all"
    assert find_studies(zoo.folder) == [study]
    other, beside = run_study(options_of(zoo, models=("majority",), targets=("learning_rate",)))
    assert beside == zoo.folder / "meta" / "all-2"
    assert find_studies(zoo.folder) == [study, other]
    assert zoo.verify() == []
    rows = (folder / "scores.csv").read_text().splitlines()
    assert rows[0] == "target,model,view,group,metric,value,low,high,members,items"
    assert len(rows) == 1 + sum(len(score.metrics) for score in study.scores)
    (folder / "study.json").write_text("{}")
    with pytest.raises(WseError, match="is damaged or of another version"):
        read_study(folder)
    with pytest.raises(WseError, match="cannot write into"):
        write_study(zoo.folder / "zoo.json" / "study", study)


def test_a_study_is_not_replaced_unasked(make_zoo, tmp_path: Path) -> None:
    options = options_of(make_zoo(models=30), models=("majority",))
    study, folder = run_study(options, tmp_path / "study")
    with pytest.raises(UsageError, match=r"study holds a study already: .* --overwrite"):
        run_study(options, folder)
    assert read_study(folder) == study
    again, _ = run_study(options, folder, overwrite=True)
    assert read_study(folder) == again


def test_a_study_does_not_lie_among_the_files_of_a_zoo(make_zoo) -> None:
    zoo = make_zoo(models=30)
    with pytest.raises(UsageError, match="is a zoo, and a study needs a folder of its own"):
        run_study(options_of(zoo, models=("majority",)), zoo.folder)
    assert zoo.verify() == []


@pytest.mark.parametrize("model", ["values-linear", "neurons-boost"])
def test_architectures_that_are_left_out_do_not_matter(model: str, make_zoo, tmp_path: Path) -> None:
    zoo = make_zoo(in_conv2, architectures=("small", "wide"), models=180)
    where = (Condition.parse("architecture=wide"),)
    study = studied(zoo, tmp_path, where=where, models=(model,), seeds=1, what=SliceSpec(part="all"))
    assert study.members == 90
    assert [fit.note for fit in study.fits] == [""]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models": ("majority", "magic")}, "no model 'magic': choose from majority, "),
        ({"targets": ("dataset",)}, "dataset is the same for all chosen networks"),
        ({"targets": ("weather",)}, "no target 'weather'"),
        (
            {"holdout": Condition(column="optimizer", values=("adam", "sgd"))},
            "too few networks to ask for optimizer",
        ),
        ({"seeds": 0}, r"`seeds` \(=0\) must be at least 1"),
        ({"seed": 2**32 - 2, "seeds": 3}, r"`seed` \(=4294967294\) must be from 0 to 4294967293"),
        ({"test_length": 9}, "--test-length needs slices to be trained on"),
        ({"normalize": "all"}, "--normalize all: use none, slice, layer, position"),
        ({"snapshots": "soon"}, "--snapshots soon: write last, all"),
        ({"snapshots": "9:"}, "--snapshots 9: names none"),
        ({"snapshots": f"{10**20}:"}, "--snapshots 1.*0:: write last, all"),
        ({"test_snapshots": "9:"}, "--test-snapshots 9: names none"),
        ({"what": SliceSpec(part="conv9")}, "no part 'conv9'"),
        ({"what": SliceSpec(part="conv9"), "models": ()}, "no part 'conv9'"),
        ({"what": SliceSpec(part="all", length=721), "models": ()}, "fewer than the length 721"),
        ({"what": SliceSpec(part="conv1.bn.moving_mean"), "models": ()}, "--statistics"),
        ({"what": SliceSpec(part="all", length=60), "test_length": 721}, "fewer than the length 721"),
        ({"kinds": {"epoch": "regression"}}, "epoch is not among the targets"),
        ({"logs": frozenset({"learning_rat"}), "targets": ()}, "learning_rat is not among the targets"),
        ({"models": ("equivariant",), "what": SliceSpec(part="conv2")}, "equivariant: it reads whole networks"),
        ({"models": ("dmc",), "what": SliceSpec(part="conv2", length=9)}, "dmc: slices of 9 values are too short"),
        ({"models": ("neurons-boost",), "what": SliceSpec(part="conv2")}, "reads whole networks"),
        ({"models": ("light-cnn",), "maps": True}, "--maps needs slices at several places: give --slice a length"),
        (
            {"models": ("light-cnn",), "maps": True, "what": SliceSpec(part="all", length=719)},
            "--maps needs slices at several places: shorter ones than all:719",
        ),
        (
            {"models": ("setup",), "maps": True, "what": SliceSpec(part="all", length=60)},
            "--maps needs a model that can be mapped: statistics-boost, light-cnn, dmc",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked(make_zoo, tmp_path: Path, changes, told: str, monkeypatch) -> None:
    zoo = make_zoo(models=20)
    if not changes.get("models", True):
        monkeypatch.setattr("wse.engine.meta.jobs.fit", None)  # it is said before any work is done
    with pytest.raises(UsageError, match=told):
        studied(zoo, tmp_path, **changes)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("text", "spec"), [("conv3", SliceSpec(part="conv3")), ("all:5000", SliceSpec(part="all", length=5000))]
)
def test_slice_grammar(text: str, spec: SliceSpec) -> None:
    assert SliceSpec.parse(text) == spec
    assert str(spec) == text


@pytest.mark.parametrize("text", ["", ":5", "conv:", "conv:0", "conv:x", "conv:-3", "conv:1:2"])
def test_no_slice(text: str) -> None:
    with pytest.raises(UsageError, match="write a part"):
        SliceSpec.parse(text)


def test_devices() -> None:
    import torch

    assert pick_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="PyTorch sees no NVIDIA GPU"):
            pick_device("cuda")
    with pytest.raises(UsageError, match="--device tpu: use auto, cpu or cuda"):
        pick_device("tpu")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_processes_leave_with_their_parent(make_zoo, tmp_path: Path) -> None:
    zoo = make_zoo(models=40)
    asked = f"zoo=Path({str(zoo.folder)!r}), what=SliceSpec(part='all'), models=('statistics-mlp',)"
    script = (
        "from pathlib import Path\n"
        "from wse.engine.meta import SliceSpec, StudyOptions, run_study\n"
        "if __name__ == '__main__':\n"
        f"    options = StudyOptions({asked}, seeds=500, processes=2)\n"
        "    run_study(options, report=lambda share, *words: print(share, flush=True))\n"
    )
    (tmp_path / "study.py").write_text(script)
    command = [sys.executable, "-W", "ignore", str(tmp_path / "study.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        while float(parent.stdout.readline()) == 0.0:  # until a job has ended
            pass
        listed = subprocess.run(["ps", "--ppid", str(parent.pid), "-o", "pid="], capture_output=True, check=True)
        children = [int(pid) for pid in listed.stdout.split()]
        assert len(children) >= 2
        parent.kill()
        until = time.monotonic() + 60
        while any(_runs(pid) for pid in children):
            assert time.monotonic() < until
            time.sleep(0.1)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_there_is_of_an_unfinished_zoo(make_zoo, tmp_path: Path) -> None:
    zoo = make_zoo(in_conv2, ended=85)
    with pytest.raises(WseError, match="is unfinished: 85 of 90 members"):
        studied(zoo, tmp_path)
    study = studied(zoo, tmp_path, unfinished=True, processes=2)
    assert (study.members, study.zoo) == (85, f"{zoo.folder.name}, unfinished")
    assert figure(study, "statistics-boost").value > 0.9


def test_what_is_held_out_is_not_asked(make_zoo, tmp_path: Path) -> None:
    """Nobody could know an optimizer that no training network has."""
    zoo = make_zoo(in_conv2)
    asked = {"holdout": Condition.parse("optimizer=adam"), "models": ("majority", "statistics-boost"), "seeds": 1}
    study = studied(zoo, tmp_path, targets=(), maps=True, what=SliceSpec(part="conv2", length=20), **asked)
    assert "optimizer" not in {question.name for question in study.questions}
    assert {found.target for found in study.maps} == {"activation", "augmentation"} & {
        question.name for question in study.questions if question.kind == "classification"
    }
    with pytest.raises(UsageError, match=r"optimizer cannot be asked: .* take another --holdout"):
        studied(zoo, tmp_path, targets=("optimizer",), **asked)


def test_linear_models_choose_their_penalty_by_member(make_zoo) -> None:
    """Also where slices are read, of which each network has several."""
    first: list[np.ndarray] = []

    def alike(weights, layout, optimizer, rate, snapshot, rng) -> None:
        if snapshot == 0:
            first[:] = [weights.copy()]
        weights[:] = first[0] * (1 + 1e-3 * snapshot)

    items = make_zoo(alike).items(snapshots="all")
    target = target_of(items, "learning_rate", log=True)
    making, chosen = Making(kind="regression"), np.arange(len(items))
    for text in ("all", "all:40"):
        reading = Reading(items, SliceSpec.parse(text))
        fitted = fit(MODELS["statistics-linear"], making, reading, target, chosen)
        X, repeats = reading.training("statistics", chosen, target.name)
        assert len(X) == repeats * len(items)
        answers, members = (np.repeat(of_items, repeats) for of_items in (target.values, items.members))
        expected = MODELS["statistics-linear"].make(making).fit(X, answers, groups=members)
        # Not to the bit: a study computes with one thread, this test with several.
        np.testing.assert_allclose(fitted.predict(X), expected.predict(X), rtol=1e-12)
        assert fitted[-1].alpha_ > MODELS["statistics-linear"].make(making).fit(X, answers)[-1].alpha_
