"""Spectra from labels by an autoencoder (Gebran 2024; METHODS 3): flux = decoder(label network(labels)).

An autoencoder learns to squeeze spectra into a few latent numbers, a second network learns those from the labels, and the first
one's decoder turns them back into spectra. Joined, the two are one deep perceptron with a linear last layer; that is what
:class:`~maury.emulate.payne.PayneEmulator` holds, so the generator *is* one, and fits, files and covariances are those of The
Payne. Training needs torch (:mod:`maury.emulate.generator_training`, imported when it is called), use does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.emulate.activations import ACTIVATIONS
from maury.emulate.cannon import covered
from maury.emulate.covariance import low_rank_covariance
from maury.emulate.generator_config import PRESETS, GeneratorConfig
from maury.emulate.payne import Layer, PayneEmulator
from maury.errors import UsageError
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance
from maury.spectra import Spectra
from maury.train.splits import k_folds

if TYPE_CHECKING:
    from maury.emulate.generator_training import Stages
    from maury.train.loop import History

FloatArray = NDArray[np.float64]
Single = NDArray[np.float32]
Layers = tuple[Layer, ...]

_ROWS = 4096  # spectra per pass: bounds memory
_COVARIANCE_SPECTRA = 5000  # held-out spectra whose residuals make the model's variance: more of them change nothing
_DEAD = 1e-6  # standard deviation of a dead latent unit, in that of the liveliest


@dataclass(frozen=True, eq=False)
class SpectrumAutoencoder:
    """A trained autoencoder: spectra to latent numbers and back.

    Parameters
    ----------
    wavelength : (n_pixels,) Å.
    encoder, decoder : (weights (n_in, n_out), bias (n_out,)) of each layer; the decoder's last one is linear.
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

    @property
    def n_active(self) -> int:
        return int(self.active.sum())

    @property
    def dead(self) -> tuple[int, ...]:
        """Numbers of the latent units that are the same for every training spectrum."""
        return tuple(np.flatnonzero(~self.active).tolist())


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
    config : ``PRESETS["gebran2024"]`` if None.
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

    config = config or PRESETS["gebran2024"]
    label_set = LabelSet.from_training(labels, values)
    label_set = label_set.scaled_to_range() if config.scaling == "range" else label_set
    scaled = label_set.scale(values)
    if len(scaled) != len(spectra):
        raise UsageError(f"expected labels for {len(spectra)} spectra, got {len(scaled)} rows; join them first")
    held_back = _held_back(len(scaled), config, groups)
    good = spectra.ivar > 0
    mean, offset, scale, x = _standardised(spectra.flux, good, ~held_back, config.autoencoder.standardise)
    data = StageData(x, None if good.all() else good, scaled, held_back)
    stages = train_stages(data, config, StageRun(device, checkpoints, progress))
    wavelength = np.array(spectra.wavelength)
    autoencoder = SpectrumAutoencoder(wavelength, stages.encoder, stages.decoder, config.activation, mean, offset, scale)
    emulator = _emulator(stages.joined, label_set, autoencoder)
    covariance = _covariance(emulator, spectra, np.asarray(values, dtype=float), held_back)
    return _finished(emulator.with_covariance(covariance), autoencoder, stages, held_back)


def generate_flux(emulator: PayneEmulator, values: ArrayLike) -> Single:
    """Many spectra fast: :meth:`~maury.emulate.payne.PayneEmulator.predict_flux` in float32 throughout.

    Parameters
    ----------
    values : (n, K) label units.

    Returns
    -------
    (n, n_pixels) float32; within some 1e-6 of the double-precision flux.
    """
    scaled = emulator.labels.scale(np.atleast_2d(np.asarray(values, dtype=float)))
    basis, mean = emulator.basis.astype(np.float32), emulator.mean.astype(np.float32)
    out = np.empty((len(scaled), len(mean)), dtype=np.float32)
    for i in range(0, len(scaled), _ROWS):
        part = out[i : i + _ROWS]
        np.matmul(emulator.single.terms(scaled[i : i + _ROWS])[:, 1:].astype(np.float32, copy=False), basis, out=part)
        part += mean
    return out


# -- parts -------------------------------------------------------------------------------------------------------


def _held_back(n: int, config: GeneratorConfig, groups: Sequence[object] | None) -> NDArray[np.bool_]:
    """(n,) the validation set, whole groups."""
    if groups is not None and len(groups) != n:
        raise UsageError(f"expected one group for each of {n} spectra, got {len(groups)}; give one each")
    out = np.zeros(n, dtype=bool)
    out[k_folds(n, round(1.0 / config.validation_fraction), config.seed, groups)[0]] = True
    return out


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
        out = out @ weight.astype(np.float32) + bias.astype(np.float32)
        out = out if linear_end and i == len(layers) - 1 else act(out)[0]  # of the same precision
    return np.asarray(out, dtype=np.float32)


def _emulator(joined: Layers, labels: LabelSet, autoencoder: SpectrumAutoencoder) -> PayneEmulator:
    """The joined network, its last weights as basis, shortened to the vectors that its spectra need."""
    *hidden, (weight, bias) = ((weight, bias) for weight, bias in joined)
    layers = [(w[None], b[None]) for w, b in hidden]
    layers.append((np.eye(len(weight))[None], np.zeros((1, len(weight)))))
    mean, basis = autoencoder.offset + autoencoder.scale * bias, autoencoder.scale * weight
    unknown = ModelCovariance(np.zeros(len(bias)))
    return PayneEmulator(labels, autoencoder.wavelength, tuple(layers), autoencoder.activation, mean, basis, unknown).compressed()


def _covariance(emulator: PayneEmulator, spectra: Spectra, values: FloatArray, held_back: NDArray[np.bool_]) -> ModelCovariance:
    """Variance per pixel of held-out residuals less the noise; infinite where fewer than half of the spectra have the pixel."""
    rows = np.flatnonzero(held_back)
    rows = rows[:: -(-len(rows) // _COVARIANCE_SPECTRA)]
    residuals = np.where(spectra.ivar[rows] > 0, spectra.flux[rows] - emulator.predict_flux(values[rows]), 0.0)
    own = low_rank_covariance(residuals, spectra.ivar[rows], 0)
    return ModelCovariance(np.where(covered(spectra), own.diagonal, np.inf))


def _finished(
    emulator: PayneEmulator, autoencoder: SpectrumAutoencoder, stages: Stages, held_back: NDArray[np.bool_]
) -> GeneratorTraining:
    from maury.emulate.generator_training import in_flux_units

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
    history = {n: h if n == "label_network" else in_flux_units(h, autoencoder.scale) for n, h in stages.history.items()}
    return GeneratorTraining(emulator, autoencoder, history, held_back, stages.latents, active, tuple(remarks))
