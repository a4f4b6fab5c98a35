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

from maury import __version__
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
from maury.train.checkpoint import Checkpoint, fingerprint_of
from maury.train.loop import History, train_network
from maury.train.splits import k_folds

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
    label_set = LabelSet.from_training(labels, values)
    label_set = label_set.scaled_to_range() if config.scaling == "range" else label_set
    scaled = label_set.scale(values)
    if len(scaled) != len(spectra):
        raise UsageError(f"expected labels for {len(spectra)} spectra, got {len(scaled)} rows; join them first")
    weights = np.ones(len(scaled)) if star_weights is None else np.asarray(star_weights, dtype=float)
    held_back = _held_back(len(scaled), config, groups)
    _check_weights(weights, held_back)
    target = _Target.of(spectra, weights, config)
    sizes = (len(labels), *config.hidden, target.scores.shape[1])
    network = StackedMlp(len(held_back), sizes, config.activation, torch.Generator().manual_seed(config.loop.seed))
    objective = _Objective(network.to(device), config, scaled, target, weights, held_back, device)
    checkpoint = None if checkpoints is None else Checkpoint(checkpoints, objective.fingerprint(config))
    history = train_network(
        network, objective.loss, objective.validate, len(scaled), config.loop, checkpoint=checkpoint, progress=progress
    )
    emulator = _emulator(network, target, label_set, np.array(spectra.wavelength), config)
    residuals = _held_out_residuals(emulator, spectra, scaled, held_back)
    unseen = held_back.any(axis=0) & (weights > 0)
    own = low_rank_covariance(residuals[unseen], spectra.ivar[unseen], 0, star_weights=weights[unseen])
    covariance = ModelCovariance(np.where(covered(spectra), own.diagonal, np.inf))
    return PayneTraining(emulator.with_covariance(covariance), residuals, history, held_back)


def _held_back(n: int, config: PayneConfig, groups: tuple[str, ...] | None) -> NDArray[np.bool_]:
    """(E, n) which stars each member does not train on."""
    n_folds = config.members if config.members > 1 else round(1.0 / config.validation_fraction)
    n_stars = n if groups is None else len(set(groups))
    if n_stars < n_folds:
        raise UsageError(
            f"expected at least {n_folds} stars, of which each network holds back one in {n_folds}, got {n_stars}; add stars"
        )
    folds = k_folds(n, n_folds, config.loop.seed, groups)[: config.members]
    out = np.zeros((len(folds), n), dtype=bool)
    for member, fold in enumerate(folds):
        out[member, fold] = True
    return out


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
        network: StackedMlp,
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
        self._arrays = {"x": scaled, "y": target.scores, "weights": weights, "held_back": held_back, "share": target.share}
        self._arrays |= {} if target.good is None else {"good": target.good}
        self._arrays |= {f"start.{name}": p.detach().cpu().numpy() for name, p in network.named_parameters()}

    def fingerprint(self, config: PayneConfig) -> str:
        """Names this very training: data, settings, first weights, versions."""
        return fingerprint_of({"config": asdict(config), "torch": torch.__version__, "maury": __version__}, self._arrays)

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
    layers = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        layers.append((weight.detach().cpu().double().numpy(), bias.detach().cpu().double().numpy()[:, 0]))
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
