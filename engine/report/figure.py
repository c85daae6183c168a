"""A figure of the page: charts that belong together, what they show, and the same numbers as a table."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One entry of a legend: a class of the style sheet, and what marks of it mean."""

    style: str
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """What stands between two headings of the page.

    Attributes:
        name: of its CSV file, without the ending, and its anchor in the page.
        title: of the figure.
        caption: what is shown and how to read it, in a sentence or two.
        panels: charts, as SVG.
        header: names of the columns of its table.
        rows: of its table; every number a chart shows stands here.
        keys: the legend.
    """

    name: str
    title: str
    caption: str
    panels: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    keys: tuple[Key, ...] = ()

    def csv(self) -> str:
        """The table as CSV."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows(self.rows)
        return file.getvalue()


def data_link(content: str, kind: str) -> str:
    """A link that holds the content itself."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(content.encode()).decode()}"
