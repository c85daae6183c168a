"""``wse info``: what a zoo holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import bytes_text, count_text, counted_text, percent_text, seconds_text

if TYPE_CHECKING:
    from wse.engine.report import Group, Summary
    from wse.engine.zoo import Manifest, Zoo


def info(
    zoo: Annotated[Path, typer.Argument(help="The folder of the zoo.")] = Path("zoo"),
    curves: Annotated[
        Path | None, typer.Option(help="Also draw the learning curves into this file (png, svg or pdf).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every property, and tracebacks of errors.")
    ] = False,
) -> None:
    """Print what a zoo holds, or holds so far: members, test accuracies by property, size, cost."""
    from wse.engine.report import draw_learning_curves, summarize
    from wse.engine.zoo import Zoo

    opened = Zoo.open(zoo, unfinished=True)
    summary = summarize(opened)
    if curves is not None:
        draw_learning_curves(opened, curves)
    if as_json:
        import json

        typer.echo(json.dumps(_fields(opened.manifest, summary), indent=2))
        return
    _print_head(opened, summary)
    _print_groups(summary, every=verbose)
    if curves is not None:
        typer.echo(f"\nlearning curves: {curves}")


def _print_head(zoo: Zoo, summary: Summary) -> None:
    from wse.engine.report import members, origin

    manifest = zoo.manifest
    sizes = sorted(entry.size for entry in manifest.architectures.values())
    span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    rows = [
        ("zoo", f"{zoo.folder}, {bytes_text(summary.bytes)} of weights ({manifest.dtype})"),
        *members(zoo),
        ("nets", f"{counted_text(len(sizes), 'architecture')} of {span} values"),
        ("snapshots", f"{summary.snapshots:,}"),
        ("image sets", ", ".join(manifest.image_sets)),
        *origin(manifest),
    ]
    if manifest.cost is not None and manifest.timing is not None:
        seconds = manifest.timing.seconds
        samples = count_text(manifest.cost.samples_trained)
        rows.append(("cost", f"{samples} samples trained, {seconds_text(seconds['total'])}"))
    rows.append(
        ("gap", f"training accuracy less test accuracy, median {percent_text(summary.generalization_gap)}")
    )
    for name, text in rows:
        typer.echo(f"{name:<11} {text}")


def _print_groups(summary: Summary, *, every: bool) -> None:
    typer.echo(f"\n{'test accuracy':<38}{'members':>8}{'best':>9}{'median':>9}{'clear*':>9}")
    _print_group("all members", summary.everything)
    names = list(summary.properties)
    if not every:
        names = [name for name in names if name in _SHOWN]
    for name in names:
        typer.echo(name)
        for group in summary.properties[name]:
            _print_group(f"  {group.value}", group)
    typer.echo("* share of members clearly above guessing (by more than 5 standard deviations)")
    hidden = len(summary.properties) - len(names)
    if hidden:
        typer.echo(f"{hidden} more properties vary (-v shows them)")


_SHOWN = ("dataset", "optimizer", "activation", "initialization", "augmentation")


def _print_group(name: str, group: Group) -> None:
    typer.echo(
        f"{name:<38}{group.members:>8,}{percent_text(group.best):>9}{percent_text(group.median):>9}"
        f"{percent_text(group.above_chance):>9}"
    )


def _fields(manifest: Manifest, summary: Summary) -> dict[str, Any]:
    import dataclasses

    import msgspec

    described = msgspec.to_builtins(manifest)
    for entry in described["architectures"].values():
        del entry["tensors"]  # they follow from the layers, and are long
    return {"zoo": described, "summary": dataclasses.asdict(summary)}
