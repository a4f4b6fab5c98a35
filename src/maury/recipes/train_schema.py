"""What a recipe may say about training and fit; the settings' meaning stands with the classes they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.emulate.covariance import ModelError
from maury.errors import RecipeError
from maury.fit.prior import check_relation
from maury.labels import Label
from maury.recipes.data_schema import Strict
from maury.recipes.network_schema import CnnRecipe, GeneratorRecipe, LatentRecipe, PayneRecipe, PcaMlpRecipe


class CovarianceRecipe(Strict):
    """Low-rank-plus-diagonal covariance of the model from cross-validated residuals (rank 0: The Cannon's own scatter)."""

    rank: int = Field(default=0, ge=0)
    folds: int = Field(default=5, ge=2)
    inflation: float | Literal["cross_validation"] = "cross_validation"
    inflations: tuple[float, ...] = Field(default=(1.0, 10.0, 20.0, 40.0, 80.0), min_length=1)
    clip: float = Field(default=5.0, gt=0)


class ModelErrorRecipe(Strict):
    """Settings of :class:`maury.emulate.covariance.ModelError`."""

    floor: float = 0.0
    correlated_pixels: float = 1.0
    lines: tuple[float, ...] = ()
    core_widths: tuple[float, ...] = ()
    core_amplitude: float = 0.0

    def to_error(self) -> ModelError:
        """Raise UsageError if a value is impossible."""
        return ModelError(**self.model_dump())


class RegionsRecipe(Strict):
    """Regional models along one label (see :mod:`maury.fit.regional`)."""

    label: str
    centres: tuple[float, ...] = Field(min_length=2)
    width: float = Field(default=0.8, gt=0, description="of the training weights, in units of the centres' mean distance")
    order: int = Field(default=2, ge=1, le=4)


Method = Literal["cannon", "payne", "generator", "pca_mlp", "cnn", "latent"]


class TrainRecipe(Strict):
    """The Cannon (its options: :class:`maury.emulate.CannonConfig`), or a network, whose options are a table of its name."""

    method: Method = "cannon"
    order: int = Field(default=2, ge=1, le=4)
    terms: tuple[str, ...] = ()
    ridge: float = Field(default=0.0, ge=0)
    l1: float | Literal["cross_validation"] = 0.0
    l1_strengths: tuple[float, ...] = (0.0, 1.0, 10.0, 100.0, 1000.0)
    ivar_floor: float = Field(default=0.0, ge=0)
    label_errors: bool = False
    robust_stars: float | None = Field(default=None, gt=0, description="degrees of freedom of the star weights; none: off")
    covariance: CovarianceRecipe = CovarianceRecipe()
    model_error: ModelErrorRecipe | None = Field(default=None, description="of a synthetic library, beside the emulator's own")
    regions: RegionsRecipe | None = None
    payne: PayneRecipe = PayneRecipe()
    generator: GeneratorRecipe = GeneratorRecipe()
    pca_mlp: PcaMlpRecipe = PcaMlpRecipe()
    cnn: CnnRecipe = CnnRecipe()
    latent: LatentRecipe = LatentRecipe()

    @property
    def is_network(self) -> bool:
        """Whether torch trains it."""
        return self.method != "cannon"

    @property
    def is_random(self) -> bool:
        """Whether training may draw noise or dropout from torch's own generator, of which all threads have one."""
        return self.method in ("generator", "pca_mlp", "cnn", "latent")

    def check_method(self) -> None:
        """Raise RecipeError if a setting is given that the method has no use for, or UsageError if one is impossible."""
        for table in (self.payne, self.generator, self.pca_mlp, self.cnn, self.latent):
            table.to_config()
        if self.model_error is not None:
            self.model_error.to_error()
        useless = [name for name in _NETWORKS if name != self.method]
        useless += _CANNON_ONLY if self.is_network else ()
        useless += ("model_error",) if self.method in ("pca_mlp", "cnn", "latent") else ()
        useless += _NOT_FOR_THESE if self.method in ("generator", "pca_mlp", "cnn", "latent") else ()
        for name in useless:
            default, given = TrainRecipe.model_fields[name].default, getattr(self, name)
            if given != default:
                where = f"[train.{name}]" if isinstance(given, Strict) else f"train.{name}"
                raise RecipeError(
                    f"expected no {where} for train.method = {self.method!r}, got some; correct the method or remove it"
                )


_NETWORKS = ("payne", "generator", "pca_mlp", "cnn", "latent")
_CANNON_ONLY = ("order", "terms", "ridge", "l1", "l1_strengths", "ivar_floor", "label_errors")
_NOT_FOR_THESE = ("robust_stars", "covariance", "regions")


class ContinuumRecipe(Strict):
    """Smooth calibration errors to marginalise in the fit (see :mod:`maury.fit.continuum`)."""

    degree: int = Field(default=10, ge=0)
    amplitude: float = Field(default=0.1, gt=0)
    trusted: tuple[str, ...] = ()


class PriorRecipe(Strict):
    """Prior of the labels from the training stars (see :mod:`maury.fit.prior`)."""

    components: int = Field(default=6, ge=1)
    broad: float = Field(default=0.05, gt=0, lt=1)


class RelationRecipe(Strict):
    """Prior of one label by a relation with others (see :meth:`maury.fit.prior.LabelPrior.from_relation`)."""

    label: str
    at: dict[str, float]
    slopes: dict[str, float]
    sigma: float = Field(gt=0, description="unit of the label")


class VelocityRecipe(Strict):
    """Radial velocity fitted together with the labels (see :mod:`maury.fit.velocity`)."""

    max_km_s: float = Field(gt=0, lt=0.01 * SPEED_OF_LIGHT_KM_S, description="bound of the fit on either side")


class PhotometryRecipe(Strict):
    """Starts from photometry (see :mod:`maury.fit.starts`)."""

    isochrones: str = Field(description="glob below the data folder")
    colour_scale: float = Field(default=0.1, gt=0, description="mag")
    magnitude_scale: float = Field(default=0.5, gt=0, description="mag")


class FitRecipe(Strict):
    """Settings of :class:`maury.fit.ChiSquareFitter`."""

    n_starts: int = Field(default=3, ge=1)
    n_candidates: int = Field(default=256, ge=1)
    margin: float = Field(default=0.1, ge=0)
    bounds: dict[str, tuple[float, float]] = Field(default_factory=dict, description="label -> bounds instead of the margin")
    min_pixels: int = Field(default=50, ge=1)
    continuum: ContinuumRecipe | None = None
    prior: PriorRecipe | None = None
    relation: RelationRecipe | None = None
    velocity: VelocityRecipe | None = None
    photometry: PhotometryRecipe | None = None

    def check_labels(self, labels: Sequence[Label]) -> None:
        """Raise RecipeError unless bounds are of known labels, in order, and positive where the label's coordinate wants that.

        UsageError for a relation that is none (:func:`maury.fit.prior.check_relation`).
        """
        known = {label.name: label for label in labels}
        for name, (low, high) in self.bounds.items():
            if name not in known:
                raise RecipeError(f"expected fit.bounds of labels among {', '.join(known)}, got {name!r}; correct the name")
            if not low < high:
                raise RecipeError(f"expected fit.bounds of {name} as [lower, upper], got [{low:g}, {high:g}]; correct them")
            if known[name].coordinate != "linear" and not low > 0:
                raise RecipeError(
                    f"expected positive fit.bounds of {name}, whose coordinate is {known[name].coordinate}, got {low:g}; raise it"
                )
        if self.prior is not None and self.relation is not None:
            raise RecipeError("expected one of [fit.prior] and [fit.relation], got both; remove one")
        if self.relation is not None:
            strange = [name for name in (self.relation.label, *self.relation.at, *self.relation.slopes) if name not in known]
            if strange:
                raise RecipeError(f"expected labels among {', '.join(known)} in [fit.relation], got {strange[0]!r}; correct it")
            check_relation(labels, **self.relation.model_dump())
        if self.n_candidates < self.n_starts:
            raise RecipeError(f"expected fit.n_starts <= fit.n_candidates, got {self.n_starts} and {self.n_candidates}")
