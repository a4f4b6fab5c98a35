"""From a TOML file to a checked recipe: what all recipes share, and pydantic's complaints as sentences of this house."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from maury.errors import MauryError, RecipeError

Recipe = TypeVar("Recipe", bound=BaseModel)


def read_toml(name_or_path: str | Path, builtin: Mapping[str, Path]) -> tuple[dict[str, Any], str]:
    """The content of a built-in recipe, or of a file, and the name it has in errors.

    Raises
    ------
    RecipeError
        No such recipe, or no TOML.
    """
    path = builtin.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise RecipeError(f"expected a TOML file or one of {', '.join(builtin)}, got {name_or_path}; check the name")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), str(path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"expected a recipe in TOML in {path}, got {' '.join(str(error).split())}; correct the file") from None


def parse(
    content: Mapping[str, Any],
    origin: str,
    model: type[Recipe],
    check: Callable[[Recipe], None],
    tables: Mapping[str, type[BaseModel]],
) -> Recipe:
    """A checked recipe from its parsed TOML.

    Parameters
    ----------
    origin : names the recipe in errors.
    check : raises MauryError where parts contradict each other or a value is impossible.
    tables : see :func:`first_sentence`.

    Raises
    ------
    RecipeError
        An unknown key, a missing or impossible value; in one sentence.
    """
    try:
        recipe = model.model_validate(content)
        check(recipe)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {first_sentence(error, tables)}") from None
    except MauryError as error:
        raise RecipeError(f"{origin}: {error}") from None
    return recipe


def first_sentence(error: ValidationError, tables: Mapping[str, type[BaseModel]]) -> str:
    """The first of pydantic's complaints as a sentence of this house, and how many more there are.

    A key that is not known comes before one that is missing: it may be the missing one, misspelt.

    Parameters
    ----------
    tables : section of the recipe, dotted -> its model, which knows its keys.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    # pydantic puts the member of a union that it tried into the place: "axes.teff.tuple[float, ...].0", or a model's name
    members = {table.__name__ for table in tables.values()}
    loc = [part for part in first["loc"] if "[" not in str(part) and part not in members]
    place = ".".join(str(part) for part in loc) or "the recipe"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        section = ".".join(str(part) for part in loc[:-1] if not isinstance(part, int))
        known = ", ".join(tables[section].model_fields)
        return f"expected a known key in [{section or 'recipe'}], got {first['loc'][-1]!r}; known are {known}{more}"
    if first["type"] == "missing":
        hint = "; units are never guessed" if first["loc"][-1] == "unit" else ""
        return f"expected a value for {place}, got none; add it{hint}{more}"
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"expected a table of keys for {place}, got {first.get('input')!r}; write it as [{place}]{more}"
    if first["type"].startswith("union_tag"):
        kinds = first["ctx"].get("expected_tags") or ", ".join(
            repr(name.split(".")[-1]) for name in tables if name.startswith(f"{place}.")
        )
        found = repr(first["ctx"]["tag"]) if "tag" in first["ctx"] else "none"
        return f"expected kind in [{place}] as one of {kinds}, got {found}; correct it{more}"
    return f"expected a valid value for {place}, got {first.get('input')!r}: {first['msg'].lower()}{more}"
