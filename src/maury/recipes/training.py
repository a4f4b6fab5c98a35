"""Training as a recipe describes it: spectra and labels -> emulator with its covariance -> inferrer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maury.assess.metrics import robust_std
from maury.emulate import CannonConfig, CannonEmulator, train_cannon
from maury.emulate.covariance import held_out_residuals, low_rank_covariance
from maury.emulate.regularisation import choose_l1
from maury.emulate.robust import student_weights
from maury.fit.continuum import ContinuumModes
from maury.fit.fitter import ChiSquareFitter
from maury.fit.inferrer import EmulatorInferrer, FittedInferrer
from maury.fit.prior import LabelPrior
from maury.fit.regional import RegionalInferrer, kernel_weights
from maury.labels import LabelSet
from maury.protocols import ModelCovariance
from maury.recipes.schema import Recipe, TrainRecipe
from maury.spectra import Spectra
from maury.train.splits import k_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ROBUST_PASSES = 2
_ROBUST_EVERY = 4  # pixels: the leading components of the residuals, in which outliers are sought, are as well seen in a quarter
_STARS_PER_FACTOR = 3  # a residual direction needs a few stars to be known; small training sets get fewer factors
_INNER_SEED = 20200101  # of the folds inside a training; the outer folds have the recipe's own seed


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains one inferrer after another on parts of one training set, as cross-validation asks.

    Parameters
    ----------
    recipe : what to do.
    spectra, values, errors : the whole prepared training set; ``errors`` of the labels or None.
    """

    recipe: Recipe
    spectra: Spectra
    values: FloatArray
    errors: FloatArray | None

    def train(self, stars: IntArray) -> FittedInferrer:
        """An inferrer trained on the stars of these indices alone, covariance and all choices included."""
        part = _Part.of(self, stars)
        config = part.config()
        weights = part.star_weights(config)
        emulator = part.emulator(config, weights)
        regions = self.recipe.train.regions
        if regions is None:
            return EmulatorInferrer(emulator, part.fitter)
        kernels = kernel_weights(emulator.labels, regions.label, regions.centres, regions.width, part.values)
        local = replace(config, order=regions.order, terms=())
        parts = [part.emulator(local, kernel if weights is None else kernel * weights) for kernel in kernels.T]
        return RegionalInferrer(emulator, part.fitter, regions.label, regions.centres, tuple(parts))

    def fitter(self, stars: IntArray) -> ChiSquareFitter:
        """The fit's settings; the prior, if there is one, knows these stars alone."""
        fit = self.recipe.fit
        prior = None
        if fit.prior is not None:
            labels = LabelSet.from_training(self.recipe.labels, self.values[stars])
            prior = LabelPrior.from_training(labels, self.values[stars], fit.prior.components, fit.prior.broad)
        continuum = None if fit.continuum is None else ContinuumModes(**fit.continuum.model_dump())
        return ChiSquareFitter(fit.n_starts, fit.n_candidates, fit.margin, fit.min_pixels, continuum=continuum, prior=prior)


@dataclass(frozen=True, eq=False)
class _Part:
    """The stars of one training, with inner folds of their own."""

    train: TrainRecipe
    recipe: Recipe
    spectra: Spectra
    values: FloatArray
    errors: FloatArray | None
    folds: list[IntArray]
    fitter: ChiSquareFitter

    @classmethod
    def of(cls, trainer: Trainer, stars: IntArray) -> _Part:
        recipe = trainer.recipe
        folds = k_folds(len(stars), recipe.train.covariance.folds, _INNER_SEED)
        errors = None if trainer.errors is None or not recipe.train.label_errors else trainer.errors[stars]
        return cls(recipe.train, recipe, trainer.spectra[stars], trainer.values[stars], errors, folds, trainer.fitter(stars))

    def config(self) -> CannonConfig:
        """The Cannon's settings, with the L1 strength chosen where the recipe leaves it to cross-validation."""
        train = self.train
        fixed = 0.0 if train.l1 == "cross_validation" else float(train.l1)
        config = CannonConfig(train.order, train.terms, train.ridge, fixed, ivar_floor=train.ivar_floor)
        if train.l1 != "cross_validation":
            return config
        best, _ = choose_l1(self.spectra, self.recipe.labels, self.values, config, train.l1_strengths, self.folds)
        return replace(config, l1=best)

    def emulator(self, config: CannonConfig, weights: FloatArray | None) -> CannonEmulator:
        """A Cannon of all stars with the covariance the recipe asks for."""
        return self.with_covariance(self.cannon(config, np.arange(len(self.spectra)), weights), config, weights)

    def cannon(self, config: CannonConfig, stars: IntArray, weights: FloatArray | None) -> CannonEmulator:
        """A Cannon of the stars of these indices, with its own scatter."""
        return train_cannon(
            self.spectra[stars],
            self.recipe.labels,
            self.values[stars],
            config,
            label_errors=None if self.errors is None else self.errors[stars],
            star_weights=None if weights is None else weights[stars],
        )

    def held_out(self, config: CannonConfig, weights: FloatArray | None) -> tuple[FloatArray, list[CannonEmulator]]:
        """Residuals of all stars from models that did not see them, and those models, one per inner fold."""
        emulators: list[CannonEmulator] = []

        def train(stars: IntArray) -> CannonEmulator:
            emulators.append(self.cannon(config, stars, weights))
            return emulators[-1]

        return held_out_residuals(self.spectra, self.values, train, self.folds), emulators

    def star_weights(self, config: CannonConfig) -> FloatArray | None:
        """Student weights of the stars, or None where the recipe wants all stars alike."""
        if self.train.robust_stars is None:
            return None
        thin = replace(self, spectra=thinned(self.spectra, _ROBUST_EVERY))
        weights: FloatArray | None = None
        for _ in range(_ROBUST_PASSES):
            residuals, _ = thin.held_out(config, weights)
            weights = student_weights(residuals, self.train.robust_stars, weights=weights)
        return weights

    def with_covariance(self, emulator: CannonEmulator, config: CannonConfig, weights: FloatArray | None) -> CannonEmulator:
        """The emulator with the covariance its recipe asks for; rank 0 leaves The Cannon's own scatter."""
        recipe = self.train.covariance
        if recipe.rank == 0:
            return emulator
        effective = len(self.spectra) if weights is None else int(weights.sum() ** 2 / (weights**2).sum())
        rank = min(recipe.rank, effective // _STARS_PER_FACTOR)
        residuals, emulators = self.held_out(config, weights)

        def covariance(inflation: float) -> ModelCovariance:
            return low_rank_covariance(
                residuals, self.spectra.ivar, rank, star_weights=weights, inflation=inflation, clip=recipe.clip
            )

        candidates = (recipe.inflation,) if isinstance(recipe.inflation, float) else recipe.inflations
        scores = {c: self._label_score(covariance(c), emulators) if len(candidates) > 1 else 0.0 for c in candidates}
        return emulator.with_covariance(covariance(min(scores, key=scores.__getitem__)))

    def _label_score(self, covariance: ModelCovariance, emulators: list[CannonEmulator]) -> float:
        """Sum over labels of ln(robust scatter) of held-out fits in the ranges that the recipe reports: lower is better."""
        estimated = np.full(self.values.shape, np.nan)
        for fold, emulator in zip(self.folds, emulators, strict=True):
            estimated[fold] = self.fitter.fit(self.spectra[fold], emulator.with_covariance(covariance)).values
        inside = reported_stars(self.recipe, self.values)
        return float(sum(np.log(robust_std((estimated - self.values)[inside, k])) for k in range(self.values.shape[1])))


def thinned(spectra: Spectra, every: int) -> Spectra:
    """The spectra with every n-th pixel alone."""
    pixels = slice(None, None, every)
    mask = None if spectra.mask is None else spectra.mask[:, pixels]
    return spectra.with_pixels(
        wavelength=spectra.wavelength[pixels], flux=spectra.flux[:, pixels], ivar=spectra.ivar[:, pixels], mask=mask
    )


def reported_stars(recipe: Recipe, values: FloatArray) -> NDArray[np.bool_]:
    """(n,) stars whose true labels lie in the ranges for which the recipe quotes its scores."""
    inside = np.ones(len(values), dtype=bool)
    for k, label in enumerate(recipe.label):
        if label.name in recipe.validation.report:
            low, high = recipe.validation.report[label.name]
            inside &= (values[:, k] >= low) & (values[:, k] <= high)
    return inside
