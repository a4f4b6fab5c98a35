"""Training as a recipe describes it: spectra and labels -> emulator with its covariance -> inferrer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maury.fit.continuum import ContinuumModes
from maury.fit.fitter import ChiSquareFitter
from maury.fit.inferrer import EmulatorInferrer, ModelInferrer
from maury.fit.prior import LabelPrior
from maury.fit.regional import RegionalInferrer, kernel_weights
from maury.fit.starts import PhotometricStarts
from maury.fit.velocity import VelocityLabel
from maury.labels import LabelSet
from maury.protocols import Emulator
from maury.recipes.dataset import TrainingSet
from maury.recipes.learn_cannon import CannonLearner
from maury.recipes.learn_networks import GeneratorLearner, train_convolutions, train_inversion, train_latents
from maury.recipes.learn_payne import PayneLearner
from maury.recipes.schema import Recipe
from maury.recipes.training_part import Trained, TrainingPart

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains one inferrer after another on parts of one training set, as cross-validation asks.

    Parameters
    ----------
    recipe : what to do.
    training_set : the whole prepared training set.
    photometry : starts from isochrones, where the recipe asks for them.
    device : where networks are trained, "cpu" or "cuda".
    checkpoints : folder for the state of trainings of networks; one that was killed goes on from there.
    """

    recipe: Recipe
    training_set: TrainingSet
    photometry: PhotometricStarts | None = None
    device: str = "cpu"
    checkpoints: Path | None = None

    def train(self, stars: IntArray) -> ModelInferrer:
        """An inferrer trained on the stars of these indices alone, covariance and all choices included."""
        return self.train_with_history(stars).inferrer

    def train_with_history(self, stars: IntArray, progress: Callable[[int, int], None] | None = None) -> Trained:
        """The same, with what a network's training tells; ``progress`` is called with (epochs done, epochs at most)."""
        part = TrainingPart.of(self.recipe, self.training_set, stars)
        if self.recipe.train.method == "pca_mlp":
            return train_inversion(part, self.device, self.checkpoints, progress)
        if self.recipe.train.method == "cnn":
            return train_convolutions(part, self.device, self.checkpoints, progress)
        if self.recipe.train.method == "latent":
            return train_latents(part, self.device, self.checkpoints, progress)
        learner = self._learner(part, progress)
        fitter = self.fitter(learner.label_set, part.values)
        emulator = self.with_model_error(learner.emulator(fitter))
        regions = self.recipe.train.regions
        inferrer: ModelInferrer = EmulatorInferrer(emulator, fitter)
        if regions is not None and isinstance(learner, CannonLearner | PayneLearner):
            kernels = kernel_weights(emulator.labels, regions.label, regions.centres, regions.width, part.values)
            parts = tuple(self.with_model_error(learner.regional(kernel, fitter)) for kernel in kernels.T)
            inferrer = RegionalInferrer(emulator, fitter, regions.label, regions.centres, parts)
        return Trained(inferrer, learner.histories, learner.flux_error)

    def _learner(
        self, part: TrainingPart, progress: Callable[[int, int], None] | None
    ) -> CannonLearner | PayneLearner | GeneratorLearner:
        if self.recipe.train.method == "payne":
            return PayneLearner(part, self.device, self.checkpoints, progress)
        if self.recipe.train.method == "generator":
            return GeneratorLearner(part, self.device, self.checkpoints, progress)
        return CannonLearner(part)

    def with_model_error(self, emulator: Emulator) -> Emulator:
        """The emulator with what the recipe says that its training spectra lack in its covariance."""
        settings = self.recipe.train.model_error
        if settings is None:
            return emulator
        return emulator.with_covariance(settings.to_error().added_to(emulator.model_covariance, emulator.wavelength))

    def fitter(self, labels: LabelSet, values: FloatArray) -> ChiSquareFitter:
        """The fit's settings; the prior, if there is one, knows the stars of these labels alone."""
        fit = self.recipe.fit
        prior = None
        if fit.prior is not None:
            prior = LabelPrior.from_training(labels, values, fit.prior.components, fit.prior.broad)
        elif fit.relation is not None:
            prior = LabelPrior.from_relation(labels, **fit.relation.model_dump())
        return ChiSquareFitter(
            fit.n_starts,
            fit.n_candidates,
            fit.margin,
            fit.min_pixels,
            continuum=None if fit.continuum is None else ContinuumModes(**fit.continuum.model_dump()),
            prior=prior,
            photometry=self.photometry,
            velocity=None if fit.velocity is None else VelocityLabel(fit.velocity.max_km_s),
            bounds_of=tuple((name, low, high) for name, (low, high) in fit.bounds.items()),
        )


def reported_stars(recipe: Recipe, values: FloatArray) -> NDArray[np.bool_]:
    """(n,) stars whose true labels lie in the ranges for which the recipe quotes its scores."""
    inside = np.ones(len(values), dtype=bool)
    for k, label in enumerate(recipe.label):
        if label.name in recipe.validation.report:
            low, high = recipe.validation.report[label.name]
            inside &= (values[:, k] >= low) & (values[:, k] <= high)
    return inside
