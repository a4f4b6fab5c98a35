"""``maury sweep RECIPE -o sweep/``: many networks over architectures, windows and labels, and the accepted ones as one model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from maury.labels import Label
    from maury.recipes import Recipe
    from maury.recipes.sweep import SweepResult, SweepState
    from maury.recipes.sweep_ensemble import SweepEnsemble
    from maury.recipes.sweep_schema import SweepRecipe

_BEST = 5  # networks of a label in the table
_DIGITS = {"K": 1}
"""Decimals of an error by its unit; 3 for other units."""


def sweep(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a built-in name (see `maury recipes`).", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="Folder below which the recipe's files lie.")] = Path(),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the sweep.")] = Path("sweep"),
    processes: Annotated[int, typer.Option("--processes", "-j", help="0: as many as cores; with cuda one.", min=0)] = 0,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Address of a Dask scheduler whose workers train.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option("--device", help="Where networks are trained: cpu or cuda.")] = "cpu",
    number: Annotated[
        int | None, typer.Option("--number", help="Of networks, for random and optuna.", min=1, show_default=False)
    ] = None,
    window: Annotated[
        list[str] | None, typer.Option("--window", help="Only these windows, as in 8800-8835.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The recipe's small version: see that all works, in minutes.")] = False,
    table: Annotated[bool, typer.Option("--table", help="Train nothing: tables and ensemble of what is there.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the sweep in the folder and start again.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Train again what failed before.")] = False,
) -> None:
    """Train many networks as a recipe's [sweep] says, screen them on spectra held out, and let the accepted ones vote.

    What is finished stays in the folder: after Ctrl-C or a kill, the same command goes on where it was. There are then runs.csv,
    runs.ecsv, runs.png and the model ensemble.safetensors.
    """
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.errors import RecipeError, UsageError
    from maury.recipes import load_recipe
    from maury.recipes.schema import quick_version
    from maury.recipes.sweep import SweepOptions, run_sweep, sweep_of
    from maury.threads import cores
    from maury.train.sweep import Workers

    if table and (fresh or retry):
        raise UsageError("expected --table alone, got --fresh or --retry beside it; leave one of them out")
    loaded = load_recipe(recipe)
    ready = _with_number(quick_version(loaded) if quick else loaded, number)
    labels = ready.labels
    workers = Workers(processes or (1 if device != "cpu" else cores()), scheduler)
    with stage_bars() as report:

        def watch(state: SweepState) -> None:
            report("sweep", state.done, state.total, _note(state, labels))

        choice = SweepOptions(device, tuple(window or ()), fresh, retry)
        try:
            result = run_sweep(ready, None if table else data, output, workers, choice, progress=report, watch=watch)
        except KeyboardInterrupt:
            again = "the same command without --fresh" if fresh else "the same command"
            typer.echo(f"maury: what is finished stays in {output}; {again} goes on there", err=True)
            raise
    settings = sweep_of(ready)
    _print(output_console(), result, labels, settings, output)
    _figure(result, labels, settings, output)
    if result.ensemble is None:
        raise RecipeError(
            f"expected networks with errors below the thresholds, got none of {len(result.rows)}; train more, or loosen "
            "sweep.thresholds and repeat the command with --table"
        )


def _with_number(recipe: Recipe, number: int | None) -> Recipe:
    from maury.errors import UsageError
    from maury.recipes.sweep import sweep_of

    settings = sweep_of(recipe)
    if number is None:
        return recipe
    if settings.sampler == "all":
        raise UsageError("expected no --number for sweep.sampler = 'all', which trains every combination; use random or optuna")
    return recipe.model_copy(update={"sweep": settings.model_copy(update={"number": number})})


def _note(state: SweepState, labels: Iterable[Label]) -> str:
    """What the progress bar says beside the counts."""
    units = {label.name: label.unit for label in labels}
    best = [f"{name} {_error(value, units[name])}" for name, value in state.best.items()]
    return ", ".join(([f"{state.failed} failed"] if state.failed else []) + (["best " + ", ".join(best)] if best else []))


def _error(value: float, unit: str) -> str:
    return f"{value:.{_DIGITS.get(unit, 3)}f}"


def _figure(result: SweepResult, labels: tuple[Label, ...], settings: SweepRecipe, output: Path) -> None:
    from maury.report.style import save_figure
    from maury.report.sweep_figure import sweep_figure

    swept = [label for label in labels if any(label.name in row.all_scores for row in result.rows)]
    if swept:
        thresholds = {label.name: settings.threshold(label.name) for label in swept}
        save_figure(sweep_figure(result.table, swept, thresholds), output / "runs.png")


# -- tables -------------------------------------------------------------------------------------------------------------------


def _print(console: Console, result: SweepResult, labels: tuple[Label, ...], settings: SweepRecipe, output: Path) -> None:
    from maury.recipes.sweep import MODEL_FILE
    from maury.recipes.sweep_screening import failures

    n_failed = sum(not row.is_done for row in result.rows)
    seconds = sum(row.seconds for row in result.rows if row.is_done)
    rate = f"; {60 * (len(result.rows) - n_failed) / seconds:.1f} networks a minute in each process" if seconds > 0 else ""
    console.print(f"{len(result.rows)} networks, {n_failed} failed{rate}", markup=False)
    for reason, number in failures(result.rows).items():
        console.print(f"  {number} x {reason}", markup=False, soft_wrap=True)
    _print_best(console, result, labels, settings)
    _print_acceptance(console, result, labels, settings)
    _print_findings(console, result, labels)
    if result.ensemble is not None:
        _print_ensemble(console, result.ensemble, settings)
        known = len(result.ensemble.members)
        console.print(f"\nmodel {result.model_id} of {known} labels written to {output / MODEL_FILE}", markup=False)


def _rows(console: Console, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], n_text: int) -> None:
    """A table whose first columns are text, the others numbers."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        table.add_column(escape(head), justify="left" if place < n_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _print_best(console: Console, result: SweepResult, labels: tuple[Label, ...], settings: SweepRecipe) -> None:
    from maury.recipes.sweep_screening import error_of

    lines = []
    for label in labels:
        known = [(row.all_scores[label.name], row) for row in result.rows if label.name in row.all_scores]
        known.sort(key=lambda pair: error_of(pair[0], settings.reading))
        for score, row in known[:_BEST]:
            numbers = (score.mae, score.worst_tenth, score.bias, score.scatter)
            trial = row.trial
            own = (trial.place, "+".join(trial.labels), trial.architecture, str(trial.seed))
            cost = (f"{row.seconds:.0f}", f"{row.best_epoch}/{row.epochs}", f"{row.n_parameters:,}")
            lines.append((label.name, label.unit, *own, *(_error(x, label.unit) for x in numbers), *cost))
    if lines:
        console.print("\nbest networks of each label, errors on the screening spectra:")
        heads = ("label", "unit", "window", "labels", "architecture", "seed", "mean", "worst 10 %", "bias", "scatter")
        _rows(console, (*heads, "s", "epoch", "parameters"), lines, 5)


def _print_acceptance(console: Console, result: SweepResult, labels: tuple[Label, ...], settings: SweepRecipe) -> None:
    from maury.recipes.sweep_screening import acceptance

    lines = [
        (
            line.label,
            line.unit,
            line.reading.replace("_", " "),
            f"{line.threshold:g}",
            *map(str, (line.trained, line.models, line.architectures, line.windows)),
        )
        for line in acceptance(result.rows, labels, settings)
    ]
    used = settings.reading.replace("_", " ")
    console.print(f"\naccepted networks (as Passegger+2020, Table 3; the ensemble takes the reading {used!r}):", markup=False)
    _rows(console, ("label", "unit", "error", "below", "trained", "models", "architectures", "windows"), lines, 3)


def _print_findings(console: Console, result: SweepResult, labels: tuple[Label, ...]) -> None:
    from maury.recipes.sweep_screening import findings

    found = findings(result.rows, labels)
    question = ""
    for line in found:
        if line.question != question:
            question = line.question
            console.print(f"\nmean errors by {question}: median (lowest to highest)", markup=False)
            lines = [
                (f.group, f.label, f.unit, str(f.n), *(_error(x, f.unit) for x in (f.median, f.lowest, f.highest)))
                for f in found
                if f.question == question
            ]
            _rows(console, ("", "label", "unit", "networks", "median", "lowest", "highest"), lines, 3)


def _print_ensemble(console: Console, ensemble: SweepEnsemble, settings: SweepRecipe) -> None:
    from maury.assess.metrics import format_table

    console.print("\nensemble on the report spectra, which neither trained nor chose a network:", markup=False)
    console.print(format_table(ensemble.scores), markup=False, soft_wrap=True)
    lines = []
    for score, interval in zip(ensemble.scores, ensemble.intervals, strict=True):
        threshold = settings.threshold(score.label)
        verdict = "reached" if score.mae < threshold else "not reached"
        inside = (f"{interval.of_votes:.2f}", f"{interval.calibrated:.2f}")
        members = str(ensemble.members[score.label])
        lines.append((score.label, score.unit, verdict, members, _error(score.mae, score.unit), f"{threshold:g}", *inside))
    console.print("\nits mean errors against the thresholds, and how many true labels its errors hold (0.68 if they are right):")
    heads = ("label", "unit", "threshold", "networks", "mean error", "below", "votes alone", "calibrated")
    _rows(console, heads, lines, 3)
