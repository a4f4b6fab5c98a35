"""Spectra from labels by an autoencoder (Gebran 2024; METHODS 3): flux = decoder(label network(labels)).

An autoencoder learns to squeeze spectra into a few latent numbers, a second network learns those from the labels, and the first
one's decoder turns them back into spectra. Joined, the two are one deep perceptron with a linear last layer; that is what
:class:`~maury.emulate.payne.PayneEmulator` holds, so the generator *is* one, and fits, files and covariances are those of The
Payne. Training needs torch (:mod:`maury.emulate.generator_training`, imported when it is called), use does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.emulate.activations import ACTIVATIONS
from maury.emulate.cannon import covered
from maury.emulate.components import principal_components
from maury.emulate.covariance import low_rank_covariance
from maury.emulate.generator_config import GeneratorConfig
from maury.emulate.payne import PayneEmulator
from maury.errors import UsageError
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance
from maury.spectra import Spectra
from maury.threads import in_threads
from maury.train.scaling import scaled_labels
from maury.train.splits import held_back

if TYPE_CHECKING:
    from maury.emulate.generator_training import Stages
    from maury.train.loop import History

FloatArray = NDArray[np.float64]
Single = NDArray[np.float32]
Layers = tuple[tuple[Single, Single], ...]

_ROWS = 4096  # spectra per pass: bounds memory
_GENERATED = 256  # spectra per pass of a generation: their flux stays in cache
_ENOUGH = 5000  # spectra for the model's variance, and for principal components: more of them change nothing
_SHORTER = 0.1  # of the model's own error may be lost with basis vectors, at the worst: in quadrature half a per cent
_DEAD = 1e-6  # standard deviation of a dead latent unit, in that of the liveliest


@dataclass(frozen=True, eq=False)
class SpectrumAutoencoder:
    """A trained autoencoder: spectra to latent numbers and back.

    Parameters
    ----------
    wavelength : (n_pixels,) Å.
    encoder, decoder : (weights (1, n_in, n_out), bias (1, n_out)) of each layer; the decoder's last one is linear.
    activation : of every other layer, the latent one included.
    mean : (n_pixels,) mean training spectrum, which stands in for masked pixels.
    offset, scale : the network sees (flux - offset)/scale.
    """

    wavelength: FloatArray
    encoder: Layers
    decoder: Layers
    activation: str
    mean: Single
    offset: Single
    scale: float

    def encode(self, spectra: Spectra) -> Single:
        """(n, latent) numbers of n spectra on the autoencoder's pixels.

        Raises
        ------
        UsageError
            If the spectra lie on other pixels.
        """
        if not np.array_equal(spectra.wavelength, self.wavelength):
            raise UsageError(f"expected spectra on the autoencoder's {len(self.wavelength)} pixels, got others; resample them")
        parts = []
        for i in range(0, max(len(spectra), 1), _ROWS):
            rows = slice(i, i + _ROWS)
            x = _prepared(spectra.flux[rows], spectra.ivar[rows] > 0, self.mean, self.offset, self.scale)
            parts.append(_through(self.encoder, x, self.activation, linear_end=False))
        return np.concatenate(parts)

    def decode(self, latents: ArrayLike) -> Single:
        """(n, latent) -> (n, n_pixels) flux."""
        x = np.asarray(latents, dtype=np.float32)
        return np.asarray(_through(self.decoder, x, self.activation, linear_end=True) * np.float32(self.scale) + self.offset)

    def reconstruct(self, spectra: Spectra) -> Single:
        """(n, n_pixels) flux after the way through the latent numbers."""
        return self.decode(self.encode(spectra))


@dataclass(frozen=True, eq=False)
class GeneratorTraining:
    """What training gives.

    Parameters
    ----------
    emulator : labels -> flux, with the variance of held-out residuals, less that of the noise, as diagonal covariance.
    autoencoder : of the first stage; fine tuning does not touch it.
    history : of "autoencoder", "label_network" and, if there was one, "fine_tune": mean squared errors, of the flux,
        for the label network of the latent numbers (over their standard deviation if standardised).
    held_back : (n,) spectra of the validation set, the same in every stage.
    latents : (n, latent) of all spectra.
    active : (latent,) whether a latent number varies over the training spectra at all.
    remarks : what a user should know: dead latent units, fine tuning that did not help.
    """

    emulator: PayneEmulator
    autoencoder: SpectrumAutoencoder
    history: dict[str, History]
    held_back: NDArray[np.bool_]
    latents: Single
    active: NDArray[np.bool_]
    remarks: tuple[str, ...]


def train_generator(
    spectra: Spectra,
    labels: tuple[Label, ...],
    values: ArrayLike,
    config: GeneratorConfig | None = None,
    *,
    groups: Sequence[object] | None = None,
    device: str = "cpu",
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GeneratorTraining:
    """Train a generator on prepared spectra with known labels.

    Parameters
    ----------
    spectra : n prepared spectra; ivar = 0 pixels take no part.
    labels, values : the labels and their (n, K) values in label units, all finite.
    config : the published one if None.
    groups : (n,) name of the base spectrum of each draw: draws of one are held back together.
    device : where torch computes, "cpu" or "cuda".
    checkpoints : folder in which each stage's state is kept; a training that was killed goes on from there.
    progress : called with (epochs done, epochs at most) of all stages together.

    Raises
    ------
    UsageError
        If labels are not finite or of another number than the spectra, or there are too few groups for a validation set.
    """
    from maury.emulate.generator_training import StageData, StageRun, train_stages

    config = config or GeneratorConfig()
    label_set, scaled = scaled_labels(labels, values, config.scaling, len(spectra))
    unseen = held_back(len(scaled), 1, config.validation_fraction, config.seed, groups)[0]
    good = spectra.ivar > 0
    mean, offset, scale, x = _standardised(spectra.flux, good, ~unseen, config.autoencoder.standardise)
    data = StageData(x, None if good.all() else good, scaled, unseen)
    stages = train_stages(data, config, StageRun(device, checkpoints, progress))
    wavelength = np.array(spectra.wavelength)
    autoencoder = SpectrumAutoencoder(wavelength, stages.encoder, stages.decoder, config.activation, mean, offset, scale)
    emulator = _emulator(stages.joined, label_set, autoencoder)
    if config.components:
        emulator = _confined(emulator, spectra[_some(~unseen)], config.components)
    covariance = _covariance(emulator, spectra, np.asarray(values, dtype=float), unseen)
    return _finished(_shortened(emulator.with_covariance(covariance)), autoencoder, stages, unseen)


def generate_flux(emulator: PayneEmulator, values: ArrayLike, workers: int = 1) -> Single:
    """Many spectra fast: :meth:`~maury.emulate.payne.PayneEmulator.predict_flux` in float32 throughout.

    Parameters
    ----------
    values : (n, K) label units.
    workers : cores that work at the same time.

    Returns
    -------
    (n, n_pixels) float32; within some 1e-6 of the double-precision flux.
    """
    scaled = emulator.labels.scale(np.atleast_2d(np.asarray(values, dtype=float)))
    network, coefficients = emulator.single, emulator.coefficients.astype(np.float32)
    out = np.empty((len(scaled), coefficients.shape[1]), dtype=np.float32)

    def fill(first: int) -> None:
        rows = slice(first, first + _GENERATED)
        np.matmul(network.terms(scaled[rows]), coefficients, out=out[rows])

    list(in_threads(fill, range(0, len(scaled), _GENERATED), workers))
    return out


# -- parts -------------------------------------------------------------------------------------------------------


def _standardised(
    flux: NDArray[np.floating], good: NDArray[np.bool_], train: NDArray[np.bool_], standardise: bool
) -> tuple[Single, Single, float, Single]:
    """Mean of the training spectra, offset, scale, and the flux as the network sees it."""
    used = good & train[:, None]
    total = np.asarray(np.sum(flux, axis=0, where=used, dtype=np.float64))
    mean = (total / np.maximum(used.sum(axis=0), 1)).astype(np.float32)
    if not standardise:
        offset = np.zeros_like(mean)
        return mean, offset, 1.0, _prepared(flux, good, mean, offset, 1.0)
    x = _prepared(flux, good, mean, mean, 1.0)
    scale = float(np.sqrt(np.sum(np.square(x), where=used, dtype=np.float64) / max(int(used.sum()), 1)))
    if not scale > 0:
        raise UsageError("expected training spectra that differ, got the same one for all labels; check the flux")
    x /= np.float32(scale)
    return mean, mean, scale, x


def _prepared(flux: NDArray[np.floating], good: NDArray[np.bool_], mean: Single, offset: Single, scale: float) -> Single:
    """(n, n_pixels) what the network sees: masked pixels as in the mean spectrum, offset and scale removed."""
    x = np.where(good, flux, mean).astype(np.float32)
    x -= offset
    x /= np.float32(scale)
    return x


def _through(layers: Layers, x: Single, activation: str, *, linear_end: bool) -> Single:
    """(n, inputs) -> (n, outputs) in float32."""
    act = ACTIVATIONS[activation]
    out: NDArray[Any] = x
    for i, (weight, bias) in enumerate(layers):
        out = out @ weight[0] + bias[0]
        out = out if linear_end and i == len(layers) - 1 else act(out)[0]  # of the same precision
    return np.asarray(out, dtype=np.float32)


def _emulator(joined: Layers, labels: LabelSet, autoencoder: SpectrumAutoencoder) -> PayneEmulator:
    """The joined network, its last weights as basis."""
    *layers, (weight, bias) = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in joined]
    width = weight.shape[1]
    layers.append((np.eye(width)[None], np.zeros((1, width))))
    mean, basis = autoencoder.offset + autoencoder.scale * bias[0], autoencoder.scale * weight[0]
    unknown = ModelCovariance(np.zeros(len(bias)))
    return PayneEmulator(labels, autoencoder.wavelength, tuple(layers), autoencoder.activation, mean, basis, unknown)


def _some(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of the chosen spectra, of at most 5000 spread over them."""
    rows = np.flatnonzero(chosen)
    return rows[:: -(-len(rows) // _ENOUGH)]


def _confined(emulator: PayneEmulator, spectra: Spectra, components: int) -> PayneEmulator:
    """The emulator with its spectra projected onto the space of principal components of training spectra."""
    flux = np.asarray(spectra.flux, dtype=np.float64)
    n = min(components, min(flux.shape) - 1)
    centre, vectors, _ = principal_components(flux, spectra.ivar > 0, np.ones(len(flux)), n)
    (weight, bias), inner = emulator.layers[-1], emulator.basis @ vectors.T
    last = (weight @ inner, bias @ inner + (emulator.mean - centre) @ vectors.T)
    return replace(emulator, layers=(*emulator.layers[:-1], last), mean=centre, basis=vectors)


def _shortened(emulator: PayneEmulator) -> PayneEmulator:
    """The basis vectors that its spectra need: a decoder keeps something of its first weights in hundreds of directions."""
    covariance = emulator.model_covariance
    own = float(np.sqrt(covariance.diagonal[covariance.known].mean())) if covariance.known.any() else 0.0
    return emulator.compressed(max(1e-5, _SHORTER * own))


def _covariance(emulator: PayneEmulator, spectra: Spectra, values: FloatArray, held_back: NDArray[np.bool_]) -> ModelCovariance:
    """Variance per pixel of held-out residuals less the noise; infinite where fewer than half of the spectra have the pixel."""
    rows = _some(held_back)
    residuals = np.where(spectra.ivar[rows] > 0, spectra.flux[rows] - emulator.predict_flux(values[rows]), 0.0)
    own = low_rank_covariance(residuals, spectra.ivar[rows], 0)
    return ModelCovariance(np.where(covered(spectra), own.diagonal, np.inf))


def _finished(
    emulator: PayneEmulator, autoencoder: SpectrumAutoencoder, stages: Stages, held_back: NDArray[np.bool_]
) -> GeneratorTraining:
    spread = stages.latents[~held_back].std(axis=0, dtype=np.float64)
    active = spread > _DEAD * spread.max()
    remarks = []
    if not active.all():
        dead = ", ".join(map(str, np.flatnonzero(~active)))
        remarks.append(
            f"{np.count_nonzero(~active)} of {len(active)} latent units are dead ({dead}): the same for every spectrum; "
            "take leaky_relu or silu, or another seed, if the reconstruction is poor"
        )
    if stages.tuned is False:
        remarks.append("fine tuning did not lower the validation error and was undone; lower its learning rate")
    history = {n: h if n == "label_network" else _in_flux_units(h, autoencoder.scale) for n, h in stages.history.items()}
    return GeneratorTraining(emulator, autoencoder, history, held_back, stages.latents, active, tuple(remarks))


def _in_flux_units(history: History, scale: float) -> History:
    """Mean squared errors of standardised flux in units of the flux squared."""
    return replace(history, training=history.training * scale**2, validation=history.validation * scale**2)
