"""What a run will take, before it begins: shortened if a budget asks for it, and the plan of a dry run."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import typer

from .output import bytes_text, count_text, counted_text, percent_text, seconds_text
from .progress import ProgressDisplay

if TYPE_CHECKING:
    from wse.engine.space import Space
    from wse.engine.train import Estimate, Run, Speed

# A run that takes longer is told what a budget would change.
_LONG_SECONDS = 1800


def measured(run: Run, budget: float | None, *, silent: bool) -> tuple[Run, Estimate]:
    """The run, shortened if a budget asks for it, and what it takes here, in a line on stderr."""
    from wse.engine.train import Estimate, Run, fit_space, measure_speed

    if not run.plan.packs:  # all is stored
        return run, Estimate(seconds=0.0, least_seconds=None)
    with ProgressDisplay(run, quiet=silent):
        speed = measure_speed(run)
    asked = run.options.space
    space = fit_space(run, speed, budget) if budget else asked
    if space != asked:
        run = Run(dataclasses.replace(run.options, space=space), run.backend, run.executor)
    estimated = speed.estimate(run)
    run.estimated_seconds = estimated.seconds
    if not silent:
        models, size = run.options.models, bytes_text(run.plan.total("bytes"))
        shortened = f", with {_changes(asked, space)}" if space != asked else ""
        line = f"{models:,} models take about {_time_text(estimated)} here and {size}{shortened}"
        print(line + ("" if budget else _advice(run, speed, estimated)), file=sys.stderr)
    return run, estimated


def _changes(asked: Space, space: Space) -> str:
    """What a budget made of a space, in words."""
    names = ("epochs", "images_per_epoch")
    changed = {name: space.choices(name) for name in names if space.properties[name] != asked.properties[name]}
    return " and ".join(f"{name} of at most {max(values):,}" for name, values in changed.items())


def _advice(run: Run, speed: Speed, estimated: Estimate) -> str:
    """What half the time would change, if that is long."""
    from wse.engine.errors import UsageError
    from wse.engine.train import fit_space

    if estimated.seconds < _LONG_SECONDS:
        return ""
    minutes = round(estimated.seconds / 2 / 60)
    try:
        shorter = _changes(run.options.space, fit_space(run, speed, 60.0 * minutes))
    except UsageError:
        return ""
    return f"; --budget {minutes}m would train with {shorter}"


def _time_text(estimated: Estimate) -> str:
    most = seconds_text(estimated.seconds)
    if estimated.least_seconds is None:
        return most
    return f"{seconds_text(estimated.least_seconds)} to {most}, depending on when members stop,"


def print_plan(run: Run, estimated: Estimate, stored: int, *, as_json: bool, verbose: bool) -> None:
    """What a dry run prints: what is in the folder, and what the rest costs, in all and by architecture."""
    plan, options = run.plan, run.options
    if as_json:
        import json

        typer.echo(json.dumps({"stored": stored, **_plan_fields(run, estimated)}, indent=2))
        return
    typer.echo(f"{'folder':<11} {_folder_text(run, stored)}")
    if not plan.packs:
        return
    at_most = " at most" if plan.may_stop_early else ""
    workers = counted_text(run.workers, "worker")
    rows = [
        ("models", f"{plan.total('members'):,} of {counted_text(len(plan.architectures), 'architecture')}"),
        ("image sets", ", ".join(run.image_sets)),
        ("training", f"{count_text(plan.total('training_images'))} samples{at_most}"),
        ("FLOPs", f"{count_text(plan.total('flops'))}{at_most}, evaluation included"),
        ("useful", f"{percent_text(run.useful_share())} of the steps that packs take"),
        ("disk", f"{bytes_text(plan.total('bytes'))}{at_most} as {options.dtype}"),
        ("memory", f"about {bytes_text(run.memory_bytes())}"),
        ("time here", f"about {_time_text(estimated)} by {workers} of the {run.backend.name} backend"),
    ]
    for name, text in rows:
        typer.echo(f"{name:<11} {text}")
    shown = plan.architectures if verbose else plan.architectures[:5]
    typer.echo(f"\n{'architecture':<24}{'models':>8}{'values':>10}{'samples':>10}{'FLOPs':>10}{'disk':>10}")
    for part in shown:
        typer.echo(
            f"{part.architecture.name:<24}{part.members:>8,}{part.values:>10,}"
            f"{count_text(part.training_images):>10}{count_text(part.flops):>10}{bytes_text(part.bytes):>10}"
        )
    if len(shown) < len(plan.architectures):
        typer.echo(f"and {len(plan.architectures) - len(shown):,} more (-v shows them)")


def _folder_text(run: Run, stored: int) -> str:
    """What a run would meet in its folder."""
    from wse.engine.zoo.format import MANIFEST_FILE

    folder, models = run.options.folder, f"{run.options.models:,}"
    if not run.plan.packs:
        return f"{folder}, where all {models} models are stored: there is nothing to train"
    if run.options.resume:
        return f"{folder}, where {stored:,} of {models} models are stored; of the others:"
    return f"{folder}, {'in place of the zoo there' if (folder / MANIFEST_FILE).exists() else 'a new zoo'}"


def _plan_fields(run: Run, estimated: Estimate) -> dict[str, Any]:
    names = ("members", "training_images", "training_flops", "evaluation_flops", "bytes")
    return {
        **{name: run.plan.total(name) for name in names},
        "may_stop_early": run.plan.may_stop_early,
        "useful_share": run.useful_share(),
        "memory_bytes": run.memory_bytes(),
        "seconds": estimated.seconds,
        "least_seconds": estimated.least_seconds,
        "workers": run.workers,
        "backend": run.backend.name,
        "image_sets": list(run.image_sets),
        "architectures": [
            {
                "name": part.architecture.name,
                "values": part.values,
                **{name: getattr(part, name) for name in names},
            }
            for part in run.plan.architectures
        ],
    }
