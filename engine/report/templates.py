"""The page's template and the style that it and single figures share."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def render(name: str, **context: Any) -> str:
    """A template of this package, filled in; what is put into it is escaped."""
    return _environment().get_template(name).render(context)


@cache
def stylesheet() -> str:
    """The style of charts, light and dark."""
    return render("charts.css.j2")


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    folder = resources.files(__package__)
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
