"""Training convolutional networks from spectra to labels (needs torch); Passegger 2020, METHODS 1."""

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
from maury.networks.cnn1d import StackedCnn1d
from maury.regress.cnn import CnnNetworks, Inputs
from maury.regress.cnn_config import CnnConfig
from maury.spectra import Spectra
from maury.train.loop import History, checkpoint_in, train_network
from maury.train.noise import white_noise
from maury.train.scaling import scaled_labels
from maury.train.splits import held_back

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CnnTraining:
    """What training gives.

    Parameters
    ----------
    networks : trained; ``members`` of the first label, then of the next one, or joint ones.
    history : losses by epoch, mean square errors of scaled labels; networks in the same order.
    held_back : (n,) spectra that chose the epoch. Judge networks on others.
    """

    networks: CnnNetworks
    history: History
    held_back: NDArray[np.bool_]


def train_cnn(
    spectra: Spectra,
    labels: tuple[Label, ...],
    values: ArrayLike,
    config: CnnConfig | None = None,
    *,
    groups: tuple[str, ...] | None = None,
    device: str = "cpu",
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CnnTraining:
    """Train networks on prepared spectra with known labels: mean square error of labels scaled to unit range (Sect. 3).

    Parameters
    ----------
    spectra : n prepared spectra; pixels with ivar = 0 have the training spectra's mean.
    labels, values : the labels and their (n, K) values in label units, all finite.
    groups : (n,) names: spectra of one name (draws of one model spectrum, visits of one star) are held back together.
    device : where torch computes, "cpu" or "cuda"; all networks are trained side by side.
    checkpoints : folder in which the training's state is kept; one that was killed goes on from there.
    progress : called with (epochs done, epochs at most).

    Raises
    ------
    UsageError
        If labels are not finite, there are too few spectra to hold some back, or too few pixels for the topology.
    """
    config = config or CnnConfig()
    label_set, scaled = scaled_labels(labels, values, "range", len(spectra))
    unseen = held_back(len(scaled), 1, config.validation_fraction, config.loop.seed, groups)[0]
    inputs = Inputs.of(spectra, ~unseen)
    n_each, n_out = (1, len(labels)) if config.joint else (len(labels), 1)
    generator = torch.Generator().manual_seed(config.loop.seed)
    network = StackedCnn1d(n_each * config.members, config.topology, spectra.n_pixels, n_out, generator).to(device)
    objective = _Objective(config, inputs(spectra.flux, spectra.ivar > 0), inputs.scale, scaled, unseen, device)
    checkpoint = checkpoint_in(checkpoints, network, {"config": asdict(config)}, objective.arrays)
    history = train_network(
        network, objective.loss, objective.validate, objective.n, config.loop, checkpoint=checkpoint, progress=progress
    )
    networks = CnnNetworks(label_set, inputs, config.topology, network.numpy_layers())
    return CnnTraining(networks, history, unseen)


class _Objective:
    """Losses of the networks as functions of them alone; the tensors lie on the device."""

    def __init__(
        self,
        config: CnnConfig,
        x: NDArray[np.float32],
        scale: float,
        scaled: FloatArray,
        held_back: NDArray[np.bool_],
        device: str,
    ) -> None:
        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)

        target = scaled[None] if config.joint else np.repeat(scaled.T[:, :, None], config.members, axis=0)
        self.snr, self.scale = config.snr, scale
        self.x, self.y = tensor(x[~held_back]), tensor(target[:, ~held_back])
        self.n = len(self.x)
        generator = torch.Generator().manual_seed(config.loop.seed + 1)  # the held-back spectra keep their noise
        self.x_held, self.y_held = self._noisy(tensor(x[held_back]), generator), tensor(target[:, held_back])
        self.batch = config.loop.batch_size or self.n
        self.arrays: dict[str, NDArray[Any]] = {"x": x, "scaled": scaled, "held_back": held_back}

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        return _mean_square(network, self._noisy(self.x[index]), self.y[:, index]).mean(dim=1)

    def validate(self, network: nn.Module) -> Tensor:
        batches = torch.split(torch.arange(len(self.x_held), device=self.x_held.device), self.batch)  # memory: not all at once
        parts = [_mean_square(network, self.x_held[index], self.y_held[:, index]) for index in batches]
        return torch.cat(parts, dim=1).mean(dim=1)

    def _noisy(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Inputs with white noise of a random S/N; without a generator from torch's own, which the loop has seeded and keeps."""
        return x if self.snr is None else x + white_noise(x, self.snr, self.scale, generator)


def _mean_square(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(E, n) error of each network and spectrum, over its labels."""
    found: Tensor = network(x)
    return (found - y).square().mean(dim=2)
