"""The Payne as a recipe describes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.emulate.payne import PayneEmulator
from maury.emulate.robust import student_weights
from maury.fit.fitter import ChiSquareFitter
from maury.labels import LabelSet
from maury.protocols import ModelCovariance
from maury.recipes.training_part import FluxError, TrainingPart

if TYPE_CHECKING:
    from maury.emulate.payne_training import PayneTraining
    from maury.train.loop import History

FloatArray = NDArray[np.float64]


class PayneLearner:
    """Trains a Payne on the stars of one part. Regions share its network: only their covariance is their own.

    The members of its ensemble each hold back a fold; their residuals give star weights and covariance, so nothing is trained
    twice but for the star weights.
    """

    def __init__(
        self, part: TrainingPart, device: str, checkpoints: Path | None, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.part, self.device, self.checkpoints, self.progress = part, device, checkpoints, progress
        self.config = part.recipe.train.payne.to_config()

    @property
    def label_set(self) -> LabelSet:
        labels = LabelSet.from_training(self.part.recipe.labels, self.part.values)
        return labels.scaled_to_range() if self.config.scaling == "range" else labels

    @property
    def histories(self) -> dict[str, History]:
        """Losses of the training."""
        return {"network": self._training.history}

    @property
    def flux_error(self) -> FluxError | None:
        """Of the members, each on the spectra it held back."""
        return FluxError.of(self._training.residuals)

    def emulator(self, fitter: ChiSquareFitter) -> PayneEmulator:
        """A Payne with the covariance the recipe asks for; rank 0 leaves the variance of its residuals."""
        return self._with_covariance(self._weights, fitter)

    def regional(self, kernel: FloatArray, fitter: ChiSquareFitter) -> PayneEmulator:
        """The same network with the covariance of the stars that ``kernel`` (n,) weighs."""
        return self._with_covariance(kernel if self._weights is None else kernel * self._weights, fitter)

    def _train(self, weights: FloatArray | None) -> PayneTraining:
        from maury.emulate.payne_training import train_payne

        part = self.part
        return train_payne(
            part.spectra,
            part.recipe.labels,
            part.values,
            self.config,
            star_weights=weights,
            groups=part.groups,
            device=self.device,
            checkpoints=self.checkpoints,
            progress=self.progress,
        )

    @cached_property
    def _weights(self) -> FloatArray | None:
        """Student weights of the stars times those of their parts, or None where the recipe wants all stars alike."""
        dof = self.part.recipe.train.robust_stars
        if dof is None:
            return self.part.weights
        residuals = self._train(self.part.weights).residuals
        unseen = np.isfinite(residuals).all(axis=1)
        weights = np.ones(len(self.part))
        weights[unseen] = student_weights(residuals[unseen], dof)
        return self.part.times(weights)

    @cached_property
    def _training(self) -> PayneTraining:
        return self._train(self._weights)

    def _with_covariance(self, weights: FloatArray | None, fitter: ChiSquareFitter) -> PayneEmulator:
        training, part = self._training, self.part
        if part.recipe.train.covariance.rank == 0:
            return training.emulator

        def fit(covariance: ModelCovariance) -> FloatArray:
            estimated = np.full(part.values.shape, np.nan)
            for member, stars in enumerate(training.held_back):
                alone = training.emulator.member(member).with_covariance(covariance)
                estimated[stars] = fitter.fit(part.spectra[np.flatnonzero(stars)], alone).values[:, : part.values.shape[1]]
            return estimated

        return training.emulator.with_covariance(part.covariance(training.residuals, weights, fit))
