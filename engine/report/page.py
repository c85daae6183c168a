"""The page: one HTML file that needs nothing else, and a folder with its figures and numbers beside it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import UsageError, WseError
from ..files import atomic_write
from ..meta import Study, find_studies, read_study
from ..text import counted_text, name_text, seconds_text
from ..zoo import STUDY_FILE, Zoo
from .facts import commands, facts, space_files
from .figure import Figure, data_link
from .figures import embedding_figures, population_figures, study_figures
from .figures.fits import by_model, fits_figure
from .standalone import standalone, swatch
from .templates import render as fill

# A table that is longer is not put into the page as well: it stands in the folder alone.
MOST_EMBEDDED = 60_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the page: its anchor and title, lines on what it shows, its figures, a study if it shows one."""

    anchor: str
    title: str
    notes: tuple[str, ...]
    figures: tuple[Figure, ...]
    study: Study | None = None
    fits: Figure | None = None


def write_report(zoo: Zoo, page: Path, *, studies: Sequence[Path] = (), embedding: bool = True) -> Path:
    """Write the page of a zoo and of the studies kept beside it.

    Args:
        zoo: the zoo.
        page: the HTML file; its folder must exist. Each figure as SVG and its numbers as CSV go into a folder
            beside it: ``report-data`` for ``report.html``.
        studies: folders of further studies.
        embedding: whether to read weights and embed them in a plane, which takes most of the time.

    Returns:
        The folder with the figures' files.

    Raises:
        UsageError: the file's name does not end in .html, or a study is missing or of another zoo.
        WseError: a file of the zoo is damaged, or the page cannot be written.
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"cannot write the page as {page}: the name must end in .html")
    folder = page.with_name(f"{page.stem}-data")  # not its stem alone: that may be the zoo
    _check_writable(folder)
    for study in studies:
        _check_study(study, zoo)
    parts = sections(zoo, studies=studies, embedding=embedding)
    spaces = space_files(zoo.manifest)
    html = render(zoo, parts, folder.name, spaces)
    try:
        for name, content in _files(parts, spaces).items():
            with atomic_write(folder / name) as file:
                file.write(content.encode())
        with atomic_write(page) as file:
            file.write(html.encode(errors="replace"))  # the page's own name is in it
    except OSError as error:
        raise _not_written(page, error) from error
    return folder


def _check_writable(folder: Path) -> None:
    """Before the work, not after it."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise _not_written(folder, error) from error
    if not os.access(folder, os.W_OK) or not os.access(folder.parent, os.W_OK):
        raise _not_written(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _check_study(folder: Path, zoo: Zoo) -> None:
    if not (folder / STUDY_FILE).is_file():
        raise UsageError(f"--study {folder}: there is no {STUDY_FILE} in it; name a folder that `wse meta` wrote")
    study, seed = read_study(folder), zoo.manifest.seed
    if study.zoo_seed != seed:
        raise UsageError(
            f"the study in {folder} is of {study.zoo} with seed {study.zoo_seed}, and {zoo.folder} has seed "
            f"{seed}: leave out that --study"
        )


def _not_written(path: Path, error: OSError) -> WseError:
    return WseError(f"cannot write {path}: {error.strerror or error}; name another place by --out")


def sections(zoo: Zoo, *, studies: Sequence[Path] = (), embedding: bool) -> list[Section]:
    """All that the page shows, in order."""
    parts = [
        Section(anchor="population", title="The population", notes=(), figures=tuple(population_figures(zoo)))
    ]
    for number, study in enumerate(find_studies(zoo.folder, studies), 1):
        anchor = f"study-{number}"
        parts.append(
            Section(
                anchor=anchor,
                title=_study_title(study, number, [part.title for part in parts]),
                notes=tuple(study_notes(study)),
                figures=tuple(study_figures(study, anchor)),
                study=study,
                fits=fits_figure(study, anchor) if study.fits else None,
            )
        )
    if embedding and (figures := embedding_figures(zoo)):
        parts.append(Section(anchor="weights", title="The space of weights", notes=(), figures=tuple(figures)))
    return parts


def _study_title(study: Study, number: int, taken: list[str]) -> str:
    title = f"Reading {study.slice}" + "".join(f", {condition}" for condition in study.where)
    title += f", held out: {study.holdout}" if study.holdout else ""
    title += ", answers shuffled" if study.shuffled else ""
    return f"{title} (study {number})" if title in taken else title


def study_notes(study: Study) -> list[str]:
    """What a study did, in a few words each."""
    split = f"test members: {study.holdout}" if study.holdout else "test members at random"
    budget = "no limit" if study.budget_seconds is None else seconds_text(study.budget_seconds)
    return [
        f"read from {study.zoo}",
        f"slice {study.slice} of snapshots {study.snapshots}",
        f"normalised: {study.normalize}",
        f"moving averages {'among' if study.statistics else 'not among'} the values",
        f"{study.members:,} members, {split}",
        *(["members have each other's answers: all but chance is a leak"] if study.shuffled else []),
        counted_text(study.seeds, "seed"),
        f"deep models on {study.device}, budget {budget}",
        f"took {seconds_text(study.seconds)}",
        f"wse {study.wse_version}",
    ]


def render(zoo: Zoo, parts: list[Section], folder: str, spaces: dict[str, str]) -> str:
    """The HTML of the page."""
    context: dict[str, Any] = {
        "title": name_text(zoo.folder.resolve()),
        "facts": facts(zoo),
        "commands": commands(zoo.manifest, [f"{folder}/{name}" for name in spaces]),
        "space_links": {name: data_link(space, "text/plain") for name, space in spaces.items()},
        "sections": parts,
        "folder": folder,
        "version": version("wse"),
        "csv_link": partial(_csv_link, folder=folder),
        "by_model": by_model,
        "swatch": swatch,
        "seconds_text": seconds_text,
        "imported": zoo.manifest.imported is not None,
        "chances": _chances(zoo),
        "lost": sum(count for status, count in zoo.manifest.counts.items() if status != "ok"),
    }
    return fill("page.html.j2", **context)


def _chances(zoo: Zoo) -> str:
    classes = sorted({entry.classes for entry in zoo.manifest.image_sets.values()})
    return " or ".join(f"{100 / count:.3g} %" for count in classes)


def _csv_link(figure: Figure, folder: str) -> str:
    """Where a figure's CSV is: in the page itself if it is short, else in the folder."""
    content = figure.csv()
    return data_link(content, "text/csv") if len(content) <= MOST_EMBEDDED else f"{folder}/{figure.name}.csv"


def _files(parts: list[Section], spaces: dict[str, str]) -> dict[str, str]:
    files = dict(spaces)
    for part in parts:
        figures = (*part.figures, *([part.fits] if part.fits else []))
        files |= {f"{figure.name}.csv": figure.csv() for figure in figures}
        files |= {f"{figure.name}.svg": standalone(figure) for figure in part.figures}
    return files
