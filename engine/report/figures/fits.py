"""What a study trained, and how long it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...meta import Fit, Study
from ..figure import Figure


def fits_figure(study: Study, prefix: str) -> Figure:
    """What was trained and how long it took: a table without charts."""
    rows = [(fit.target, fit.model, fit.seed, round(fit.seconds, 2), fit.epochs, fit.note) for fit in study.fits]
    return Figure(
        name=f"{prefix}-fits",
        title="What was run",
        caption="Seconds of fitting and predicting, all properties and seeds together.",
        panels=(),
        header=("target", "model", "seed", "seconds", "epochs", "note"),
        rows=tuple(rows),
    )


def by_model(study: Study) -> list[tuple[str, str, int, float, str, list[str]]]:
    """A row a model: name, what it is, trainings, seconds, epochs of one training, notes."""
    fits: dict[str, list[Fit]] = {name: [] for name in study.models}
    for fit in study.fits:
        fits.setdefault(fit.model, []).append(fit)
    table = []
    for name, mine in fits.items():
        epochs = sorted({fit.epochs for fit in mine if fit.epochs is not None})
        span = "" if not epochs else str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
        notes = list(_notes(mine))
        table.append((name, study.models.get(name, ""), len(mine), sum(fit.seconds for fit in mine), span, notes))
    return table


def _notes(fits: Sequence[Fit]) -> Iterable[str]:
    """Each note once, with the properties it holds for."""
    targets: dict[str, list[str]] = {}
    for fit in fits:
        if fit.note:
            targets.setdefault(fit.note, []).append(fit.target)
    everything = {fit.target for fit in fits}
    for note, named in targets.items():
        unique = list(dict.fromkeys(named))
        yield note if len(unique) == len(everything) > 1 else f"{', '.join(unique)}: {note}"
