"""The Cannon as a recipe describes it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.emulate.cannon import CannonConfig, CannonEmulator, train_cannon
from maury.emulate.covariance import held_out_residuals
from maury.emulate.regularisation import choose_l1
from maury.emulate.robust import student_weights
from maury.fit.fitter import ChiSquareFitter
from maury.labels import LabelSet
from maury.protocols import ModelCovariance
from maury.recipes.training_part import TrainingPart
from maury.spectra import Spectra

if TYPE_CHECKING:
    from maury.train.loop import History

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ROBUST_PASSES = 2
_ROBUST_EVERY = 4  # pixels: the leading components of the residuals, in which outliers are sought, are as well seen in a quarter


class CannonLearner:
    """Trains Cannons on the stars of one part: a global one, and regional ones with weights of their own."""

    flux_error = None
    """Unknown without another training."""

    def __init__(self, part: TrainingPart) -> None:
        self.histories: dict[str, History] = {}  # The Cannon is solved, not trained by epochs
        self.part = part
        self.folds = part.folds()
        self.config = self._chosen_config()
        self.weights = self._star_weights()

    @property
    def label_set(self) -> LabelSet:
        return LabelSet.from_training(self.part.recipe.labels, self.part.values)

    def emulator(self, fitter: ChiSquareFitter) -> CannonEmulator:
        """A Cannon of all stars with the covariance the recipe asks for."""
        return self._with_covariance(self.config, self.weights, fitter)

    def regional(self, kernel: FloatArray, fitter: ChiSquareFitter) -> CannonEmulator:
        """One whose stars count by ``kernel`` (n,) too."""
        regions = self.part.recipe.train.regions
        config = self.config if regions is None else replace(self.config, order=regions.order, terms=())
        return self._with_covariance(config, kernel if self.weights is None else kernel * self.weights, fitter)

    def _chosen_config(self) -> CannonConfig:
        """The Cannon's settings, with the L1 strength chosen where the recipe leaves it to cross-validation."""
        train, part = self.part.recipe.train, self.part
        fixed = 0.0 if train.l1 == "cross_validation" else float(train.l1)
        config = CannonConfig(train.order, train.terms, train.ridge, fixed, ivar_floor=train.ivar_floor)
        if train.l1 != "cross_validation":
            return config
        best, _ = choose_l1(part.spectra, part.recipe.labels, part.values, config, train.l1_strengths, self.folds)
        return replace(config, l1=best)

    def _cannon(self, spectra: Spectra, config: CannonConfig, stars: IntArray, weights: FloatArray | None) -> CannonEmulator:
        """A Cannon of the stars of these indices, with its own scatter."""
        errors = self.part.errors
        return train_cannon(
            spectra[stars],
            self.part.recipe.labels,
            self.part.values[stars],
            config,
            label_errors=None if errors is None else errors[stars],
            star_weights=None if weights is None else weights[stars],
        )

    def _held_out(
        self, spectra: Spectra, config: CannonConfig, weights: FloatArray | None
    ) -> tuple[FloatArray, list[CannonEmulator]]:
        """Residuals of all stars from models that did not see them, and those models, one per inner fold."""
        emulators: list[CannonEmulator] = []

        def train(stars: IntArray) -> CannonEmulator:
            emulators.append(self._cannon(spectra, config, stars, weights))
            return emulators[-1]

        return held_out_residuals(spectra, self.part.values, train, self.folds), emulators

    def _star_weights(self) -> FloatArray | None:
        """Student weights of the stars times those of their parts, or None where the recipe wants all stars alike."""
        dof = self.part.recipe.train.robust_stars
        if dof is None:
            return self.part.weights
        thin = thinned(self.part.spectra, _ROBUST_EVERY)
        weights: FloatArray | None = None
        for _ in range(_ROBUST_PASSES):
            residuals, _ = self._held_out(thin, self.config, self.part.times(weights))
            weights = student_weights(residuals, dof, weights=weights)
        return self.part.times(weights)

    def _with_covariance(self, config: CannonConfig, weights: FloatArray | None, fitter: ChiSquareFitter) -> CannonEmulator:
        """A Cannon with the covariance its recipe asks for; rank 0 leaves The Cannon's own scatter."""
        part = self.part
        emulator = self._cannon(part.spectra, config, np.arange(len(part)), weights)
        if part.recipe.train.covariance.rank == 0:
            return emulator
        residuals, emulators = self._held_out(part.spectra, config, weights)

        def fit(covariance: ModelCovariance) -> FloatArray:
            estimated = np.full(part.values.shape, np.nan)
            for fold, one in zip(self.folds, emulators, strict=True):
                found = fitter.fit(part.spectra[fold], one.with_covariance(covariance)).values
                estimated[fold] = found[:, : part.values.shape[1]]
            return estimated

        return emulator.with_covariance(part.covariance(residuals, weights, fit))


def thinned(spectra: Spectra, every: int) -> Spectra:
    """The spectra with every n-th pixel alone."""
    pixels = slice(None, None, every)
    mask = None if spectra.mask is None else spectra.mask[:, pixels]
    return spectra.with_pixels(
        wavelength=spectra.wavelength[pixels], flux=spectra.flux[:, pixels], ivar=spectra.ivar[:, pixels], mask=mask
    )
