"""Figures of a study's test items apart: dead members in and out, an image set at a time, ..."""

from __future__ import annotations

from dataclasses import replace

from ...meta import Question, Score, Study
from ..figure import Figure, Key
from ..rows import Dot, dots, room_for
from .scores import (
    SCORE_HEADER,
    best_first,
    bounds_of,
    chance_of,
    dot_of,
    figure_text,
    form_of,
    metric_name,
    score_rows,
    scores_of,
)

# More groups than this hide each other; the CSV has all.
_MOST_GROUPS = 6
_TITLES = {
    "status": "Dead members in and out",
    "permuted": "With neurons permuted",
    "length": "Slices of other lengths",
}
_CAPTIONS = {
    "status": "Test members by status; the models were trained on all. What is dead carries little but its start.",
    "permuted": "Neurons of test members put into another order: the same functions, other vectors.",
    "length": "Test slices of other lengths than in training.",
}


def strata_figure(study: Study, prefix: str, view: str) -> Figure:
    """A row a model, a dot a group, beside the dot of all test items."""
    scores = scores_of(study, view)
    groups, hidden = _groups(scores)
    # All test items have the first colour, groups the others.
    styles = {group: f"c{(place % 6) + 1}" for place, group in enumerate(groups)}
    names = {group: group or view for group in groups}
    whole_name = "as in training" if view in ("permuted", "length") else "all test items"
    models = {score.model for score in scores}
    room = room_for(models)
    panels = []
    for question in study.questions:
        mine = [score for score in scores if score.target == question.name and score.group in styles]
        if not mine:
            continue
        everything = [
            score for score in scores_of(study, "all") if score.target == question.name and score.model in models
        ]
        drawn: list[Dot] = []
        for whole in best_first(question, everything):
            drawn.append(_named(question, whole, whole_name, "c0"))
            drawn += [
                _named(question, score, names[score.group], styles[score.group])
                for group in groups
                for score in mine
                if score.model == whole.model and score.group == group
            ]
        panels.append(
            dots(
                drawn,
                title=question.name,
                description="; ".join(f"{one.name}{one.note} {figure_text(question, one.value)}" for one in drawn)
                + ".",
                label=metric_name(question),
                form=form_of(question),
                bounds=bounds_of(question, [*everything, *mine]),
                line=(chance_of(question), "chance"),
                room=room,
            )
        )
    more = (
        f" The {len(groups)} groups with the most items are drawn, {hidden} more stand in the CSV."
        if hidden
        else ""
    )
    caption = _CAPTIONS.get(view, f"Test members apart by {view}; the models were trained on all.")
    return Figure(
        name=f"{prefix}-{view}",
        title=_TITLES.get(view, f"What can be read, by {view}"),
        caption=f"{caption} Lines are 95 % intervals, rings are baselines, chance is dashed.{more}",
        panels=tuple(panels),
        header=SCORE_HEADER,
        rows=tuple(score_rows(study, scores)),
        keys=(
            Key(style="c0 dot", label=whole_name),
            *(Key(style=f"{styles[group]} dot", label=names[group]) for group in groups),
            Key(style="chance", label="chance"),
        ),
    )


def _groups(scores: list[Score]) -> tuple[list[str], int]:
    """The groups with the most items, in order, and how many others there are."""
    items: dict[str, int] = {}
    for score in scores:
        items[score.group] = max(items.get(score.group, 0), score.items)
    most = sorted(items, key=lambda group: (-items[group], group))[:_MOST_GROUPS]
    return sorted(most, key=_place), len(items) - len(most)


def _place(group: str) -> tuple[float, str]:
    """Numbers by size, before names."""
    try:
        return float(group), group
    except ValueError:
        return float("inf"), group


def _named(question: Question, score: Score, group: str, style: str) -> Dot:
    dot = dot_of(question, score, score.model, style)
    return replace(dot, note=f", {group}{dot.note}")
