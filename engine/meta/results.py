"""What a study found, as a record that is kept beside the zoo.

``study.json`` holds everything; ``scores.csv`` the scores, a row each, for other programs. Accuracies are
fractions; intervals are 95 % bootstrap intervals over members.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..errors import WseError
from ..files import atomic_write
from ..zoo import STUDIES_FOLDER, STUDY_FILE
from .targets import Kind

SCORES_FILE = "scores.csv"
STUDY_FORMAT = 1


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plain record; a field that is not known is an error that names it."""


class Interval(_Record, frozen=True, kw_only=True):
    """A figure and its 95 % bootstrap interval over members."""

    value: float
    low: float
    high: float


class Score(_Record, frozen=True, kw_only=True):
    """How well one model answers one target on the test items of one view.

    Attributes:
        target: name of the column.
        model: name of the model, a key of ``Study.models``.
        view: what the items are grouped by: ``all``; a column, such as ``status`` or ``dataset``; ``progress``
            (how far training was, in tenths); ``layer`` (trained on that part alone); ``permuted`` (neurons
            permuted); ``length`` (slices of another length than in training).
        group: which group: a value of the column, ``0.3``, ``conv3``, a length; else empty.
        metrics: name -> figure; for a classification ``accuracy``, ``balanced_accuracy`` and, of models with
            probabilities, ``log_loss`` and ``calibration_error``; for a regression ``r2``, ``mae``,
            ``kendall_tau`` and ``kendall_tau_ceiling`` (what a perfect ranker reaches with the ties there are).
        members: test members, all seeds together.
        items: test items, all seeds together.
    """

    target: str
    model: str
    view: str
    group: str
    metrics: dict[str, Interval]
    members: int
    items: int


class Confusion(_Record, frozen=True, kw_only=True):
    """Test items by true class (rows) and predicted class (columns)."""

    target: str
    model: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Map(_Record, frozen=True, kw_only=True):
    """Where and when a property shows: the mean probability of the true class of slices.

    Attributes:
        target: name of the column.
        model: name of the model.
        length: of a slice, in values.
        positions: where slices start, as a fraction of the places in the part, [P].
        layers: name -> (start, stop) as fractions of the part, of the most frequent architecture.
        snapshots: mean share of training done at each snapshot, [S].
        probabilities: [P][S], mean over test members.
        chance: 1 / classes.
    """

    target: str
    model: str
    length: int
    positions: tuple[float, ...]
    layers: dict[str, tuple[float, float]]
    snapshots: tuple[float, ...]
    probabilities: tuple[tuple[float, ...], ...]
    chance: float


class Question(_Record, frozen=True, kw_only=True):
    """A target as it was asked.

    Attributes:
        name: of the column.
        kind: classification or regression.
        classes: names of the classes.
        log: whether the logarithm was predicted.
        members: members that have it.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    log: bool
    members: int


class Fit(_Record, frozen=True, kw_only=True):
    """What one training of a model took.

    Attributes:
        target: name of the column.
        model: name of the model.
        seed: of the split and of the model.
        seconds: of fitting and predicting.
        epochs: passes over the training items of a deep model; None for others.
        note: what a user should know: stopped by its budget, left out and why; empty if nothing.
    """

    target: str
    model: str
    seed: int
    seconds: float
    epochs: int | None = None
    note: str = ""


class Study(_Record, frozen=True, kw_only=True):
    """One run of ``wse meta``.

    Attributes:
        format: version of this record.
        wse_version: that made it.
        zoo: name of the zoo's folder.
        zoo_seed: seed of the population; None: it was merged of several.
        slice: what was read, as given: ``conv3``, ``all:5000``, ...
        snapshots: which snapshots, as given.
        where: which members were asked about, as given; empty: all.
        normalize: how values were normalised.
        statistics: whether moving averages of batch normalisation were among the values.
        holdout: how test members were chosen: empty for at random, else as given.
        shuffled: whether members had each other's answers.
        seeds: number of splits.
        budget_seconds: for deep models; None: no limit.
        device: that deep models ran on.
        members: all members asked about.
        seconds: the whole study took.
        questions: the targets.
        models: name -> one line on what it is.
        scores: of every target, model and view.
        confusions: of classifications.
        maps: where x when.
        fits: what every training took.
    """

    format: int = STUDY_FORMAT
    wse_version: str
    zoo: str
    zoo_seed: int | None
    slice: str
    snapshots: str
    where: tuple[str, ...] = ()
    normalize: str
    statistics: bool
    holdout: str
    shuffled: bool = False
    seeds: int
    budget_seconds: float | None
    device: str
    members: int
    seconds: float
    questions: tuple[Question, ...]
    models: dict[str, str]
    scores: tuple[Score, ...]
    confusions: tuple[Confusion, ...]
    maps: tuple[Map, ...]
    fits: tuple[Fit, ...]


def main_metric(kind: Kind) -> str:
    """The metric that stands for a model in a table: accuracy or R2."""
    return "accuracy" if kind == "classification" else "r2"


def write_study(folder: Path, study: Study) -> None:
    """Write ``study.json`` and ``scores.csv`` into a folder, which is made.

    Raises:
        WseError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / SCORES_FILE) as file:
            file.write(scores_csv(study).encode())
        with atomic_write(folder / STUDY_FILE) as file:
            file.write(msgspec.json.format(msgspec.json.encode(study), indent=1))
    except OSError as error:
        raise WseError(f"cannot write into {folder}: {error.strerror or error}; name another by --out") from error


def read_study(folder: Path) -> Study:
    """Read a study back.

    Raises:
        WseError: it is missing, or not what was written.
    """
    path = folder / STUDY_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Study)
    except OSError as error:
        raise WseError(f"cannot read {path}: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WseError(f"{path} is damaged or of another version ({error}): run `wse meta` again") from error


def find_studies(zoo: Path, elsewhere: Sequence[Path] = ()) -> list[Study]:
    """The studies kept beside a zoo, by name of their folders, then those of other folders; each once."""
    folders = sorted(path.parent for path in (zoo / STUDIES_FOLDER).glob(f"*/{STUDY_FILE}"))
    different = {folder.resolve(): folder for folder in (*folders, *elsewhere)}
    return [read_study(folder) for folder in different.values()]


def scores_csv(study: Study) -> str:
    """The scores as CSV: a row for each target, model, view, group and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["target", "model", "view", "group", "metric", "value", "low", "high", "members", "items"])
    for score in study.scores:
        for metric, figure in score.metrics.items():
            where = [score.target, score.model, score.view, score.group, metric]
            writer.writerow([*where, figure.value, figure.low, figure.high, score.members, score.items])
    return text.getvalue()
