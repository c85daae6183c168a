"""Figures of one study: how well each model reads each property, where and when, and with what errors."""

from __future__ import annotations

import numpy as np

from ...meta import Study
from ..figure import Figure, Key
from ..grids import heat_map, matrix
from ..rows import Dot, dots, room_for
from ..svg import around, percent
from .ordered import LINED, lined
from .scores import (
    SCORE_HEADER,
    best_first,
    bounds_of,
    chance_of,
    dot_of,
    figure_text,
    form_of,
    is_baseline,
    metric_name,
    score_rows,
    scores_of,
)
from .strata import strata_figure


def study_figures(study: Study, prefix: str) -> list[Figure]:
    """The figures of a study, as far as it has what they show; ``prefix`` starts the names of their files."""
    figures = [_scores(study, prefix)]
    figures += [lined(study, prefix, view) for view in LINED if scores_of(study, view)]
    views = dict.fromkeys(score.view for score in study.scores)
    figures += [strata_figure(study, prefix, view) for view in views if view != "all" and view not in LINED]
    figures += [_maps(study, prefix)] if study.maps else []
    figures += [_confusions(study, prefix)] if study.confusions else []
    if any("calibration_error" in score.metrics for score in scores_of(study, "all")):
        figures.append(_calibration(study, prefix))
    return [figure for figure in figures if figure.panels]  # a study of baselines alone has no best reader


def _scores(study: Study, prefix: str) -> Figure:
    panels = []
    room = room_for(study.models)
    for question in study.questions:
        mine = best_first(question, [score for score in scores_of(study, "all") if score.target == question.name])
        if not mine:
            continue
        drawn = [
            dot_of(question, score, score.model, "c7" if is_baseline(score.model) else "c0") for score in mine
        ]
        classes = f" · {len(question.classes)} classes" if question.classes else " · log" if question.log else ""
        chance = chance_of(question)
        panels.append(
            dots(
                drawn,
                title=f"{question.name}{classes}",
                description=f"Best: {drawn[0].name} with {figure_text(question, drawn[0].value)}; "
                f"chance is {figure_text(question, chance)}.",
                label=metric_name(question),
                form=form_of(question),
                bounds=bounds_of(question, mine),
                line=(chance, "chance"),
                room=room,
            )
        )
    return Figure(
        name=f"{prefix}-scores",
        title="What can be read",
        caption="Accuracy of each model for a property with classes, R² for a number (cut at -0.5), on members "
        "that were not trained on; lines are 95 % bootstrap intervals over members. Models that see weights come "
        "first, best on top; rings are baselines that see none.",
        panels=tuple(panels),
        header=SCORE_HEADER,
        rows=tuple(score_rows(study, scores_of(study, "all"))),
        keys=(
            Key(style="c0 dot", label="reads weights"),
            Key(style="c7 ring", label="baseline without weights"),
            Key(style="c0 whisker", label="95 % interval"),
            Key(style="chance", label="chance"),
        ),
    )


def _maps(study: Study, prefix: str) -> Figure:
    panels, rows = [], []
    for one in study.maps:
        values_PS = np.array(one.probabilities)
        high = max(float(np.nanmax(values_PS)), one.chance + 0.01)
        peak = np.unravel_index(int(np.nanargmax(values_PS)), values_PS.shape)
        panels.append(
            heat_map(
                values_PS.T,
                low=one.chance,
                high=high,
                edges=one.layers,
                title=f"{one.target} · {one.model}",
                description=f"Highest, {100 * high:.0f} %, {100 * one.positions[int(peak[0])]:.0f} % along "
                f"and {100 * one.snapshots[int(peak[1])]:.0f} % into training.",
                label="training →",
            )
        )
        rows += [
            (one.target, one.model, one.length, one.chance, position, snapshot, probability)
            for position, row in zip(one.positions, one.probabilities, strict=True)
            for snapshot, probability in zip(one.snapshots, row, strict=True)
        ]
    return Figure(
        name=f"{prefix}-maps",
        title="Where and when",
        caption="Mean probability that a slice's true class is given, by where the slice starts (left to right, "
        "layers named below) and by the snapshot it is from (the first at the bottom). The darkest colour is "
        "chance or less.",
        panels=tuple(panels),
        header=("target", "model", "length", "chance", "position", "training_done", "probability"),
        rows=tuple(rows),
    )


def _confusions(study: Study, prefix: str) -> Figure:
    panels, rows = [], []
    for question in study.questions:
        scores = [score for score in scores_of(study, "all") if score.target == question.name]
        order = [score.model for score in best_first(question, scores) if not is_baseline(score.model)]
        mine = [one for one in study.confusions if one.target == question.name]
        for one in mine:
            rows += [
                (one.target, one.model, true, predicted, count)
                for true, counts in zip(one.classes, one.counts, strict=True)
                for predicted, count in zip(one.classes, counts, strict=True)
            ]
        best = sorted((one for one in mine if one.model in order), key=lambda one: order.index(one.model))
        for one in best[:1]:
            total = sum(map(sum, one.counts))
            right = sum(one.counts[place][place] for place in range(len(one.classes)))
            panels.append(
                matrix(
                    one.counts,
                    one.classes,
                    title=f"{one.target} · {one.model}",
                    description=f"{right:,} of {total:,} test items are on the diagonal.",
                )
            )
    return Figure(
        name=f"{prefix}-confusion",
        title="What is taken for what",
        caption="For each property the model that reads it best: of the test items of a true class (row), the "
        "share in percent that it gives each class (column). The CSV has all models.",
        panels=tuple(panels),
        header=("target", "model", "true", "predicted", "items"),
        rows=tuple(rows),
    )


def _calibration(study: Study, prefix: str) -> Figure:
    panels = []
    scores = [score for score in scores_of(study, "all") if "calibration_error" in score.metrics]
    highest = max(score.metrics["calibration_error"].high for score in scores)
    for question in study.questions:
        mine = [score for score in scores if score.target == question.name]
        drawn = [
            Dot(
                name=score.model,
                value=(figure := score.metrics["calibration_error"]).value,
                interval=(figure.low, figure.high),
                style="c7" if is_baseline(score.model) else "c0",
                hollow=is_baseline(score.model),
            )
            for score in sorted(mine, key=lambda score: score.metrics["calibration_error"].value)
        ]
        if drawn:
            panels.append(
                dots(
                    drawn,
                    title=question.name,
                    description="; ".join(f"{one.name} {one.value:.3f}" for one in drawn) + ".",
                    label="calibration error",
                    form=percent,
                    bounds=around([0.0, max(highest, 0.01)]),
                    room=room_for(study.models),
                )
            )
    return Figure(
        name=f"{prefix}-calibration",
        title="Calibration",
        caption="How far the probabilities that a model gives are from how often it is right (expected "
        "calibration error): less is better. A baseline that always gives the classes' shares is calibrated, and "
        "knows nothing.",
        panels=tuple(panels),
        header=SCORE_HEADER,
        rows=tuple(score_rows(study, scores, ("calibration_error", "log_loss"))),
    )
