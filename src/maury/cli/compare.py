"""``maury compare RECIPE... -o comparison/``: several systems on one data set with one split, in one table and on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from maury.recipes.compare import Comparison
    from maury.recipes.compare_table import Scores, SystemFigures


def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(help="TOML files, or built-in names (see `maury recipes`), with a table [test].", show_default=False),
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder below which the recipes' files lie.")] = Path(),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of tables, page and models.")] = Path("comparison"),
    device: Annotated[str, typer.Option("--device", help="Where networks are trained: cpu or cuda.")] = "cpu",
    quick: Annotated[
        bool, typer.Option("--quick", help="The small version of recipes that have one: see that all works.")
    ] = False,
) -> None:
    """Train several recipes without the stars that judge them, and put what they make of these stars into one table.

    Models stay in the folder: after Ctrl-C or a kill, the same command goes on where it was. There are then comparison.csv,
    stars.csv, comparison.png and the page index.html.
    """
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.errors import UsageError
    from maury.files import written
    from maury.recipes import load_recipe
    from maury.recipes.compare import check_comparison, run_comparison
    from maury.recipes.compare_table import comparison_table, scores_of, stars_table, write_table
    from maury.recipes.schema import quick_version

    loaded = [load_recipe(name) for name in recipes]
    ready = [quick_version(recipe) if quick and recipe.quick else recipe for recipe in loaded]
    check_comparison(ready, device)
    if output.exists() and not output.is_dir():
        raise UsageError(f"expected a folder for the comparison, got the file {output}; choose another name")
    with written(output):
        output.mkdir(exist_ok=True)
    try:
        with stage_bars() as report:
            comparison = run_comparison(ready, data, output, report, device=device)
    except KeyboardInterrupt:
        typer.echo(f"maury: what is finished stays in {output}; the same command goes on there", err=True)
        raise
    scores = scores_of(comparison)
    write_table(comparison_table(comparison, scores), output, "comparison")
    write_table(stars_table(comparison, scores), output, "stars")
    console = output_console()
    _print(console, comparison, scores)
    console.print(f"\ntables, figure, page and models are in {output}", markup=False)
    failed = [system for system in comparison.systems if system.reason]
    for system in failed:
        typer.echo(f"maury: {system.name} failed: {system.reason}", err=True)
    if failed:
        raise typer.Exit(1)


def _print(console: Console, comparison: Comparison, scores: Scores) -> None:
    from maury.cli.assess import print_table
    from maury.recipes.compare_table import figures_of
    from maury.report.style import decimals

    test = comparison.test
    counted = test.counted[test.judged]
    console.print(
        f"{len(counted)} test stars in {len(test.folds)} folds, {int(counted.sum())} in the range of the report, "
        f"{int(scores.common.sum())} with labels by all systems; {len(test.left_out)} spectra are no test stars",
        markup=False,
    )
    for place, label in enumerate(comparison.labels):
        rows = []
        for number, (system, some) in enumerate(zip(comparison.systems, scores.systems, strict=True)):
            if not some:
                rows.append([system.name, label.own[number], "failed", *["-"] * 7])
                continue
            row = some[place]
            digits = decimals(row.scatter)
            rows.append(
                [
                    system.name,
                    row.label,
                    f"{row.n}" + (f" of {row.n_own}" if row.n_own != row.n else ""),
                    _with_error(row.bias, row.bias_error, digits, sign=True),
                    _with_error(row.scatter, row.scatter_error, digits),
                    _number(row.rmse, digits),
                    _percent(row.inside),
                    _number(row.pull_scatter, 2),
                    _with_error(row.repeat_scatter, row.repeat_scatter_error, digits),
                    _with_error(row.repeat_pulls, row.repeat_pulls_error, 2),
                ]
            )
        console.print(f"\n{label.name}{f' ({label.unit})' if label.unit else ''}:", markup=False)
        heads = ["system", "label", "n", "bias", "scatter", "RMSE", "in 1 sigma", "pulls", "repeats", "repeat pulls"]
        print_table(console, heads, rows)
    console.print("\n+- are bootstraps over stars; in 1 sigma should be 68 %, pulls 1; cost and gap:")
    rows = [
        [system.name, *(_figures(figures_of(system, counted)) if some else ["failed", *["-"] * 5])]
        for system, some in zip(comparison.systems, scores.systems, strict=True)
    ]
    print_table(console, ["system", "trained on", "training (s)", "spectra/s", "median gap", "gap > 1", "AUC"], rows)


def _figures(found: SystemFigures) -> list[str]:
    models = f"{found.n_models} x " if found.n_models > 1 else ""
    rate = f"{found.infer_rate:.3g}" if found.infer_rate < 1000 else f"{found.infer_rate:.0f}"
    auc = _with_error(found.auc, found.auc_error, 3)
    return [
        f"{models}{found.n_training:.0f}",
        f"{models}{found.train_time:.1f}",
        rate,
        _number(found.gap, 2),
        _percent(found.gap_beyond),
        auc,
    ]


def _number(value: float, digits: int) -> str:
    from math import isfinite

    return f"{value:.{digits}f}" if isfinite(value) else "-"


def _with_error(value: float, error: float, digits: int, *, sign: bool = False) -> str:
    from math import isfinite

    if not isfinite(value):
        return "-"
    return f"{value:{'+' if sign else ''}.{digits}f}" + (f" +- {error:.{digits}f}" if isfinite(error) else "")


def _percent(share: float) -> str:
    from math import isfinite

    return f"{100 * share:.0f} %" if isfinite(share) else "-"
