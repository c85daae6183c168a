"""Forms that are compiled before a run are those that Triton looks for when a pack launches, by the same key.

Triton's interpreter and its compiler exclude each other in a process, so these run in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from wse.engine.train.cuda_forms import _FEW

# No GPU is asked for anything: launches end where they would go to it, with the form compiled or found.
PROGRAM = """
import sys
import torch, triton
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from wse.engine.space import Space
from wse.engine.train.cuda_forms import Compilation, forms_of, launch_measurement, launch_step
from wse.kernels.triton_compile import settle_keys, stand_in

preset, stops = sys.argv[1], "stop" in sys.argv
architecture = Space.load(preset=preset).members(0, range(1))[0].architecture
choices = {"classes": 10, "augment": preset != "small-cnn", "gelu": False}
forms = forms_of([architecture] * 2, torch.bfloat16, **choices)
driver.set_active(stand_in(90))
settle_keys()
lines, shares = [], []
compilation = Compilation(lines.append)

def should_stop():
    shares.append(compilation.share)
    return stops and shares != [None] * len(shares)  # once processes are at work

if "broken" in sys.argv:
    sys.executable = "/bin/false"
compilation.compile(forms, 90, should_stop)
print(len(forms), compilation.share, *lines, sep="|")
print(*sorted({share for share in shares if share is not None}))

run = JITFunction.run
found = []
JITFunction.run = lambda self, *given, grid, warmup, **named: run(self, *given, grid=grid, warmup=True, **named)
triton.knobs.compilation.listener = lambda *, src, cache_hit, **_: found.append(cache_hit)
for launch in (launch_step, launch_measurement):
    for rows, batch in ((1, 1), (48, 64)):
        launch(architecture, torch.bfloat16, rows=rows, batch=batch, **choices)
print(len(found), sum(found))
"""


def compiled(tmp_path: Path, *arguments: str) -> list[list[str]]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    return [first.split("|"), *(line.split() for line in others)]


def test_launches_find_what_was_compiled_ahead(tmp_path: Path) -> None:
    (forms, share, *lines), shares, (asked, found) = compiled(tmp_path, "nws-fixed")
    assert share == "None"
    assert [line[:24] for line in lines] == ["compiling the GPU kernel", "compiled the GPU kernels"]
    assert len(shares) > 2  # it is shown as it goes on
    assert all(0 < float(share) <= 1 for share in shares)
    assert int(asked) == int(found) == int(forms) - _FEW
    again, no_shares, _ = compiled(tmp_path, "nws-fixed")
    assert again == [forms, "None"]
    assert not no_shares


def test_a_run_that_is_to_stop_does_not_wait_for_the_compiler(tmp_path: Path) -> None:
    (forms, share, *lines), _, (asked, found) = compiled(tmp_path, "small-cnn", "stop")
    assert share == "None"
    assert len(lines) == 1
    assert int(asked) == int(forms) - _FEW
    assert int(found) < int(asked)  # what is missing is compiled as it is launched


def test_where_no_process_compiles_it_is_said(tmp_path: Path) -> None:
    (forms, share, *lines), _, (asked, _) = compiled(tmp_path, "small-cnn", "broken")
    assert share == "None"
    left = int(forms) - _FEW
    assert lines[-1] == f"compiled 0 of {left} GPU kernels; the others will be when they are launched"
    assert int(asked) == left
