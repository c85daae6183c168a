"""A study as `wse meta` could have written it, of invented figures: every view, map and note a page can show."""

from __future__ import annotations

import numpy as np

from wse.engine.meta import Confusion, Fit, Interval, Map, Question, Score, Study

MODELS = {
    "majority": "the most frequent class, or the mean",
    "setup": "gradient boosting on all other properties and the test accuracy, without weights",
    "linear": "logistic or ridge regression on statistics of each layer",
    "svm": "linear support vector machine on statistics of each layer",
    "boosting": "gradient boosting on statistics of each layer",
    "mlp": "two hidden layers on statistics of each layer",
    "dmc": "the study's deep meta-classifier on slices",
    "transformer": "a transformer over tokens of weights",
}
CLASSES = {
    "dataset": ("fashion-mnist", "mnist"),
    "optimizer": ("adam", "momentum", "rmsprop"),
    "activation": ("elu", "relu", "sigmoid", "tanh"),
    "initialization": ("constant", "glorot_normal", "glorot_uniform", "normal"),
    "batch_size": ("32", "64", "128", "256"),
    "augmentation": ("off", "on"),
}
NUMBERS = ("learning_rate", "epoch", "test_accuracy", "generalization_gap")
LAYERS = {
    "conv1": (0.0, 0.0069),
    "conv2": (0.0069, 0.0422),
    "conv3": (0.0422, 0.1818),
    "fc1": (0.1818, 0.8944),
    "fc2": (0.8944, 0.986),
    "fc3": (0.986, 1.0),
}


def invented_study(*, slice_name: str = "all:5000", seed: int = 0, views: bool = True) -> Study:
    """A study whose figures are drawn at random; without views, one that asked for the least."""
    random = np.random.default_rng(seed)
    questions = [
        *(Question(name=n, kind="classification", classes=c, log=False, members=600) for n, c in CLASSES.items()),
        *(Question(name=n, kind="regression", classes=(), log=n == "learning_rate", members=600) for n in NUMBERS),
    ]
    names = list(MODELS)
    scores = []
    for question in questions:
        chance = 1 / len(question.classes) if question.classes else 0.0
        for place, model in enumerate(names):
            base = 0.0 if place == 0 else 0.12 if place == 1 else 0.3 + 0.08 * place
            skill = min(max(base + random.normal(0, 0.07 if place else 0.01), -0.1), 0.96)
            scores.append(_score(question, model, "all", "", chance, skill, random))
            if not views:
                continue
            scores += [
                _score(question, model, "status", status, chance, skill * part, random)
                for status, part in (("ok", 1.0), ("dead", 0.3))
            ]
            for tenth in range(11):
                part = skill * (0.3 + 0.7 * tenth / 10)
                scores.append(_score(question, model, "progress", f"{tenth / 10:.1f}", chance, part, random))
            if place not in (1, 6, 7):
                for depth, layer in enumerate(LAYERS):
                    part = skill * (0.5 + 0.4 * np.sin(depth))
                    scores.append(_score(question, model, "layer", layer, chance, part, random))
        if views:
            for model, kept in (("dmc", 0.15), ("transformer", 0.9), ("linear", 1.0)):
                scores.append(_score(question, model, "permuted", "", chance, 0.7 * kept, random))
            for length in ("500", "2000", "10000"):
                scores.append(_score(question, "dmc", "length", length, chance, 0.5, random))
    return Study(
        wse_version="0.1.0",
        zoo="zoo",
        zoo_seed=0,
        slice=slice_name,
        snapshots="last",
        normalize="none",
        statistics=False,
        holdout="",
        seeds=3,
        budget_seconds=600.0,
        device="cpu",
        members=600,
        seconds=1234.5,
        questions=tuple(questions),
        models=MODELS,
        scores=tuple(scores),
        confusions=tuple(
            _confusion(name, model, classes, random)
            for name, classes in CLASSES.items()
            for model in ("linear", "boosting", "dmc")
        ),
        maps=tuple(_map(name, len(classes), random) for name, classes in CLASSES.items()) if views else (),
        fits=tuple(
            Fit(
                target=question.name,
                model=model,
                seed=split,
                seconds=float(random.gamma(2, 4)),
                epochs=int(random.integers(4, 31)) if model in ("dmc", "transformer") else None,
                note="stopped by its budget" if model == "dmc" and split == 1 else "",
            )
            for question in questions
            for model in names
            for split in range(3)
        ),
    )


def _score(
    question: Question,
    model: str,
    view: str,
    group: str,
    chance: float,
    skill: float,
    random: np.random.Generator,
) -> Score:
    value = chance + (1 - chance) * float(skill)

    def around(middle: float, width: float = 0.03) -> Interval:
        half = width * (0.6 + float(random.random()))
        return Interval(value=middle, low=middle - half, high=min(middle + half, 1.0))

    if question.kind == "classification":
        metrics = {"accuracy": around(value), "balanced_accuracy": around(value * 0.98)}
        if model != "svm":
            metrics |= {"log_loss": around(1.5 - value), "calibration_error": around(0.16 - 0.1 * value, 0.01)}
    else:
        metrics = {
            "r2": around(value),
            "mae": around(0.1 * (1 - value)),
            "kendall_tau": around(0.8 * value),
            "kendall_tau_ceiling": around(0.98, 0.0),
        }
    return Score(
        target=question.name, model=model, view=view, group=group, metrics=metrics, members=360, items=360
    )


def _confusion(name: str, model: str, classes: tuple[str, ...], random: np.random.Generator) -> Confusion:
    counts = random.integers(2, 25, (len(classes), len(classes))) + np.diag([90] * len(classes))
    return Confusion(
        target=name, model=model, classes=classes, counts=tuple(tuple(map(int, row)) for row in counts)
    )


def _map(name: str, classes: int, random: np.random.Generator) -> Map:
    positions, times = np.linspace(0, 1, 100), np.linspace(0, 1, 20)
    where = np.exp(-(((positions[:, None] - random.random()) / 0.12) ** 2)) + 0.5 * (positions[:, None] < 0.18)
    skill = np.clip(where * (0.15 + 0.6 * times) + random.normal(0, 0.03, (100, 20)), -0.1, 0.9)
    chance = 1 / classes
    return Map(
        target=name,
        model="dmc",
        length=5000,
        positions=tuple(positions.tolist()),
        layers=LAYERS,
        snapshots=tuple(times.tolist()),
        probabilities=tuple(map(tuple, (chance + (1 - chance) * skill).tolist())),
        chance=chance,
    )
