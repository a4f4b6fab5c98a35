"""``maury grid build RECIPE -o training.zarr``: from a grid of model spectra to a training set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maury.recipes.grid_build import BuildSummary
    from maury.recipes.grid_schema import BuildRecipe


def build(
    recipe: Annotated[
        str | None, typer.Argument(help="A TOML file, or a built-in name (shown without an argument).", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Training set to write: .zarr or .npz.")] = Path("training.zarr"),
    data: Annotated[Path, typer.Option("--data", help="Folder below which the recipe's files lie.")] = Path(),
    grid: Annotated[Path | None, typer.Option("--grid", help="Grid to use instead of the recipe's.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Instead of the recipe's.", min=0, show_default=False)] = None,
    only: Annotated[
        int | None,
        typer.Option(
            "--only", help="So many of the label sets, spread evenly over all: to try a recipe.", min=1, show_default=False
        ),
    ] = None,
    processes: Annotated[int, typer.Option("--processes", "-j", help="0: as many as there are cores.", min=0)] = 0,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe, to copy and change; build nothing.")] = False,
) -> None:
    """Build a training set from a grid of model spectra, as a recipe says.

    Finished chunks are kept beside the output: after Ctrl-C or a kill, the same command goes on where it was, and ends with the
    same bytes.
    """
    from maury.cli.console import output_console
    from maury.cli.progress import stage_bars
    from maury.recipes.grid_schema import builtin_grid_recipes, load_build_recipe
    from maury.threads import cores

    if recipe is None:
        _list_recipes()
        return
    if show:
        path = builtin_grid_recipes().get(recipe, Path(recipe))
        load_build_recipe(recipe)  # a file that is no recipe gets its sentence
        typer.echo(path.read_text(encoding="utf-8"), nl=False)
        return
    from maury.grids.chunks import chunk_path
    from maury.recipes.grid_build import build_training_set

    ready = _with_options(load_build_recipe(recipe), grid, seed, only)
    try:
        with stage_bars() as report:
            summary = build_training_set(ready, data, output, processes=processes or cores(), progress=report)
    except KeyboardInterrupt:
        kept = chunk_path(output)
        if kept.is_dir():
            typer.echo(f"maury: what is finished stays in {kept}; the same command goes on there", err=True)
        raise
    output_console().print(_text(ready, summary, output), markup=False, soft_wrap=True)


def _list_recipes() -> None:
    from rich.table import Table

    from maury.cli.console import output_console
    from maury.recipes.grid_schema import builtin_grid_recipes, load_build_recipe

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("recipe", "what it is", "source"):
        table.add_column(column)
    for name in builtin_grid_recipes():
        recipe = load_build_recipe(name)
        table.add_row(recipe.name, recipe.description, recipe.source)
    output_console().print(table)


def _with_options(recipe: BuildRecipe, grid: Path | None, seed: int | None, only: int | None) -> BuildRecipe:
    """The recipe with the command line's changes, checked like a recipe."""
    from maury.recipes.grid_schema import parse_build_recipe

    content = recipe.model_dump(mode="json", exclude_none=True)
    if grid is not None:
        content["grid"].pop("library", None)
        content["grid"]["file"] = str(grid.resolve())
    if seed is not None:
        content["seed"] = seed
    if only is not None:
        content["only"] = only
    return parse_build_recipe(content, "command line")


def _text(recipe: BuildRecipe, summary: BuildSummary, output: Path) -> str:
    """What was built, and how a recipe of `maury train` names it."""
    lines = [f"{summary.n_spectra} spectra x {summary.n_pixels} pixels, labels {', '.join(summary.names)}"]
    if summary.n_flagged:
        lines.append(f"{summary.n_flagged} of them flagged: outside the grid, or a step gave up some pixels (ivar = 0)")
    lines += [f"{number} samples left out (left_out_labels names them): {reason}" for reason, number in summary.left_out.items()]
    if summary.fwhm is not None:
        resolution = f"fwhm = {summary.fwhm:.10g}"
    elif summary.resolving_power is not None:
        resolution = f"resolving_power = {summary.resolving_power:.10g}"
    else:  # none is made up: a recipe without one is refused
        resolution = "# add resolving_power or fwhm (Å): not one number that this recipe and its grid know"
    errors = [] if summary.has_ivar else ["assumed_snr = 100"]
    lines += [
        f"written to {output}",
        "",
        "in a recipe of `maury train`:",
        "",
        "[data]",
        *errors,
        *(['star_column = "base"'] if recipe.sample.kind == "nodes" else []),  # draws of one spectrum stay together in folds
        "validated = true",  # without observed stars, cross-validation has these alone
        "",
        "[data.library]",
        f'file = "{output.name}"',
        'wavelength = "wavelength"',
        'wavelength_unit = "Angstrom"',
        f'medium = "{summary.medium}"',
        'flux = "flux"',
        *(['ivar = "ivar"'] if summary.has_ivar else []),
        'labels = "labels"',
        'label_names = "label_names"',
        resolution,
    ]
    return "\n".join(lines)
