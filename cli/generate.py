"""``wse generate``: from a space to a zoo."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import INTERRUPTED, bytes_text, count_text, percent_text, seconds_text

if TYPE_CHECKING:
    from wse.engine.train import Estimate, Run


def generate(
    models: Annotated[int | None, typer.Option(help="How many networks to train.")] = None,
    preset: Annotated[str | None, typer.Option(help="nws-main (the default), nws-fixed or small-cnn.")] = None,
    config: Annotated[Path | None, typer.Option(help="A space file (TOML) over the preset.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Fix or vary a key of the space; may be repeated."),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(help="Image sets (mnist,digits), or `available`: the space's that are here."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="A folder with image sets, searched first.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the zoo.")] = Path("zoo"),
    seed: Annotated[int | None, typer.Option(help="The seed of everything (0 if not given).")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto (the default), cuda (an NVIDIA GPU), cpu (compiled) or reference (plain PyTorch)."
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the arithmetic on a GPU: bf16 (the default there) or fp32.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Networks trained at a time, by each process; as many as cores.")
    ] = None,
    executor: Annotated[
        str,
        typer.Option(help="Where to train: threads of this process, processes, ray (a cluster) or slurm (jobs)."),
    ] = "threads",
    processes: Annotated[
        int | None, typer.Option(help="With --executor processes: how many; one a core, or one a GPU.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="With --executor ray: the cluster; what Ray finds, or this machine.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="With --executor slurm: partition=gpu, time=240, at_a_time=8; may be repeated.",
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Stored weights: float32 (the default), float16 or bfloat16.")
    ] = None,
    checkpoint_interval: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Training that a killed run may lose (300); 0: less than an epoch."),
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Also measure accuracies as the 2020 study did.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the zoo in --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be trained and what it takes; train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More detail, tracebacks of errors.")] = False,
) -> None:
    """Sample a population of networks, train them all, and store their weights as they learn."""
    from wse.engine.scale import executor_for
    from wse.engine.train import Run, backend_for, estimate, resolve_options

    place = executor_for(executor, processes=processes, address=address, slurm=slurm or ())
    options, notes = resolve_options(
        models=models,
        preset=preset,
        config=config,
        overrides=overrides or [],
        datasets=datasets,
        data_dir=data_dir,
        folder=out,
        seed=seed,
        dtype=dtype,
        faithful=faithful,
        device=device,
        precision=precision,
        threads=threads,
        checkpoint_seconds=checkpoint_interval,
        resume=resume,
        overwrite=overwrite,
    )
    hidden = quiet or as_json or sys.stderr.isatty()  # a terminal has a bar for it
    backend = backend_for(options.device, (lambda line: None) if hidden else None, precision=options.precision)
    run = Run(options, backend, place)
    if not quiet:
        for note in notes:
            print(note, file=sys.stderr)
    if dry_run:
        _print_plan(run, estimate(run), as_json=as_json, verbose=verbose)
        run.check_disk()
        return
    complete = _execute(run, quiet=quiet or as_json)
    if complete:
        _print_result(run, as_json=as_json)
        return
    progress = run.progress()
    command = f"wse generate --resume --out {options.folder}"
    print(
        f"wse: interrupted: {progress.members:,} of {progress.total:,} models are stored, and how far those in "
        f"training have come; go on with `{command}`",
        file=sys.stderr,
    )
    raise typer.Exit(INTERRUPTED)


def _execute(run: Run, *, quiet: bool) -> bool:
    """Train; the first Ctrl-C or SIGTERM checkpoints what is in training and ends the run, the second at once."""
    from .progress import ProgressDisplay

    def stop(_signal: int, _frame: Any) -> None:
        if run.is_stopping:
            raise KeyboardInterrupt
        run.stop()
        print("\nstopping; once more to leave at once", file=sys.stderr)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ProgressDisplay(run, quiet=quiet):
            return run.execute()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_plan(run: Run, estimated: Estimate, *, as_json: bool, verbose: bool) -> None:
    plan, options = run.plan, run.options
    if as_json:
        import json

        typer.echo(json.dumps(_plan_fields(run, estimated), indent=2))
        return
    at_most = " at most" if plan.may_stop_early else ""
    took = seconds_text(estimated.seconds)
    if estimated.least_seconds is not None:
        took = f"{seconds_text(estimated.least_seconds)} to {took}, depending on when members stop"
    rows = [
        ("models", f"{plan.total('members'):,} of {len(plan.architectures):,} architectures"),
        ("image sets", ", ".join(run.image_sets)),
        ("training", f"{count_text(plan.total('training_images'))} samples{at_most}"),
        ("FLOPs", f"{count_text(plan.total('flops'))}{at_most}, evaluation included"),
        ("disk", f"{bytes_text(plan.total('bytes'))}{at_most} as {options.dtype}, in {options.folder}"),
        ("memory", f"about {bytes_text(run.memory_bytes())}"),
        ("time here", f"about {took}, by {run.workers} workers of the {run.backend.name} backend"),
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


def _plan_fields(run: Run, estimated: Estimate) -> dict[str, Any]:
    names = ("members", "training_images", "training_flops", "evaluation_flops", "bytes")
    return {
        **{name: run.plan.total(name) for name in names},
        "may_stop_early": run.plan.may_stop_early,
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


def _print_result(run: Run, *, as_json: bool) -> None:
    from wse.engine.zoo import Zoo

    manifest = Zoo.open(run.options.folder).manifest
    seconds = manifest.timing.seconds if manifest.timing else {}
    if as_json:
        import json

        result = {"zoo": str(run.options.folder), "models": manifest.models, "counts": manifest.counts}
        typer.echo(json.dumps({**result, "seconds": seconds}, indent=2))
        return
    counts = ", ".join(f"{count:,} {status}" for status, count in manifest.counts.items() if count)
    typer.echo(f"{run.options.folder}: {manifest.models:,} models ({counts})")
    accuracies = run.progress().accuracies
    if accuracies:
        from statistics import median

        best, middle = percent_text(max(accuracies)), percent_text(median(accuracies))
        typer.echo(f"test accuracy: best {best}, median {middle}")
        typer.echo(
            f"{seconds_text(seconds['total'])}: training {seconds_text(seconds['training'])} and evaluation "
            f"{seconds_text(seconds['evaluation'])} summed over {run.workers} workers, "
            f"all else {percent_text(seconds['overhead'])}"
        )
    typer.echo(f"look inside with `wse info {run.options.folder}`")
