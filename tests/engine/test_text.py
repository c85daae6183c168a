from __future__ import annotations

import os
import shlex
from pathlib import Path

from wse.engine.text import command_text, counted_text, name_text


def test_a_command_is_what_a_shell_takes_apart_again() -> None:
    assert command_text("wse", "info", "zoo") == "wse info zoo"
    words = ["wse", "info", "my zoo's; rm *"]
    assert shlex.split(command_text(*words)) == words


def test_one_thing_and_several() -> None:
    told = [counted_text(count, "worker") for count in (0, 1, 2, 2000)]
    assert told == ["0 workers", "1 worker", "2 workers", "2,000 workers"]


def test_a_name_that_is_no_text_can_be_stored() -> None:
    assert name_text(Path("my zoo/übung")) == "übung"
    assert name_text(Path(os.fsdecode(b"caf\xe9"))) == "caf?"
