"""What the scripts that ask a GPU something share: times, and lines of a results file."""

from __future__ import annotations

import json
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import triton

_ROUNDS = 9
_SECONDS = 0.01  # of a round, about


def parser(description: str) -> ArgumentParser:
    made = ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--device", default="cuda", help="cpu only with TRITON_INTERPRET=1, to try the script")
    made.add_argument("--out", type=Path, help="append the results to this file, a JSON line each")
    return made


def seconds_of(run: Callable[[], object], device: str) -> list[float]:
    """Seconds of one call, by round; on a GPU between two events of the stream, many calls between them."""
    run()
    if torch.device(device).type != "cuda":
        began = time.perf_counter()
        run()
        return [time.perf_counter() - began]
    torch.cuda.synchronize()
    times = max(int(_SECONDS / max(_round(run, 3), 1e-7)), 1)
    return [_round(run, times) for _ in range(_ROUNDS)]


def _round(run: Callable[[], object], times: int) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(times):
        run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3 / times


def middle(rounds: list[float]) -> float:
    return statistics.median(rounds)


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """The norm of the difference over that of ``other``."""
    return float((one.double() - other.double()).norm() / other.double().norm())


def write(out: Path | None, question: str, device: str, rows: list[dict[str, Any]]) -> None:
    """Append rows, each with the machine, versions and date."""
    if out is None:
        return
    about = {
        "question": question,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "the interpreter",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with out.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(about | row) + "\n" for row in rows)
