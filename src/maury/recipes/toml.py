"""From a TOML file to a checked recipe: what all recipes share, and pydantic's complaints as sentences of this house."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from maury.errors import RecipeError


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


def first_sentence(error: ValidationError, tables: Mapping[str, type[BaseModel]]) -> str:
    """The first of pydantic's complaints as a sentence of this house, and how many more there are.

    A key that is not known comes before one that is missing: it may be the missing one, misspelt.

    Parameters
    ----------
    tables : section of the recipe, dotted -> its model, which knows its keys.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"]) or "the recipe"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        section = ".".join(str(part) for part in first["loc"][:-1] if not isinstance(part, int))
        known = ", ".join(tables[section].model_fields)
        return f"expected a known key in [{section or 'recipe'}], got {first['loc'][-1]!r}; known are {known}{more}"
    if first["type"] == "missing":
        hint = "; units are never guessed" if first["loc"][-1] == "unit" else ""
        return f"expected a value for {place}, got none; add it{hint}{more}"
    return f"expected a valid value for {place}, got {first.get('input')!r}: {first['msg'].lower()}{more}"
