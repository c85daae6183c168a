"""Figures of a study along something with an order: the layers, the progress of training."""

from __future__ import annotations

import numpy as np

from ...meta import Question, Score, Study, main_metric
from ..figure import Figure, Key
from ..lines import Series, lines
from ..svg import percent
from .scores import (
    SCORE_HEADER,
    best_first,
    bounds_of,
    chance_of,
    form_of,
    is_baseline,
    score_rows,
    scores_of,
    styles_of,
)

# Views with an order along which a line can be followed.
LINED = {
    "layer": ("by layer", "layer that was read", "Each model read one layer alone."),
    "progress": (
        "by training progress",
        "share of training done",
        "Snapshots grouped by how far training was, in tenths.",
    ),
}
# More lines than this hide each other; the CSV has all models.
_MOST_LINES = 6


def lined(study: Study, prefix: str, view: str) -> Figure:
    """A line a model over the layers, or over the progress of training."""
    title, label, caption = LINED[view]
    styles = styles_of(study)
    shown = _leaders(study, view)
    panels = []
    for question in study.questions:
        mine = [
            score for score in scores_of(study, view) if score.target == question.name and score.model in shown
        ]
        mine = [score for score in mine if main_metric(question.kind) in score.metrics]
        if not mine:
            continue
        layers = _in_order({score.group for score in mine}) if view == "layer" else []
        series = [
            _series(question, [score for score in mine if score.model == model], layers, model, styles[model])
            for model in shown
            if any(score.model == model for score in mine)
        ]
        panels.append(
            lines(
                series,
                title=question.name,
                description="; ".join(f"{one.name} from {one.y[0]:.2f} to {one.y[-1]:.2f}" for one in series)
                + ".",
                label=label,
                form=form_of(question),
                x_form=percent,
                bounds=bounds_of(question, mine),
                line=(chance_of(question), "chance"),
                names=layers,
            )
        )
    hidden = len({score.model for score in scores_of(study, view)}) - len(shown)
    more = f" The {len(shown)} models that read best are drawn, {hidden} more stand in the CSV." if hidden else ""
    return Figure(
        name=f"{prefix}-{view}",
        title=f"What can be read, {title}",
        caption=f"{caption} Accuracy, or R² of a number, with 95 % intervals; chance is dashed.{more}",
        panels=tuple(panels),
        header=SCORE_HEADER,
        rows=tuple(score_rows(study, scores_of(study, view))),
        keys=(
            *(
                Key(style=f"{styles[model]} {'dashed' if is_baseline(model) else 'line'}", label=model)
                for model in shown
            ),
            Key(style="chance", label="chance"),
        ),
    )


def _leaders(study: Study, view: str) -> list[str]:
    """Models to draw lines of: those with the best mean rank over the properties, in the study's order."""
    ranks: dict[str, list[int]] = {}
    for question in study.questions:
        scores = best_first(question, [score for score in scores_of(study, view) if score.target == question.name])
        for place, model in enumerate(dict.fromkeys(score.model for score in scores)):
            ranks.setdefault(model, []).append(place)
    best = sorted(ranks, key=lambda model: (is_baseline(model), float(np.mean(ranks[model]))))[:_MOST_LINES]
    return [model for model in study.models if model in best]


def _series(question: Question, scores: list[Score], layers: list[str], model: str, style: str) -> Series:
    """Places are numbers of the layers or, where there are none, the groups themselves: shares of training."""
    places = {score.group: float(layers.index(score.group) if layers else score.group) for score in scores}
    ordered = sorted(scores, key=lambda score: places[score.group])
    figures = [score.metrics[main_metric(question.kind)] for score in ordered]
    return Series(
        name=model,
        x=tuple(places[score.group] for score in ordered),
        y=tuple(figure.value for figure in figures),
        whiskers=tuple((figure.low, figure.high) for figure in figures),
        style=style,
        dashed=is_baseline(model),
    )


def _in_order(layers: set[str]) -> list[str]:
    """Layers as they stand in a network: convolutions before what is fully connected, each by number."""

    def place(layer: str) -> tuple[str, int, str]:
        name = layer.split(".")[0]
        kind = name.rstrip("0123456789")
        return kind, int(name[len(kind) :] or 0), layer

    return sorted(layers, key=place)
