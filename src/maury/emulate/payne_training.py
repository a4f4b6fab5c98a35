"""Training The Payne (needs torch): presets, folds as validation sets, principal components or pixels.

The published recipe (METHODS 0.6) trains one network on all pixels with a tenth of the stars held back. Ours (``maury``)
differs where it pays: the network learns principal-component scores (some 40 numbers instead of thousands of pixels; the
basis is the last layer's), activations are smooth (kinks stall fits), and the network is an ensemble whose members each hold
back another fold: every star is held back by one member, so early stopping costs no training star, and the residuals of
unseen stars, from which the model's covariance is learned, come for free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from maury.emulate.cannon import covered
from maury.emulate.components import principal_components
from maury.emulate.covariance import low_rank_covariance
from maury.emulate.payne import PayneEmulator
from maury.emulate.payne_config import PayneConfig
from maury.errors import UsageError
from maury.labels import Label, LabelSet
from maury.networks.mlp import StackedMlp
from maury.protocols import ModelCovariance
from maury.spectra import Spectra
from maury.train.loop import History, checkpoint_in, train_network
from maury.train.scaling import scaled_labels
from maury.train.splits import held_back

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PayneTraining:
    """What training gives.

    Parameters
    ----------
    emulator : with the variance of held-out residuals, less that of the noise, as diagonal covariance.
    residuals : (n, n_pixels) flux minus the prediction of a member that did not see the star; 0 where masked. Rows of stars that
        every member saw (one member, its training stars) are NaN.
    history : losses by epoch.
    held_back : (E, n) which stars each member did not train on.
    """

    emulator: PayneEmulator
    residuals: FloatArray
    history: History
    held_back: NDArray[np.bool_]


def train_payne(
    spectra: Spectra,
    labels: tuple[Label, ...],
    values: ArrayLike,
    config: PayneConfig | None = None,
    *,
    star_weights: ArrayLike | None = None,
    groups: tuple[str, ...] | None = None,
    device: str = "cpu",
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PayneTraining:
    """Train The Payne on prepared spectra of stars with known labels.

    Parameters
    ----------
    spectra : n prepared spectra; ivar = 0 pixels take no part.
    labels, values : the labels and their (n, K) values in label units, all finite.
    star_weights : (n,) factors >= 0 on each star's loss.
    groups : (n,) star names: spectra of one star are held back together.
    device : where torch computes, "cpu" or "cuda".
    checkpoints : folder in which the training's state is kept; one that was killed goes on from there.
    progress : called with (epochs done, epochs at most).

    Raises
    ------
    UsageError
        If labels or weights are not finite, or there are too few stars for the components, the members or the validation set.
    """
    config = config or PayneConfig()
    label_set, scaled = scaled_labels(labels, values, config.scaling, len(spectra))
    weights = np.ones(len(scaled)) if star_weights is None else np.asarray(star_weights, dtype=float)
    unseen = held_back(len(scaled), config.members, config.validation_fraction, config.loop.seed, groups)
    _check_weights(weights, unseen)
    target = _Target.of(spectra, weights, config)
    sizes = (len(labels), *config.hidden, target.scores.shape[1])
    network = StackedMlp(len(unseen), sizes, config.activation, torch.Generator().manual_seed(config.loop.seed)).to(device)
    objective = _Objective(config, scaled, target, weights, unseen, device)
    checkpoint = checkpoint_in(checkpoints, network, {"config": asdict(config)}, objective.arrays)
    history = train_network(
        network, objective.loss, objective.validate, len(scaled), config.loop, checkpoint=checkpoint, progress=progress
    )
    emulator = _emulator(network, target, label_set, np.array(spectra.wavelength), config)
    residuals = _held_out_residuals(emulator, spectra, scaled, unseen)
    rows = unseen.any(axis=0) & (weights > 0)
    own = low_rank_covariance(residuals[rows], spectra.ivar[rows], 0, star_weights=weights[rows])
    covariance = ModelCovariance(np.where(covered(spectra), own.diagonal, np.inf))
    return PayneTraining(emulator.with_covariance(covariance), residuals, history, unseen)


def _check_weights(weights: FloatArray, held_back: NDArray[np.bool_]) -> None:
    """Raise UsageError unless every member has stars to train on and stars to hold back."""
    n = held_back.shape[1]
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise UsageError(f"expected {n} finite star weights >= 0, got shape {weights.shape} or other values; correct them")
    if not ((held_back @ weights > 0).all() and (~held_back @ weights > 0).all()):
        raise UsageError("expected stars of weight > 0 to train on and to hold back for every network, got none; add stars")


@dataclass(frozen=True, eq=False)
class _Target:
    """What the network's outputs are compared with: flux = mean + (outputs * unit) @ basis, or pixels (basis None).

    ``share`` (sum 1) says how much each output's error counts, ``knee`` is the standard deviation of an output over the stars.
    """

    mean: FloatArray
    basis: FloatArray | None
    unit: FloatArray
    scores: FloatArray
    share: FloatArray
    good: NDArray[np.bool_] | None
    knee: float

    @classmethod
    def of(cls, spectra: Spectra, weights: FloatArray, config: PayneConfig) -> _Target:
        flux, good = np.asarray(spectra.flux, dtype=np.float64), spectra.ivar > 0
        if config.components == 0:
            n_pixels = flux.shape[1]
            pixels, one = np.where(good, flux, 0.0), np.ones(n_pixels)
            offset = np.where(good, flux - pixels.sum(axis=0) / np.maximum(good.sum(axis=0), 1), 0.0)
            knee = float(np.sqrt((offset**2).sum() / max(good.sum(), 1)))
            return cls(np.zeros(n_pixels), None, one, pixels, one / n_pixels, None if good.all() else good, knee)
        mean, basis, scores = principal_components(flux, good, weights, config.components)
        unit = np.sqrt((weights @ scores**2) / weights.sum())
        unit = np.where(unit > 0, unit, 1.0)  # fewer different spectra than components
        share = (unit / unit.max()) ** (2.0 * config.power)
        return cls(mean, basis, unit, scores / unit, share / share.sum(), None, 1.0)


class _Objective:
    """Losses of the members as functions of the network alone; the tensors lie on the device."""

    def __init__(
        self,
        config: PayneConfig,
        scaled: FloatArray,
        target: _Target,
        weights: FloatArray,
        held_back: NDArray[np.bool_],
        device: str,
    ) -> None:
        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.as_tensor(array, dtype=torch.float32, device=device)

        self.kind, self.knee = config.loss, target.knee
        self.x, self.y, self.share = tensor(scaled), tensor(target.scores), tensor(target.share)
        self.good = None if target.good is None else tensor(target.good)
        self.train_weight = tensor(np.where(held_back, 0.0, weights))
        self.held_weight = tensor(np.where(held_back, weights, 0.0))
        self.arrays = {"x": scaled, "y": target.scores, "weights": weights, "held_back": held_back, "share": target.share}
        self.arrays |= {} if target.good is None else {"good": target.good}

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        return self._mean(network, index, self.train_weight)

    def validate(self, network: nn.Module) -> Tensor:
        return self._mean(network, torch.arange(len(self.x), device=self.x.device), self.held_weight)

    def _mean(self, network: nn.Module, index: Tensor, star_weight: Tensor) -> Tensor:
        """(E,) weighted mean loss over the stars of ``index``."""
        whole = len(index) == len(self.x)
        x, y = (self.x, self.y) if whole else (self.x[index], self.y[index])
        weight = star_weight if whole else star_weight[:, index]
        difference = network(x) - y
        if self.kind == "mse":
            error = difference.square()
        elif self.kind == "l1":
            error = difference.abs()
        else:
            error = nn.functional.huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=self.knee)
        if self.good is None:
            per_star = error @ self.share
        else:
            good = self.good if whole else self.good[index]
            per_star = (error * good).sum(dim=2) / good.sum(dim=1).clamp(min=1.0)
        return torch.div((per_star * weight).sum(dim=1), weight.sum(dim=1).clamp(min=1e-12))


def _emulator(
    network: StackedMlp, target: _Target, labels: LabelSet, wavelength: FloatArray, config: PayneConfig
) -> PayneEmulator:
    layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in network.numpy_layers()]
    weight, bias = layers.pop()
    unknown = ModelCovariance(np.zeros(len(wavelength)))
    if target.basis is not None:
        layers.append((weight * target.unit, bias * target.unit))
        return PayneEmulator(labels, wavelength, tuple(layers), config.activation, target.mean, target.basis, unknown)
    # pixels: the members' mean bias is the mean; an exact singular value decomposition splits the last layer's weights, with what
    # each member's bias differs by as one more row
    mean = bias.mean(axis=0)
    n_members, width, n_pixels = weight.shape
    rows = np.concatenate([weight, (bias - mean)[:, None]], axis=1).reshape(n_members * (width + 1), n_pixels)
    left, size, right = np.linalg.svd(rows if n_members > 1 else weight[0], full_matrices=False)
    outer = (left * size).reshape(n_members, -1, len(size))
    layers.append((outer[:, :width], outer[:, width] if n_members > 1 else np.zeros((1, len(size)))))
    return PayneEmulator(labels, wavelength, tuple(layers), config.activation, mean, right, unknown).compressed()


def _held_out_residuals(
    emulator: PayneEmulator, spectra: Spectra, scaled: FloatArray, held_back: NDArray[np.bool_]
) -> FloatArray:
    residuals = np.full(spectra.flux.shape, np.nan)
    for member, stars in enumerate(held_back):
        residuals[stars] = spectra.flux[stars] - emulator.member(member).terms(scaled[stars]) @ emulator.coefficients
    return np.where(spectra.ivar > 0, residuals, np.where(np.isnan(residuals), np.nan, 0.0))
