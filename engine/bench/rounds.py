"""Rounds in which everyone takes a turn, and the machine is measured; what whole ones gave survives Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Tell = Callable[[str], None]
Measured = TypeVar("Measured")


@dataclass(frozen=True, kw_only=True)
class Rounds(Generic[Measured]):
    """What was measured.

    Attributes:
        turns: contender's name -> what each whole round gave.
        machine: gauge's name -> the same.
        interrupted: whether Ctrl-C came before the last round was over.
    """

    turns: Mapping[str, list[Measured]]
    machine: Mapping[str, list[float]]
    interrupted: bool


def take_rounds(
    turns: Mapping[str, Callable[[], Measured]],
    gauges: Mapping[str, Callable[[], float]],
    *,
    count: int,
    workload: str,
    tell: Tell,
) -> Rounds[Measured]:
    """Measure in rounds, contenders back and forth, so that none always follows the same one.

    Args:
        turns: contender's name -> its turn in a round.
        gauges: name -> what it measures of the machine; all before the turns.
        count: how many rounds.
        workload: its name.
        tell: is given a line a round.

    Raises:
        KeyboardInterrupt: Ctrl-C came before a round was over.
    """
    whole: list[tuple[dict[str, float], dict[str, Measured]]] = []
    try:
        for number in range(count):
            tell(f"{workload}: round {number + 1} of {count}")
            of_machine = {name: gauge() for name, gauge in gauges.items()}
            order = list(turns)[:: -1 if number % 2 else 1]
            whole.append((of_machine, {name: turns[name]() for name in order}))
    except KeyboardInterrupt:
        if not whole:
            raise
    return Rounds(
        turns={name: [of_turns[name] for _, of_turns in whole] for name in turns},
        machine={name: [of_machine[name] for of_machine, _ in whole] for name in gauges},
        interrupted=len(whole) < count,
    )
