"""What the figures of a study share: which scores, in which order and colour, beside which chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ...meta import MODELS, Question, Score, Study, main_metric
from ..rows import Dot
from ..svg import Format, percent, plain

SCORE_HEADER = ("target", "model", "view", "group", "metric", "value", "low", "high", "chance", "members", "items")


def is_baseline(model: str) -> bool:
    """Whether a model sees no weights: what it reaches can be had without any."""
    return model in MODELS and MODELS[model].reads in ("nothing", "setup")


def scores_of(study: Study, view: str) -> list[Score]:
    """The scores of one view."""
    return [score for score in study.scores if score.view == view]


def chance_of(question: Question) -> float:
    """What guessing reaches: one of the classes, or no share of the variance."""
    return 1 / len(question.classes) if question.classes else 0.0


def metric_name(question: Question) -> str:
    """The main metric as it stands at an axis."""
    return "accuracy" if question.kind == "classification" else "R²"


def form_of(question: Question) -> Format:
    """How figures of the main metric are written at an axis."""
    return percent if question.kind == "classification" else plain


def bounds_of(question: Question, scores: Iterable[Score]) -> tuple[float, float]:
    """Accuracies from 0 to 1; R2 from where the worst model is, cut at -0.5: any number can be reached below."""
    if question.kind == "classification":
        return 0.0, 1.0
    lows = [score.metrics["r2"].low for score in scores if "r2" in score.metrics]
    return max(min([0.0, *lows]), -0.5), 1.0


def score_rows(
    study: Study, scores: Iterable[Score], metrics: Iterable[str] | None = None
) -> list[tuple[object, ...]]:
    """Rows of a CSV under ``SCORE_HEADER``: all metrics, or those named."""
    chances = {question.name: chance_of(question) for question in study.questions}
    wanted = None if metrics is None else set(metrics)
    return [
        (
            score.target,
            score.model,
            score.view,
            score.group,
            metric,
            figure.value,
            figure.low,
            figure.high,
            chances[score.target] if metric in ("accuracy", "balanced_accuracy", "r2") else "",
            score.members,
            score.items,
        )
        for score in scores
        for metric, figure in score.metrics.items()
        if wanted is None or metric in wanted
    ]


def dot_of(question: Question, score: Score, name: str, style: str) -> Dot:
    """The main metric of a score as a dot; a ring for a baseline."""
    figure = score.metrics.get(main_metric(question.kind))
    if figure is None:
        return Dot(name=name, value=np.nan, interval=(np.nan, np.nan), style=style)
    return Dot(
        name=name,
        value=figure.value,
        interval=(figure.low, figure.high),
        style=style,
        hollow=is_baseline(score.model),
        note=f", {score.members:,} members, {score.items:,} items",
    )


def best_first(question: Question, scores: Sequence[Score]) -> list[Score]:
    """Models by how well they read, then the baselines."""

    def order(score: Score) -> tuple[bool, float]:
        figure = score.metrics.get(main_metric(question.kind))
        return is_baseline(score.model), -figure.value if figure is not None else np.inf

    return sorted(scores, key=order)


def figure_text(question: Question, value: float) -> str:
    """A figure of the main metric in words."""
    return f"{100 * value:.1f} %" if question.kind == "classification" else f"R² {value:.2f}"


def styles_of(study: Study) -> dict[str, str]:
    """Model -> class of its colour, the same in all figures of a study; baselines are grey."""
    readers = [name for name in study.models if not is_baseline(name)]
    return {name: f"c{readers.index(name) % 7}" if name in readers else "c7" for name in study.models}
