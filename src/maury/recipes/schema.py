"""What a recipe may say: TOML checked by pydantic; a key that is not known is an error, never silently ignored.

A recipe describes one training from files to model: which spectra and labels, how they are prepared, how the model is
trained, fitted, judged and validated. ``docs/reference/recipes.md`` is its reference for users.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from maury.errors import RecipeError
from maury.labels import Label, make_label
from maury.prepare import Preparation
from maury.recipes.compare_schema import ComparisonRecipe, RepeatsRecipe
from maury.recipes.data_schema import DataRecipe, LibraryRecipe, ObservedRecipe, PartRecipe
from maury.recipes.data_schema import Strict as _Strict
from maury.recipes.label_units import check_labels_of
from maury.recipes.network_schema import (
    CnnRecipe,
    GeneratorRecipe,
    HeadRecipe,
    LatentRecipe,
    PayneRecipe,
    PcaMlpRecipe,
    SearchRecipe,
    TransferRecipe,
)
from maury.recipes.sweep_schema import SweepRecipe, WindowRecipe
from maury.recipes.toml import parse, read_toml
from maury.recipes.train_schema import (
    ContinuumRecipe,
    CovarianceRecipe,
    FitRecipe,
    ModelErrorRecipe,
    PhotometryRecipe,
    PriorRecipe,
    RegionsRecipe,
    RelationRecipe,
    TrainRecipe,
    VelocityRecipe,
)
from maury.regress.latent_config import LIKE_OBSERVED

BUILTIN_FOLDER = Path(__file__).with_name("builtin")


class LabelRecipe(_Strict):
    """One label: its name here, its column in the table, the unit of that column (no default: units are never guessed)."""

    name: str
    column: str
    unit: str
    coordinate: Literal["linear", "log10", "inverse"] = "linear"
    error_column: str | None = None
    error: float | None = Field(default=None, gt=0, description="one standard deviation for all stars, label units")

    def to_label(self) -> Label:
        return make_label(self.name, self.unit, self.coordinate)


class QualityRecipe(_Strict):
    """Settings of :class:`maury.assess.quality.QualityCuts`."""

    min_snr: float | None = None
    snr_column: Literal["snr", "snr_sum"] = "snr"
    max_chi2: float | None = None
    max_reduced_chi2: float | None = None


class ErrorsRecipe(_Strict):
    """Which errors the catalogue carries: formal ones, calibrated on held-out stars, or a polynomial in S/N."""

    model: Literal["formal", "held_out", "snr", "galgano2020", "galgano2020_as_published"] = "held_out"
    snr_column: Literal["snr", "snr_sum"] = "snr"
    stars_per_bin: int = Field(default=1360, ge=10, description="of the model snr, and of errors along a label")
    along: str | None = Field(default=None, description="label along which held_out errors change; none: one scale and floor")


class ValidationRecipe(_Strict):
    """K-fold cross-validation of the whole training."""

    folds: int = Field(default=5, ge=0, description="0 switches it off")
    judged: int | None = Field(default=None, ge=1, description="how many of the folds are judged; 1 of 10: a held-out tenth")
    seed: int = 0
    report: dict[str, tuple[float, float]] = Field(default_factory=dict, description="label -> range the scores are quoted for")

    @field_validator("folds")
    @classmethod
    def _not_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one fold is no cross-validation; use 0 to switch it off")
        return value


class ExperimentRecipe(_Strict):
    """What a published system is measured by, beyond a model: see :mod:`maury.recipes.gebran2024`."""

    kind: Literal["gebran2024"]
    test_fraction: float = Field(default=0.1, gt=0, le=0.5, description="of the base spectra: never seen by any training")
    checker: PcaMlpRecipe = PcaMlpRecipe(preset="gebran2024")
    own_checker: PcaMlpRecipe = PcaMlpRecipe(members=1, snr="none")
    small: PayneRecipe = Field(default=PayneRecipe(), description="the generator with fewer parameters")


class Recipe(_Strict):
    """A whole recipe."""

    name: str
    description: str = ""
    source: str = Field(default="", description="paper and equation")
    data: DataRecipe
    label: tuple[LabelRecipe, ...] = Field(min_length=1)
    prepare: tuple[dict[str, Any], ...] = Field(min_length=1)
    train: TrainRecipe = TrainRecipe()
    fit: FitRecipe = FitRecipe()
    quality: QualityRecipe = QualityRecipe()
    errors: ErrorsRecipe = ErrorsRecipe()
    validation: ValidationRecipe = ValidationRecipe()
    experiment: ExperimentRecipe | None = None
    sweep: SweepRecipe | None = None
    test: ComparisonRecipe | None = Field(default=None, description="the stars of `maury compare`")
    quick: dict[str, Any] = Field(default_factory=dict, description="what `maury train --quick` changes: keys as in the recipe")

    def check(self) -> None:
        """Raise MauryError where parts contradict each other or a value is impossible."""
        for part in self.data.all_parts:
            self.preparation_of(part)
            check_labels_of(part, self.labels)
        self.train.check_method()
        self._check_observed()
        self.fit.check_labels(self.labels)
        strange = [name for name in self.validation.report if name not in [label.name for label in self.label]]
        if strange:
            raise RecipeError(f"expected labels of the recipe in validation.report, got {strange[0]!r}; correct the name")
        if self.test is not None:
            check_labels_of(self.test, self.labels)
            strange = [name for name in self.test.report if name not in [label.name for label in self.label]]
            if strange:
                raise RecipeError(f"expected labels of the recipe in test.report, got {strange[0]!r}; correct the name")
        if self.experiment is not None:
            if self.train.method != "generator":
                raise RecipeError(
                    f"expected train.method = 'generator' for [experiment], got {self.train.method!r}; correct it or leave it out"
                )
            self.experiment.small.to_config()
            members = [table.to_config().members for table in (self.experiment.checker, self.experiment.own_checker)]
            if max(members) > 1:  # others would have seen what one holds back
                raise RecipeError(f"expected members = 1 of the checkers in [experiment], got {max(members)}; correct it")
        if self.sweep is not None:
            if self.train.method != "cnn":
                raise RecipeError(
                    f"expected train.method = 'cnn' for [sweep], got {self.train.method!r}; correct it or leave [sweep] out"
                )
            self.sweep.check(self.labels, self.preparation)
        if self.quick:
            quick_version(self)

    def _check_observed(self) -> None:
        """Raise RecipeError unless there are observed spectra exactly where the method has a use for them."""
        if self.train.method != "latent":
            if self.data.observed:
                raise RecipeError(
                    f"expected no [[data.observed]] for train.method = {self.train.method!r}, which learns from labels alone, "
                    "got some; remove it"
                )
            return
        config = self.train.latent.to_config()
        labelled = [part.name for part in self.data.all_parts if part.spectra is not None]
        if len(labelled) == len(self.data.all_parts):
            raise RecipeError("expected a part that is a library or a build for train.method = 'latent', got none; add one")
        if labelled and config.transfer.method != "labels":
            raise RecipeError(
                f"expected synthetic parts alone for the transfer {config.transfer.method!r}, got {labelled[0]!r} with labels; "
                "remove it, or set train.latent.transfer.method = 'labels'"
            )
        wanted = config.transfer.method != "none" or config.transfer.population > 0 or config.noise in LIKE_OBSERVED
        if wanted and not labelled and not self.data.observed:
            raise RecipeError(
                f"expected [[data.observed]] for the transfer {config.transfer.method!r} with noise {config.noise!r}, got none; "
                "name the observed spectra"
            )
        if self.data.observed and not wanted:
            raise RecipeError(
                "expected no [[data.observed]] without a transfer, population or noise like that of observed spectra, got some; "
                "remove it"
            )
        if config.transfer.method == "labels" and not labelled:
            raise RecipeError(
                "expected a part with spectra and table for the transfer 'labels', got none; add the labelled stars"
            )

    @property
    def labels(self) -> tuple[Label, ...]:
        return tuple(item.to_label() for item in self.label)

    @property
    def preparation(self) -> Preparation:
        return Preparation.from_config([dict(step) for step in self.prepare])

    def preparation_of(self, part: PartRecipe) -> Preparation:
        """The part's own steps where it has some, else the recipe's."""
        return Preparation.from_config([dict(step) for step in part.prepare]) if part.prepare else self.preparation


def builtin_recipes() -> dict[str, Path]:
    """Names and files of the recipes that come with the package."""
    return {path.stem: path for path in sorted(BUILTIN_FOLDER.glob("*.toml"))}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A built-in recipe by name, or one from a TOML file.

    Raises
    ------
    RecipeError
        No such recipe, no TOML, an unknown key, a missing unit, an impossible value; each in one sentence.
    """
    content, origin = read_toml(name_or_path, builtin_recipes())
    return parse_recipe(content, origin)


def parse_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """A recipe from its parsed TOML; ``origin`` names it in errors.

    Raises
    ------
    RecipeError
        See :func:`load_recipe`.
    """
    return parse(content, origin, Recipe, Recipe.check, _TABLES)


def quick_version(recipe: Recipe) -> Recipe:
    """The small version of a recipe, for a try: what its ``[quick]`` says is merged over the rest.

    Raises
    ------
    RecipeError
        If the recipe has none, or what comes out is no recipe.
    """
    if not recipe.quick:
        raise RecipeError(f"expected a recipe with a table [quick], got {recipe.name!r} without; leave --quick out")
    content = recipe.model_dump(mode="json", exclude_unset=True)
    return parse_recipe(_merged(content, content.pop("quick")), f"[quick] of {recipe.name}")


def _merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``content`` with ``changes``; tables are merged, everything else is replaced."""
    out = dict(content)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


_TABLES: dict[str, type[BaseModel]] = {
    "": Recipe,
    "data": DataRecipe,
    "data.library": LibraryRecipe,
    "data.parts": PartRecipe,
    "data.parts.library": LibraryRecipe,
    "data.observed": ObservedRecipe,
    "label": LabelRecipe,
    "train": TrainRecipe,
    "train.covariance": CovarianceRecipe,
    "train.model_error": ModelErrorRecipe,
    "train.regions": RegionsRecipe,
    "train.payne": PayneRecipe,
    "train.generator": GeneratorRecipe,
    "train.pca_mlp": PcaMlpRecipe,
    "train.cnn": CnnRecipe,
    "train.latent": LatentRecipe,
    "train.latent.search": SearchRecipe,
    "train.latent.transfer": TransferRecipe,
    "train.latent.head": HeadRecipe,
    "experiment": ExperimentRecipe,
    "experiment.checker": PcaMlpRecipe,
    "experiment.own_checker": PcaMlpRecipe,
    "experiment.small": PayneRecipe,
    "sweep": SweepRecipe,
    "sweep.window": WindowRecipe,
    "fit": FitRecipe,
    "fit.continuum": ContinuumRecipe,
    "fit.prior": PriorRecipe,
    "fit.relation": RelationRecipe,
    "fit.velocity": VelocityRecipe,
    "fit.photometry": PhotometryRecipe,
    "quality": QualityRecipe,
    "errors": ErrorsRecipe,
    "validation": ValidationRecipe,
    "test": ComparisonRecipe,
    "test.library": LibraryRecipe,
    "test.repeats": RepeatsRecipe,
}
