"""The reference pages name every recipe key, step and flag there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from maury.flags import RESULT_FLAG_MEANING
from maury.prepare import STEPS
from maury.read import FORMATS
from maury.recipes import grid_schema, schema

REFERENCE = Path(__file__).parents[2] / "docs/reference"


def words(page: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", (REFERENCE / page).read_text(encoding="utf-8")))


def test_every_key_of_a_recipe_is_explained() -> None:
    models = [m for m in vars(schema).values() if isinstance(m, type) and issubclass(m, BaseModel) and m.model_fields]
    keys = {name for model in models for name in model.model_fields}
    sections = {"data", "label", "prepare", "train", "fit", "quality", "errors", "validation", "covariance", "regions"}
    sections |= {"continuum", "prior", "payne", "velocity", "photometry", "observed", "transfer", "head", "search"}
    assert keys - sections - words("recipes.md") == set()


def test_every_key_of_a_build_recipe_is_explained() -> None:
    models = [m for m in vars(grid_schema).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    own = [m for m in models if m.__module__ == grid_schema.__name__]
    keys = {name for model in own for name in model.model_fields}
    sections = {"grid", "library", "sample", "constraint", "rotation", "instrument", "prepare", "augment"}
    assert keys - sections - words("grids.md") == set()


def test_steps_of_the_page_are_those_there_are() -> None:
    text = (REFERENCE / "recipes.md").read_text(encoding="utf-8").split("Steps of")[1]
    assert set(re.findall(r"`([a-z_]+)`", text)) == set(STEPS)


def test_flags_and_formats() -> None:
    page = (REFERENCE / "catalogue.md").read_text(encoding="utf-8")
    for bit, meaning in RESULT_FLAG_MEANING.items():
        assert f"| {int(bit)} | `{bit.name}` | {meaning} |" in page
    assert set(FORMATS) <= words("formats.md")
