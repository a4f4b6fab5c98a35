"""Networks as a recipe describes them: the generator of Gebran (2024), its inversion, convolutions (Passegger 2020), and
regressors in an autoencoder's latent space (Mas-Buitrago 2024)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.emulate.payne import PayneEmulator
from maury.fit.fitter import ChiSquareFitter
from maury.labels import LabelSet
from maury.recipes.training_part import FluxError, Trained, TrainingPart
from maury.regress.ensemble import EnsembleInferrer
from maury.spectra import Spectra

if TYPE_CHECKING:
    from maury.emulate.generator import GeneratorTraining
    from maury.train.loop import History

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]


class GeneratorLearner:
    """Trains a generator on the spectra of one part; a fifth of them, whole base spectra, is held back by itself."""

    def __init__(self, part: TrainingPart, device: str, checkpoints: Path | None, progress: Progress | None = None) -> None:
        self.part, self.device, self.checkpoints, self.progress = part, device, checkpoints, progress
        self.config = part.recipe.train.generator.to_config()

    @property
    def label_set(self) -> LabelSet:
        return self.training.emulator.labels

    @property
    def histories(self) -> dict[str, History]:
        """Losses of its stages."""
        return self.training.history

    @property
    def flux_error(self) -> FluxError | None:
        """Of the spectra that it held back."""
        held = np.flatnonzero(self.training.held_back)
        return FluxError.of(self.part.spectra.flux[held] - self.training.emulator.predict_flux(self.part.values[held]))

    def emulator(self, fitter: ChiSquareFitter) -> PayneEmulator:
        """The generator with the variance of its residuals."""
        return self.training.emulator

    @cached_property
    def training(self) -> GeneratorTraining:
        """All that training gives."""
        from maury.emulate.generator import train_generator

        part = self.part
        return train_generator(
            part.spectra,
            part.recipe.labels,
            part.values,
            self.config,
            groups=part.groups,
            device=self.device,
            checkpoints=self.checkpoints,
            progress=self.progress,
        )


def train_inversion(part: TrainingPart, device: str, checkpoints: Path | None, progress: Progress | None = None) -> Trained:
    """Principal components and networks from spectra to labels."""
    from maury.regress.pca_mlp_training import train_pca_mlp

    training = train_pca_mlp(
        part.spectra,
        part.recipe.labels,
        part.values,
        part.recipe.train.pca_mlp.to_config(),
        groups=part.groups,
        device=device,
        checkpoints=checkpoints,
        progress=progress,
    )
    return Trained(training.inferrer, {"network": training.history})


def train_convolutions(part: TrainingPart, device: str, checkpoints: Path | None, progress: Progress | None = None) -> Trained:
    """Convolutional networks of one topology that vote on each label."""
    from maury.regress.cnn_training import train_cnn

    config = part.recipe.train.cnn.to_config()
    training = train_cnn(
        part.spectra,
        part.recipe.labels,
        part.values,
        config,
        groups=part.groups,
        device=device,
        checkpoints=checkpoints,
        progress=progress,
    )
    names = tuple(f"network {i}" for i in range(training.networks.n_members))
    ensemble = EnsembleInferrer.of(training.networks.wavelength, (training.networks,), (names,), config.min_pixels)
    return Trained(ensemble, {"network": training.history})


def train_latents(part: TrainingPart, device: str, checkpoints: Path | None, progress: Progress | None = None) -> Trained:
    """Autoencoders that are carried over to observed spectra, and regressors that vote on their latent numbers.

    Spectra of libraries and builds are the synthetic domain; those of files, and those without labels, the observed one.
    """
    from maury.regress.latent_training import train_latent

    config = part.recipe.train.latent.to_config()
    synthetic, stars = np.flatnonzero(~part.from_files), np.flatnonzero(part.from_files)
    observed, known = part.observed, None
    if stars.size:
        labelled = part.spectra[stars]
        meta = labelled.meta.copy()
        meta["set"] = np.full(stars.size, "labelled")
        labelled = labelled.with_pixels(meta=meta)
        some = [labelled] if observed is None else [observed, labelled]
        unknown = np.full((0 if observed is None else len(observed), part.values.shape[1]), np.nan)
        observed, known = Spectra.stack(some), np.concatenate([unknown, part.values[stars]])
    training = train_latent(
        part.spectra[synthetic],
        part.recipe.labels,
        part.values[synthetic],
        config,
        observed=observed,
        observed_values=known,
        groups=None if part.groups is None else tuple(part.groups[i] for i in synthetic),
        device=device,
        checkpoints=checkpoints,
        progress=progress,
    )
    names = tuple(
        tuple(f"autoencoder {i}, network {j}" for j in range(stack.n_members)) for i, stack in enumerate(training.networks)
    )
    ensemble = EnsembleInferrer.of(training.networks[0].wavelength, training.networks, names, config.min_pixels)
    return Trained(ensemble, training.history, transfer=training)
