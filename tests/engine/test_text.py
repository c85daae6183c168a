from __future__ import annotations

import shlex

from wse.engine.text import command_text


def test_a_command_is_what_a_shell_takes_apart_again() -> None:
    assert command_text("wse", "info", "zoo") == "wse info zoo"
    words = ["wse", "info", "my zoo's; rm *"]
    assert shlex.split(command_text(*words)) == words
