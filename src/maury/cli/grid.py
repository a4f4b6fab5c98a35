"""``maury grid``: grids of model spectra, from the archive to the training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maury.cli.grid_build import build
from maury.cli.grid_download import download

grid_app = typer.Typer(name="grid", help="Grids of model spectra: fetch, look, build a training set.", no_args_is_help=True)

_GRID_HELP = "A grid: .zarr or .npz as `maury grid download` writes, a folder of PHOENIX files, or a description in TOML."
_Grid = Annotated[Path, typer.Argument(help=_GRID_HELP, show_default=False)]


@grid_app.command("info")
def info(
    grid: _Grid,
    holes: Annotated[int, typer.Option("--holes", help="How many holes to list.", min=0)] = 20,
) -> None:
    """Say what a grid holds: labels and holes, wavelengths, resolution, size."""
    from maury.cli.console import output_console
    from maury.grids.describe import describe_grid
    from maury.grids.open import open_grid

    output_console().print(describe_grid(open_grid(grid), most_holes=holes), markup=False, soft_wrap=True)


@grid_app.command("plot")
def plot(
    grid: _Grid,
    output: Annotated[Path, typer.Option("--output", "-o", help="Figure to write: .png, .pdf or .svg.")] = Path("grid.png"),
) -> None:
    """Draw which labels a grid has, and where its holes are."""
    from maury.grids.open import open_grid
    from maury.report.grid_figure import grid_figure
    from maury.report.style import save_figure

    save_figure(grid_figure(open_grid(grid)), output)
    typer.echo(f"written to {output}")


for _command in (download, build):
    grid_app.command(_command.__name__)(_command)
