"""``wse verify``: whether a zoo is whole, what is wrong if it is not, and mending it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import INTERRUPTED, bytes_text, command_text
from .progress import execute

if TYPE_CHECKING:
    from wse.engine.train import RepairPlan
    from wse.engine.zoo import Manifest, Problem, Zoo


def verify(
    zoo: Annotated[Path, typer.Argument(help="The folder of the zoo.")] = Path("zoo"),
    labels: Annotated[
        int | None,
        typer.Option(help="Also measure so many random members again, on the test images.", metavar="K"),
    ] = None,
    regenerate: Annotated[
        int | None,
        typer.Option(help="Also train so many random members again, and compare all their bits.", metavar="K"),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make what is damaged again, to the same bits; nothing else changes.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help="A folder with image sets, searched first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Read every file of a zoo in full, say what is wrong, and mend it if asked to."""
    from wse.engine.train import plan_repair
    from wse.engine.zoo import DamagedError, Problem, Zoo, find_problems

    opened, plan, repaired = None, None, []
    counts = {"measured": 0, "regenerated": 0}
    try:
        opened = Zoo.open(zoo)
        problems = find_problems(opened)
        plan = plan_repair(opened, problems)
        if repair and plan:
            _repair(opened, plan, data_dir=data_dir, quiet=quiet or as_json)
            repaired = list(plan.steps())
            opened = Zoo.open(zoo)
            problems = find_problems(opened)
            plan = plan_repair(opened, problems)
        if not problems:
            problems = _look_closer(opened, labels, regenerate, counts, data_dir=data_dir, quiet=quiet or as_json)
    except DamagedError as error:
        problems = [Problem.of(error, zoo)]
    if as_json:
        _print_json(zoo, problems, counts, plan, repaired)
    else:
        for step in repaired:
            typer.echo(f"done: {step}")
        if opened is not None and not problems:
            typer.echo(f"{zoo} is whole: {_extent(opened.manifest)}{_again(counts)}{_beside(zoo)}")
        else:
            _print_problems(zoo, problems, plan)
    if problems:
        raise typer.Exit(1)


def _repair(zoo: Zoo, plan: RepairPlan, *, data_dir: Path | None, quiet: bool) -> None:
    from wse.engine.train import repair

    if not repair(zoo, plan, data_dir=data_dir, execute=partial(execute, quiet=quiet), tell=_teller(quiet)):
        command = command_text("wse", "verify", "--repair", zoo.folder)
        typer.echo(f"wse: interrupted: no file of the zoo has changed; go on with `{command}`", err=True)
        raise typer.Exit(INTERRUPTED)


def _look_closer(
    zoo: Zoo,
    labels: int | None,
    regenerate: int | None,
    counts: dict[str, int],
    *,
    data_dir: Path | None,
    quiet: bool,
) -> list[Problem]:
    """What is wrong with random members of a zoo whose files are whole."""
    from wse.engine.train import label_problems, regeneration_problems

    problems: list[Problem] = []
    if labels is not None:
        problems += label_problems(zoo, labels, data_dir=data_dir)
        counts["measured"] = min(labels, len(zoo))
    if regenerate is not None:
        running = partial(execute, quiet=quiet)
        found = regeneration_problems(zoo, regenerate, data_dir=data_dir, execute=running, tell=_teller(quiet))
        if found is None:
            raise typer.Exit(INTERRUPTED)
        problems += found
        counts["regenerated"] = min(regenerate, len(zoo))
    return problems


def _teller(quiet: bool) -> Callable[[str], None] | None:
    return (lambda line: None) if quiet else None


def _extent(manifest: Manifest) -> str:
    sizes = [shard.bytes for shard in manifest.shards] + [table.bytes for table in manifest.tables.values()]
    return f"{manifest.models:,} members, {bytes_text(sum(sizes))} in {len(sizes):,} tables and shards"


def _again(counts: dict[str, int]) -> str:
    measured, regenerated = counts["measured"], counts["regenerated"]
    return (f", {measured:,} measured again" if measured else "") + (
        f", {regenerated:,} trained again to the same bits" if regenerated else ""
    )


def _beside(folder: Path) -> str:
    from wse.engine.zoo import found_beside

    names = ", ".join(path.name for path in found_beside(folder))
    return f"; beside it in the folder: {names}" if names else ""


def _print_problems(folder: Path, problems: list[Problem], plan: RepairPlan | None) -> None:
    for problem in problems:
        typer.echo(str(problem))
    if plan:
        typer.echo(f"`{command_text('wse', 'verify', '--repair', folder)}` would")
        for step in plan.steps():
            typer.echo(f"  {step}")
    if plan is None:  # zoo.json itself
        typer.echo("restore it from a copy, or make the zoo again")
    elif plan.beyond:
        typer.echo("what --repair cannot mend:")
        for problem in plan.beyond:
            typer.echo(f"  {problem}")


def _print_json(
    folder: Path, problems: list[Problem], counts: dict[str, int], plan: RepairPlan | None, repaired: list[str]
) -> None:
    import json

    found = [{"file": str(problem.file.relative_to(folder)), "problem": problem.text} for problem in problems]
    result = {"zoo": str(folder), "whole": not problems, **counts, "problems": found}
    result |= {"repaired": repaired, "repair": list(plan.steps()) if plan else []}
    typer.echo(json.dumps(result, indent=2))
