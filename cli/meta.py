"""``wse meta``: what can be read from the weights of a zoo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import INTERRUPTED, command_text, percent_text, seconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wse.engine.meta import Interval, Question, Score, Study


def meta(
    zoo: Annotated[Path, typer.Argument(help="The folder of the zoo.")] = Path("zoo"),
    what: Annotated[
        str,
        typer.Option(
            "--slice",
            help="What is read: all, a part (conv, fc, conv3, conv3.weight), or PART:LENGTH for random slices.",
        ),
    ] = "all",
    targets: Annotated[
        str | None, typer.Option(help="What is asked (optimizer,epoch); every property and outcome if not given.")
    ] = None,
    models: Annotated[str | None, typer.Option(help="Models to fit (see --list), or `all`.")] = None,
    snapshots: Annotated[str, typer.Option(help="last, all, a range (10:, -5:) or a list (0,5,-1).")] = "last",
    test_snapshots: Annotated[str | None, typer.Option(help="Other snapshots to test on.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Only such networks (status=ok); may be repeated."),
    ] = None,
    holdout: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN[=VALUE]",
            help="Test on networks with that value; without a value, on those with a fifth of the values.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Random splits into training and test networks.")] = 3,
    deep_seeds: Annotated[
        int, typer.Option(help="Of these, how many for models trained by gradient descent.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="TARGET=KIND", help="classification or regression; may be repeated."),
    ] = None,
    log: Annotated[str | None, typer.Option(help="Targets whose logarithm is predicted.")] = None,
    normalize: Annotated[str, typer.Option(help="Of slices: none, slice, layer or position.")] = "none",
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Read moving averages of batch normalisation as well.")
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also read every layer by itself.")] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Also map where a property shows, and when.")] = False,
    permuted: Annotated[
        bool, typer.Option("--permuted", help="Also test on networks with permuted neurons.")
    ] = False,
    test_length: Annotated[int | None, typer.Option(help="Also test on slices of another length.")] = None,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Shuffle the answers: what is read then is chance, or a leak.")
    ] = False,
    budget: Annotated[str, typer.Option(help="What all may take (90s, 10m, 2h), or none.")] = "4m",
    device: Annotated[str, typer.Option(help="For deep models: auto, cpu or cuda.")] = "auto",
    processes: Annotated[int | None, typer.Option(help="Models fitted side by side; as many as cores.")] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Read what there is so far of a zoo whose run has not ended.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the results; one inside the zoo if not given.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the study in the folder of the results.")
    ] = False,
    list_models: Annotated[bool, typer.Option("--list", help="Print the models and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the study as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every group of networks, and tracebacks of errors.")
    ] = False,
) -> None:
    """Fit meta-classifiers to weights and judge them on networks they have not seen, beside baselines."""
    from wse.engine.meta import (
        MODELS,
        SliceSpec,
        StudyInterrupted,
        StudyOptions,
        kinds_of,
        make_study,
        pick_device,
        write_study,
    )
    from wse.engine.zoo import Condition

    if list_models:
        for spec in MODELS.values():
            typer.echo(f"{spec.name:<20} {spec.title}")
        return
    options = StudyOptions(
        zoo=zoo,
        what=SliceSpec.parse(what),
        targets=_names(targets),
        models=_names(models),
        snapshots=snapshots,
        test_snapshots=test_snapshots,
        where=tuple(Condition.parse(text) for text in where or []),
        holdout=Condition.parse(holdout) if holdout else None,
        seeds=seeds,
        deep_seeds=deep_seeds,
        seed=seed,
        kinds=kinds_of(dict(_pair(text) for text in kinds or [])),
        logs=frozenset(_names(log)),
        statistics=statistics,
        normalize=normalize,
        layers=layers,
        maps=maps,
        permuted=permuted,
        test_length=test_length,
        shuffled=shuffled,
        budget_seconds=None if budget == "none" else seconds_of(budget),
        device=pick_device(device),
        processes=processes,
        unfinished=unfinished,
    )
    try:
        with _Progress(quiet=quiet or as_json) as progress:
            study, folder = make_study(options, out, progress.show, overwrite=overwrite)
    except StudyInterrupted as interrupt:
        shown = bool(interrupt.study.scores) and not as_json
        if shown:
            _print_study(interrupt.study, every=verbose)
        print(
            f"wse: interrupted: {interrupt.done:,} of {interrupt.fits:,} fits are done; "
            f"{'what they tell is shown, and ' if shown else ''}no study is kept",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED) from None
    try:
        write_study(folder, study)
    finally:  # what cannot be kept is seen at least; what is not read to its end, as by head, is kept
        if as_json:
            import msgspec

            typer.echo(msgspec.json.format(msgspec.json.encode(study)).decode())
        else:
            _print_study(study, every=verbose)
    if as_json:
        return
    flags = [*(["--unfinished"] if unfinished else []), *(["--study", folder] if out else [])]
    command = command_text("wse", "report", options.zoo, *flags)
    typer.echo(f"\nall figures: {folder}; a page to read: `{command}`")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


class _Progress:
    """A live line on a terminal, else nothing: a study ends within minutes."""

    def __init__(self, *, quiet: bool) -> None:
        self._live = not quiet and sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn()
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("opening", total=1.0)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._bar.stop()

    def show(self, share: float, what: str, words: str) -> None:
        if self._live:
            self._bar.update(self._task, completed=share, description=f"{what} {words}".strip())


def _print_study(study: Study, *, every: bool) -> None:
    shuffled = ["answers shuffled"] if study.shuffled else []
    what = ", ".join([study.slice, f"snapshots {study.snapshots}", *study.where, *shuffled])
    tested = max((score.members for score in study.scores if score.view == "all"), default=0)
    typer.echo(
        f"{study.members:,} networks of {study.zoo}, {tested:,} of them tested, reading {what}; "
        "95 % intervals over test networks"
    )
    if study.members < _FEW:
        typer.echo("so few networks say little, whatever the intervals: some hundred are needed")
    for question in study.questions:
        scores = [score for score in study.scores if score.target == question.name]
        _print_question(question, [score for score in scores if score.view == "all"])
        for view in dict.fromkeys(score.view for score in scores if score.view != "all"):
            if every or view in ("layer", "permuted", "length"):
                _print_view(question, view, [score for score in scores if score.view == view])
    notes = sorted({f"{fit.model}: {fit.note}" for fit in study.fits if fit.note})
    if notes:
        typer.echo("")
    for note in notes[:10]:
        typer.echo(note)
    if len(notes) > 10:
        typer.echo(f"and {len(notes) - 10} more notes (--json shows them)")


_FEW = 100
_METRICS = {
    "classification": ("accuracy", "balanced_accuracy", "log_loss"),
    "regression": ("r2", "mae", "kendall_tau"),
}


def _print_question(question: Question, scores: Sequence[Score]) -> None:
    names = _METRICS[question.kind]
    about = ", ".join(_about(question))
    title = f"{question.name} ({about})"
    typer.echo(f"\n{title:<46}" + "".join(f"{name.replace('_', ' '):>18}" for name in names))
    for score in scores:
        first, *others = (score.metrics.get(name) for name in names)
        figures = f"{_with_interval(first):>28}" + "".join(f"{_figure(other):>18}" for other in others)
        typer.echo(f"  {score.model:<34}{figures}")


def _about(question: Question) -> list[str]:
    if question.kind == "regression":
        return ["regression", *(["log"] if question.log else [])]
    count = len(question.classes)
    return [f"{count} classes", f"chance {percent_text(1 / count)}"]


def _print_view(question: Question, view: str, scores: Sequence[Score]) -> None:
    typer.echo(f"  by {view}")
    metric = _METRICS[question.kind][0]
    for score in scores:
        figures = f"{_with_interval(score.metrics.get(metric)):>28}"
        typer.echo(f"    {score.model + ' ' + score.group:<32}{figures}{score.members:>10,} networks")


def _with_interval(figure: Interval | None) -> str:
    return "-" if figure is None else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _figure(figure: Interval | None) -> str:
    return "-" if figure is None else f"{figure.value:.3f}"
