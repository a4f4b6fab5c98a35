"""``maury recipes``: the recipes that come with the package, or the text of one."""

from __future__ import annotations

from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this built-in recipe, to copy and change.")] = None,
) -> None:
    """List the built-in recipes, or print one of them as TOML."""
    from maury.cli.console import output_console
    from maury.errors import RecipeError
    from maury.recipes.schema import builtin_recipes, load_recipe

    known = builtin_recipes()
    if name is not None:
        if name not in known:
            raise RecipeError(f"expected one of {', '.join(known)}, got {name}; see `maury recipes`")
        typer.echo(known[name].read_text(encoding="utf-8"), nl=False)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("recipe", "labels", "what it is", "source"):
        table.add_column(column)
    for recipe in (load_recipe(entry) for entry in known):
        labels = ", ".join(label.name for label in recipe.label)
        table.add_row(recipe.name, labels, recipe.description, recipe.source)
    output_console().print(table)
