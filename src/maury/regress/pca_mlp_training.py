"""Training the PCA + network inversion (needs torch): components, folds as validation sets, noise, errors from held-out spectra.

The published recipe (Gebran 2024; METHODS 3) holds a fifth of the spectra back. Ours (``maury``) differs where it pays: more
components, smooth activations, small networks, and members that each hold back another fold, so that every spectrum has a
residual of a network that never saw it. Draws of one spectrum belong into one group: else they leak.
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

from maury.labels import Label
from maury.networks.mlp import StackedMlp
from maury.regress.pca_mlp import PcaMlpInferrer
from maury.regress.pca_mlp_config import PcaMlpConfig
from maury.regress.residuals import noise_factors, residual_covariance
from maury.regress.scores import Scores, ScoreSpace
from maury.spectra import Spectra
from maury.train.loop import History, checkpoint_in, train_network
from maury.train.scaling import scaled_labels
from maury.train.splits import held_back

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PcaMlpTraining:
    """What training gives.

    Parameters
    ----------
    inferrer : with errors from the held-out residuals.
    history : losses by epoch; networks in the order of the inferrer's layers.
    residuals : (n, K) labels, in their units, of members that did not see the star minus the true ones; NaN for spectra that
        every member saw. Epochs were chosen on these spectra: judge a model on others.
    held_back : (members, n) which spectra each member did not train on.
    """

    inferrer: PcaMlpInferrer
    history: History
    residuals: FloatArray
    held_back: NDArray[np.bool_]


def train_pca_mlp(
    spectra: Spectra,
    labels: tuple[Label, ...],
    values: ArrayLike,
    config: PcaMlpConfig | None = None,
    *,
    groups: tuple[str, ...] | None = None,
    device: str = "cpu",
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PcaMlpTraining:
    """Train an inversion on prepared spectra of stars with known labels.

    Parameters
    ----------
    spectra : n prepared spectra; ivar = 0 pixels take no part, and ivar is taken at its word.
    labels, values : the labels and their (n, K) values in label units, all finite.
    groups : (n,) names: spectra of one name (draws of one model spectrum, visits of one star) are held back together.
    device : where torch computes, "cpu" or "cuda".
    checkpoints : folder in which the training's state is kept; one that was killed goes on from there.
    progress : called with (epochs done, epochs at most).

    Raises
    ------
    UsageError
        If labels are not finite, or there are too few spectra for the components, the members or the validation set.
    """
    config = config or PcaMlpConfig()
    label_set, scaled = scaled_labels(labels, values, config.scaling, len(spectra))
    unseen = held_back(len(scaled), config.members, config.validation_fraction, config.loop.seed, groups)
    space = ScoreSpace.of(spectra, config.components)
    found = space.project(spectra)
    network = _network(len(labels), config).to(device)
    objective = _Objective(config, space, found.values, scaled, unseen, device)
    checkpoint = checkpoint_in(checkpoints, network, {"config": asdict(config)}, objective.arrays)
    history = train_network(
        network, objective.loss, objective.validate, len(scaled), config.loop, checkpoint=checkpoint, progress=progress
    )
    k, layers = len(labels), network.numpy_layers()
    bare = PcaMlpInferrer(label_set, space, layers, config.activation, np.zeros((k, k)), np.ones(k), config.min_pixels)
    return _with_errors(bare, found, scaled, history, unseen, config)


def _with_errors(
    bare: PcaMlpInferrer, found: Scores, scaled: FloatArray, history: History, held_back: NDArray[np.bool_], config: PcaMlpConfig
) -> PcaMlpTraining:
    inferrer = residual_covariance(bare, found, scaled, held_back)
    inferrer = noise_factors(inferrer, found, scaled, held_back, config.snr, config.loop.seed)
    residuals = np.full(scaled.shape, np.nan)
    truth = bare.labels.unscale(scaled)
    for member, rows in enumerate(held_back):
        inputs = found.values[rows] / bare.space.spread
        residuals[rows] = bare.labels.unscale(bare.member(member).scaled_labels(inputs)[0]) - truth[rows]
    return PcaMlpTraining(inferrer, history, residuals, held_back)


def _network(n_labels: int, config: PcaMlpConfig) -> StackedMlp:
    """Networks side by side: a member of each label, then the next member; or a joint one per member."""
    each, n_out = (1, n_labels) if config.joint else (n_labels, 1)
    sizes = (config.components, *config.hidden, n_out)
    generator = torch.Generator().manual_seed(config.loop.seed)
    return StackedMlp(config.members * each, sizes, config.activation, generator, initial=config.initial)


class _Objective:
    """Losses of the networks as functions of them alone; the tensors lie on the device."""

    def __init__(
        self,
        config: PcaMlpConfig,
        space: ScoreSpace,
        scores: FloatArray,
        scaled: FloatArray,
        held_back: NDArray[np.bool_],
        device: str,
    ) -> None:
        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)

        n_each = 1 if config.joint else scaled.shape[1]
        target = scaled[None] if config.joint else np.tile(scaled.T[:, :, None], (config.members, 1, 1))
        self.x, self.y = tensor(scores / space.spread), tensor(target)
        self.held = tensor(np.repeat(held_back, n_each, axis=0))
        self.spread, self.rest, self.snr = tensor(space.spread), space.mean_rest, config.snr
        generator = torch.Generator().manual_seed(config.loop.seed + 1)  # the held-back spectra keep their noise
        self.x_held = self._noisy(self.x, generator)
        self.arrays = {"scores": scores, "scaled": scaled, "held_back": held_back, "spread": space.spread}

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        return self._mean(network, self._noisy(self.x[index]), self.y[:, index], 1.0 - self.held[:, index])

    def validate(self, network: nn.Module) -> Tensor:
        return self._mean(network, self.x_held, self.y, self.held)

    def _noisy(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Inputs of the spectra with white noise of a random S/N (Gebran+2022), and as the prior then pulls them.

        The basis is orthonormal, so noise sigma in every pixel is noise sigma in every score: no pixel is touched. Without a
        generator it is drawn from torch's own, which the loop has seeded and keeps in the checkpoint.
        """
        if self.snr is None:
            return x
        low, high = np.log(self.snr)
        device = "cpu" if generator is not None else x.device
        even = torch.rand((len(x), 1), generator=generator, device=device).to(x.device)
        noise = torch.randn(x.shape, generator=generator, device=device).to(x.device)
        sigma = torch.exp(-(low + (high - low) * even)) / self.spread
        return (x + sigma * noise) / (1.0 + sigma.square() + self.rest / self.spread.square())

    @staticmethod
    def _mean(network: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """(E,) mean square error over the spectra of weight 1."""
        per_star = (network(x) - y).square().mean(dim=2)
        return torch.div((per_star * weight).sum(dim=1), weight.sum(dim=1).clamp(min=1e-12))
