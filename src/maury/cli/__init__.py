"""The command line: one thin file per command. Commands import what they need when they run, so help is instant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from maury import __version__
from maury.cli.assess import assess
from maury.cli.combine import combine
from maury.cli.compare import compare
from maury.cli.demo import demo
from maury.cli.generate import CONTEXT, generate
from maury.cli.grid import grid_app
from maury.cli.infer import infer
from maury.cli.info import info
from maury.cli.models import models
from maury.cli.read import read
from maury.cli.recipes import recipes
from maury.cli.rv import rv
from maury.cli.sweep import sweep
from maury.cli.train import train

USER_ERROR = 2

WELCOME = """[bold]maury[/] turns stellar spectra into stellar labels, with errors and flags.

First steps:
  [bold]maury infer gaia-rvs *.csv -o rvs.fits[/]      Gaia RVS spectra? Try this first
  [bold]maury demo -o demo/[/]                         none? The same on made-up ones
  [bold]maury models[/]                                what ships, and its cards
  [bold]maury generate gaia-rvs --teff 5777 --logg 4.44 --mh 0 -o sun.fits[/]
  [bold]maury read my_spectra/*.fits[/]                what is in my files?
  [bold]maury recipes[/]                               which models can be trained?
  [bold]maury train miles --data DIR -o m.safetensors[/]
  [bold]maury sweep rvs-cnn --data DIR -o sweep/[/]     many networks, and their votes
  [bold]maury compare lamost-red-cannon lamost-red-cnn --data DIR[/]   systems on one data set
  [bold]maury infer m.safetensors *.fits -o stars.fits[/]
  [bold]maury rv *.fits --template m.safetensors[/]    velocities, for spectra without
  [bold]maury grid --help[/]                           model spectra and training sets
  [bold]maury info stars.fits[/]                       what did I get, and from what?

Every command has [bold]--help[/]."""

app = typer.Typer(
    name="maury",
    help="Stellar spectra into stellar labels, with errors that are right and flags that are honest.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (read, models, recipes, train, sweep, compare, infer, info, demo, assess, combine, rv):
    app.command(command.__name__)(command)
app.command("generate", context_settings=CONTEXT)(generate)
app.add_typer(grid_app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"maury {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Stellar spectra into stellar labels, with errors that are right and flags that are honest."""
    if context.invoked_subcommand is None:
        from rich.console import Console

        Console(highlight=False).print(WELCOME)


def main() -> None:
    """Entry point: a user's error is one sentence and exit code 2, Ctrl-C exits with 130."""
    from maury.errors import MauryError

    try:
        app()
    except MauryError as error:
        print(f"maury: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("maury: stopped", file=sys.stderr)
        sys.exit(130)
