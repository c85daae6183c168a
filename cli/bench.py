"""``wse bench``: our speed side by side, in one run, with what a user would run instead."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .output import count_text, percent_text

if TYPE_CHECKING:
    from wse.engine.bench import Options, Report, Result, SliceOptions, SliceReport, SliceResult

    AnyReport = TypeVar("AnyReport", Report, SliceReport)

app = typer.Typer(help="Speed, side by side with what a user would run instead.", no_args_is_help=False)

_QUICK_SECONDS, _QUICK_ROUNDS, _QUICK_MEGABYTES = 0.3, 3, 160
_KERNELS_SHOWN = 10  # of each contender; results have all
_SLOW_TO_START = "pytorch-compile"
_INTERRUPTED = "interrupted before all was measured"


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Measure everything there is, quickly (without torch.compile); `wse bench train` measures with care."""
    if context.invoked_subcommand is not None:
        return
    from wse.engine.bench import Options, SliceOptions, contender_names, specs_for

    workloads = (*specs_for("nws-fixed"), *specs_for("small-cnn", batch_size=64))
    names = tuple(name for name in contender_names() if name != _SLOW_TO_START)
    options = Options(workloads=workloads, names=names, seconds=_QUICK_SECONDS, rounds=_QUICK_ROUNDS)
    _run(options)
    _run_slices(SliceOptions(megabytes=_QUICK_MEGABYTES, seconds=_QUICK_SECONDS, rounds=_QUICK_ROUNDS))


@app.command()
def train(
    preset: Annotated[str, typer.Option(help="nws-fixed, nws-main, small-cnn or all.")] = "nws-fixed",
    batch: Annotated[
        int | None, typer.Option(help="Images a step: 64, and for small-cnn also 512, if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda: an NVIDIA GPU.")] = "cpu",
    members: Annotated[
        str, typer.Option(help="Of ours on a GPU, side by side; several numbers with commas between.")
    ] = "1024",
    precision: Annotated[str, typer.Option(help="Of ours on a GPU: bf16, fp32 or bf16,fp32.")] = "bf16",
    threads: Annotated[
        int | None, typer.Option(help="For each contender on the processor in all; as many as cores.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each contender's turn in a round.")] = 1.0,
    rounds: Annotated[int, typer.Option(help="Turns of each contender.")] = 5,
    contenders: Annotated[
        str | None, typer.Option(help="Names with commas between, such as reference,vmap; all if not given.")
    ] = None,
    datasets: Annotated[str, typer.Option(help="Image sets with commas between.")] = "digits",
    data_dir: Annotated[Path | None, typer.Option(help="A folder with image sets, searched first.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the preset; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Append the results to this file, a JSON line each.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the results into this file (png, svg or pdf).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Training: samples a second of our backends and of PyTorch, after checking that all compute the same."""
    from wse.engine.bench import Gpu, Options, specs_for
    from wse.engine.errors import UsageError
    from wse.engine.space import parse_override

    if device not in ("cpu", "cuda"):
        raise UsageError(f"`device` (={device!r}) must be cpu or cuda")
    counts = _numbers("members", members)
    gpu = Gpu(members=counts, precisions=_names(precision)) if device == "cuda" else None
    options = Options(
        workloads=specs_for(
            preset,
            batch_size=batch,
            datasets=_names(datasets),
            data_dir=data_dir,
            overrides=[parse_override(text) for text in overrides or []],
            **({} if gpu is None else {"members": max(counts)}),
        ),
        names=None if contenders is None else _names(contenders),
        threads=threads,
        gpu=gpu,
        seconds=seconds,
        rounds=rounds,
    )
    _run(options, out=out, plot=plot, as_json=as_json, quiet=quiet)


@app.command()
def slices(
    length: Annotated[int, typer.Option(help="Values of a slice.")] = 5000,
    batch: Annotated[int, typer.Option(help="Slices of a batch.")] = 256,
    megabytes: Annotated[int, typer.Option(help="Of the zoo that is made: far more than the caches hold.")] = 512,
    threads: Annotated[int | None, typer.Option(help="For everyone; as many as cores.")] = None,
    seconds: Annotated[float, typer.Option(help="Of each contender's turn in a round.")] = 1.0,
    rounds: Annotated[int, typer.Option(help="Turns of each contender.")] = 5,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Where the zoo is made, on the disk to be measured; a temporary folder."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Append the results to this file, a JSON line each.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")] = False,
) -> None:
    """Slices for meta-classifiers: gathered and normalised, a second, after checking that all are the same."""
    from wse.engine.bench import SliceOptions
    from wse.engine.errors import UsageError

    if folder is not None and not folder.is_dir():
        raise UsageError(f"--dir {folder}: there is no such folder")
    options = SliceOptions(
        length=length,
        batch=batch,
        megabytes=megabytes,
        threads=threads,
        seconds=seconds,
        rounds=rounds,
        folder=folder,
    )
    _run_slices(options, out=out, as_json=as_json, quiet=quiet)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _numbers(name: str, text: str) -> tuple[int, ...]:
    from wse.engine.errors import UsageError

    try:
        return tuple(map(int, _names(text)))
    except ValueError:
        raise UsageError(f"`{name}` (={text!r}) must be numbers with commas between") from None


def _run_slices(
    options: SliceOptions, *, out: Path | None = None, as_json: bool = False, quiet: bool = False
) -> None:
    from wse.engine.bench import run_slices

    _check_folder(out)
    reports: list[SliceReport] = []
    _hand_over(run_slices(options, _told(quiet)), reports, _print_slices, out=out, as_json=as_json)


def _run(
    options: Options,
    *,
    out: Path | None = None,
    plot: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    from wse.engine.bench import check_plot, draw, run

    if plot is not None:
        check_plot(plot)  # before minutes of work
    _check_folder(out, plot)
    reports: list[Report] = []
    try:
        _hand_over(run(options, _told(quiet)), reports, _print_result, out=out, as_json=as_json)
    finally:
        if plot is not None and reports:
            draw(reports, plot)


def _check_folder(*paths: Path | None) -> None:
    from wse.engine.errors import UsageError

    for path in filter(None, paths):
        if not path.absolute().parent.is_dir():
            raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a folder, name a file")


def _hand_over(
    found: Iterable[AnyReport],
    reports: list[AnyReport],
    show: Callable[[Any], None],
    *,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show and store what is found as it comes, and collect it: an error or Ctrl-C loses nothing of it."""
    import json

    from wse.engine.errors import WseError

    try:
        for report in found:
            records = report.records()
            reports.append(report)
            try:
                if out is not None:
                    with out.open("a", encoding="utf-8") as file:
                        file.writelines(json.dumps(record) + "\n" for record in records)
            finally:  # what cannot be kept is seen at least; what is not read to its end, as by head, is kept
                if not as_json:
                    show(report.result)
    except KeyboardInterrupt:
        if reports:
            print("wse: interrupted: what whole rounds gave is shown", file=sys.stderr)
        raise
    finally:
        if reports and as_json:
            typer.echo(json.dumps([record for report in reports for record in report.records()], indent=2))
        elif reports:
            _print_provenance(reports[-1].provenance)
    wrong = [text for report in reports for text in report.wrong]
    if wrong:
        raise WseError("not timed, because it disagrees with the reference: " + "; ".join(wrong))


def _told(quiet: bool) -> Callable[[str], None]:
    return (lambda line: None) if quiet else _tell


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _print_provenance(about: Mapping[str, Any]) -> None:
    versions = ", ".join(f"{name} {about[name]}" for name in ("wse", "torch", "numpy", "python"))
    load = f"load {about['load_average']}"
    typer.echo(about["cpu"][:80])
    typer.echo(f"{about['cores']} cores, {about['threads']} threads in use, {load}; {about['date']}")
    if "gpu" in about:
        typer.echo(f"{about['gpu']}, CUDA {about['cuda']}, triton {about['triton']}")
    typer.echo(versions)


def _print_result(result: Result) -> None:
    from wse.engine.bench import Card

    rows, on_gpu = result.rows(), isinstance(result.machine, Card)
    typer.echo(f"{result.workload}: {count_text(result.flops)}FLOP a sample, {', '.join(result.datasets)}")
    if result.interrupted:
        typer.echo(_INTERRUPTED)
    width = 27 if on_gpu else 34
    memory = f"{'memory':>8}" if on_gpu else ""
    typer.echo(f"{'':<{width}}{'samples/s':>11}{'slowest to fastest':>20}{'peak':>7}{memory}{'ratio':>7}")
    for entry in result.entries:
        if entry.contender not in rows:
            typer.echo(f"{entry.label:<{width}}  {entry.status}: {entry.note}"[:80])
            continue
        row = rows[entry.contender]
        spread = f"{count_text(row.low)} to {count_text(row.high)}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        if on_gpu:
            memory = f"{'' if row.of_memory is None else percent_text(row.of_memory):>8}"
        typer.echo(
            f"{entry.label:<{width}}{count_text(row.samples_per_second):>11}{spread:>20}"
            f"{percent_text(row.of_peak):>7}{memory}{ratio:>7}"
        )
    _print_machine(result)
    for entry in result.entries:
        for name, share in list(entry.kernels.items())[:_KERNELS_SHOWN]:
            typer.echo(f"{entry.contender:<16}{percent_text(share):>7} of its time: {name}"[:80])
    typer.echo()


def _print_machine(result: Result) -> None:
    text = {name: count_text(value) for name, value in result.machine.medians().items()}
    if "fma_one" in text:
        typer.echo(f"peak on one thread: {text['fma_one']}FLOP/s, {text['triad_one']}B/s of memory;")
        typer.echo(f"on all at once:     {text['fma_all']}FLOP/s, {text['triad_all']}B/s")
    else:
        typer.echo(
            f"large matrix product: {text['matrix_bf16']}FLOP/s in bf16, {text['matrix_tf32']}FLOP/s in tf32;"
        )
        typer.echo(f"copying large arrays: {text['copy']}B/s read and written")


def _print_slices(result: SliceResult) -> None:
    rows = result.rows()
    typer.echo(f"slices of {result.length:,} values, {result.batch} a batch, {result.workload}")
    if result.interrupted:
        typer.echo(_INTERRUPTED)
    typer.echo(f"{'':<29}{'slices/s':>9}{'slowest to fastest':>20}{'copy':>8}{'ratio':>6}{'cold':>8}")
    for entry in result.entries:
        if entry.contender not in rows:
            typer.echo(f"{entry.label:<29}  {entry.status}: off by {entry.error:.1e}")
            continue
        row = rows[entry.contender]
        spread = f"{count_text(row.low)} to {count_text(row.high)}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        cold = "" if entry.cold is None else count_text(entry.cold)
        typer.echo(
            f"{entry.label:<29}{count_text(row.slices_per_second):>9}{spread:>20}"
            f"{percent_text(row.of_copy):>8}{ratio:>6}{cold:>8}"
        )
    copied = count_text(statistics.median(result.copy_bytes_per_second))
    typer.echo(f"copying large arrays: {copied}B/s read and written\n")
