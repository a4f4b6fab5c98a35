"""What a recipe may say about the stars that judge it beside other recipes: its table ``[test]``, for ``maury compare``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from maury.errors import RecipeError
from maury.recipes.data_schema import PartRecipe, Strict

_NOT_HERE = ("stack_visits", "weight", "validated", "prepare")
"""Keys of a part that say something about training."""
_OWN = ("columns", "error_columns", "units", "name")
"""Keys in which test sets of recipes may differ: what their labels are called."""


class RepeatsRecipe(Strict):
    """Repeat visits, without labels: spectra, and a table that says which of them are of one star."""

    spectra: str
    table: str
    file_column: str = "file"
    group_column: str = "group"
    format: str | None = None
    medium: Literal["air", "vacuum"] | None = None


class ComparisonRecipe(PartRecipe):
    """The stars that judge a recipe: a part of data with labels, how it is split, and what of it counts."""

    folds: int = Field(default=5, ge=2, description="a system that would train on these stars does so without one fold of them")
    judged: int | None = Field(default=None, ge=1, description="how many of the folds are judged; 1 of 10: a held-out tenth")
    seed: int = 0
    report: dict[str, tuple[float, float]] = Field(default_factory=dict, description="label -> range of the stars that count")
    snr: tuple[float, float] | None = Field(
        default=None, description="lowest and highest S/N of white noise that spectra of a build or library get, per pixel"
    )
    repeats: RepeatsRecipe | None = None
    name: str = "test"

    @model_validator(mode="after")
    def _judges_only(self) -> ComparisonRecipe:
        defaults = PartRecipe.model_construct()
        strange = [key for key in _NOT_HERE if getattr(self, key) != getattr(defaults, key)]
        if strange:
            raise RecipeError(f"expected no {strange[0]} in [test], whose stars are not trained on, got one; remove it")
        if self.snr is not None:
            if self.spectra is not None:
                raise RecipeError("expected snr in [test] for a build or a library alone, got observed spectra; remove it")
            if not 0 < self.snr[0] <= self.snr[1]:
                raise RecipeError(f"expected snr = [lowest, highest] above 0 in [test], got {list(self.snr)}; correct it")
        return self

    @property
    def content(self) -> dict[str, Any]:
        """What has to be alike in recipes that are compared."""
        return self.model_dump(mode="json", exclude=set(_OWN))
