"""``maury compare RECIPE... -o comparison/``: several systems on one data set with one split, in one table and on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from maury.recipes.compare import Comparison
    from maury.recipes.compare_table import Scores


def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(help="TOML files, or built-in names (see `maury recipes`), with a table `test`.", show_default=False),
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
    from maury.cli.compare_page import write_page
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
    write_page(comparison, scores, output)
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
    from maury.cli.compare_page import in_one_sentence, text_tables

    console.print(in_one_sentence(comparison, scores), markup=False, soft_wrap=True)
    for table in text_tables(comparison, scores):
        console.print(f"\n{table.caption}:", markup=False)
        print_table(console, list(table.heads), [list(row) for row in table.rows])
    console.print("\n± are bootstraps over stars; in 1 sigma should be 68 %, pulls 1")
