"""``wse generate``: from a space to a zoo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .forecast import measured, print_plan
from .output import INTERRUPTED, command_text, counted_text, percent_text, seconds_of, seconds_text
from .progress import execute

if TYPE_CHECKING:
    from wse.engine.train import Estimate, Run

# Less work than this is done as soon as it is measured.
_LEAST_FLOPS = 5e12


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
        str | None,
        typer.Option(help="Of the arithmetic: bf16 (the default on a GPU; not with --device cpu) or fp32."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Networks trained at a time, by each process; as many as cores. On a GPU: packs of them, 16."
        ),
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
    budget: Annotated[
        str | None,
        typer.Option(help="Shorten epochs so that all fits into a time (90s, 30m, 2h) on this machine."),
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Also measure accuracies as the 2020 study did.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out, perhaps with more --models, or fewer."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the zoo in --out.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what is there, what would be trained and what it takes; do nothing."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More detail, tracebacks of errors.")] = False,
) -> None:
    """Sample a population of networks, train them all, and store their weights as they learn."""
    from wse.engine.errors import UsageError
    from wse.engine.scale import executor_for
    from wse.engine.train import Run, backend_for, resolve_options
    from wse.engine.zoo import resume_command

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
    if budget and resume:
        raise UsageError("--budget goes with a new zoo: that of --resume has its epochs settled; leave it out")
    seconds = seconds_of(budget) if budget else None
    silent = quiet or as_json
    hidden = silent or sys.stderr.isatty()  # a terminal has a bar for it
    backend = backend_for(options.device, (lambda line: None) if hidden else None, precision=options.precision)
    run = Run(options, backend, place)
    if not quiet:
        for note in notes:
            print(note, file=sys.stderr)
    stored, estimated = run.look(), None
    if run.taken_back and not quiet:
        asked = f"{run.taken_back:,} of the {options.models + run.taken_back:,} models that were asked for"
        print(f"{asked} are taken back; what those in training have learned is given up", file=sys.stderr)
    if dry_run or budget or (run.plan.total("flops") > _LEAST_FLOPS and not resume):
        run, estimated = measured(run, seconds, silent=silent or dry_run)
    if dry_run:
        assert estimated is not None  # noqa: S101 - just above
        print_plan(run, estimated, stored, as_json=as_json, verbose=verbose)
        run.check_resources()
        return
    complete = execute(run, quiet=silent)
    if complete:
        _print_result(run, estimated, as_json=as_json)
        return
    progress = run.progress()
    print(
        f"wse: interrupted: {progress.members:,} of {progress.total:,} models are stored, and how far those in "
        f"training have come; go on with `{resume_command(options.folder)}`",
        file=sys.stderr,
    )
    raise typer.Exit(INTERRUPTED)


def _print_result(run: Run, estimated: Estimate | None, *, as_json: bool) -> None:
    from wse.engine.report import summarize
    from wse.engine.zoo import Zoo

    zoo = Zoo.open(run.options.folder)
    manifest, seconds = zoo.manifest, run.seconds
    if as_json:
        import json

        result = {"zoo": str(run.options.folder), "models": manifest.models, "counts": manifest.counts}
        expected = estimated.seconds if estimated else None
        typer.echo(json.dumps({**result, "seconds": seconds, "estimated_seconds": expected}, indent=2))
        return
    counts = ", ".join(f"{count:,} {status}" for status, count in manifest.counts.items() if count)
    typer.echo(f"{run.options.folder}: {manifest.models:,} models ({counts})")
    everything = summarize(zoo).everything
    typer.echo(f"test accuracy: best {percent_text(everything.best)}, median {percent_text(everything.median)}")
    if trained := len(run.progress().accuracies):
        some = f" for {trained:,} of them" if trained < len(zoo) else ""
        typer.echo(
            f"{seconds_text(seconds['total'])}{some}: training {seconds_text(seconds['training'])} and evaluation "
            f"{seconds_text(seconds['evaluation'])} summed over {counted_text(run.workers, 'worker')}, "
            f"all else {percent_text(seconds['overhead'])}"
        )
    if estimated:
        off = seconds["total"] / estimated.seconds - 1
        told = f"{percent_text(abs(off))} {'more' if off > 0 else 'less'}"
        typer.echo(f"{told} time than the {seconds_text(estimated.seconds)} that were expected")
    typer.echo(f"look inside with `{command_text('wse', 'info', run.options.folder)}`")
