"""The three stages of a generator's training (needs torch): autoencoder, label network, and both joined end to end.

All three are the same regression, inputs -> targets in the least mean squared sense, on the one training loop; they differ in the
network, in what goes in and in what comes out. :mod:`maury.emulate.generator` prepares the arrays and keeps what comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maury.emulate.generator_config import GeneratorConfig
from maury.networks.autoencoder import Autoencoder
from maury.networks.mlp import StackedMlp
from maury.train.config import LoopConfig
from maury.train.loop import History, checkpoint_in, train_network

FloatArray = NDArray[np.float64]
Single = NDArray[np.float32]
Layers = tuple[tuple[Single, Single], ...]

_ROWS = 2048  # spectra per pass where no gradient is needed: bounds the memory of the hidden layers


@dataclass(frozen=True, eq=False)
class StageData:
    """What the stages learn from: ``x`` (n, n_pixels) flux as trained on, ``good`` its usable pixels (None: all), ``scaled``
    (n, K) labels, ``held_back`` (n,) spectra of the validation set."""

    x: Single
    good: NDArray[np.bool_] | None
    scaled: FloatArray
    held_back: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Stages:
    """What they give: layers (weights (1, n_in, n_out), bias (1, n_out)) of encoder, decoder and joined network, latent numbers
    (n, latent), history by stage, and whether fine tuning helped (None: there was none)."""

    encoder: Layers
    decoder: Layers
    joined: Layers
    latents: Single
    history: dict[str, History]
    tuned: bool | None


@dataclass(frozen=True)
class StageRun:
    """Where the stages compute, where they keep their state, and whom they tell."""

    device: str
    checkpoints: Path | None
    progress: Callable[[int, int], None] | None


def train_stages(data: StageData, config: GeneratorConfig, run: StageRun) -> Stages:
    """Train autoencoder, label network and, if asked for, the joined network."""
    total = _epochs(config)
    autoencoder = Autoencoder(
        data.x.shape[1],
        config.autoencoder.hidden,
        config.autoencoder.latent,
        config.activation,
        torch.Generator().manual_seed(config.seed),
        initial=config.initial,
    ).to(run.device)
    loop = config.autoencoder.loop
    history = {"autoencoder": _Regression(data.x, data.x, data.good, data.held_back).fit(autoencoder, loop, run, 0, total)}
    latents = _in_parts(autoencoder.encode, data.x, run.device)
    targets = latents if config.activation == "relu" else _in_parts(autoencoder.before_activation, data.x, run.device)
    labels, history["label_network"] = _label_network(data, targets, config, run)
    joined = _joined(labels, autoencoder)
    tuned = None
    if config.fine_tune is not None:
        task = _Regression(data.scaled, data.x, data.good, data.held_back)
        tuned, joined, history["fine_tune"] = _fine_tuned(task, joined, config.fine_tune, run, total)
    layers, split = autoencoder.numpy_layers(), autoencoder.n_encoder_layers
    return Stages(layers[:split], layers[split:], joined.numpy_layers(), latents, history, tuned)


def _epochs(config: GeneratorConfig) -> int:
    tuning = 0 if config.fine_tune is None else config.fine_tune.max_epochs
    return config.autoencoder.loop.max_epochs + config.label_network.loop.max_epochs + tuning


def _label_network(data: StageData, targets: Single, config: GeneratorConfig, run: StageRun) -> tuple[StackedMlp, History]:
    """Labels -> ``targets``: the latent numbers where those cannot be negative and the activation only clips them (ReLU), else
    what the activation turns into the latent numbers."""
    settings = config.label_network
    spread = targets[~data.held_back].std(axis=0)
    unit = np.where(spread > 0, spread, 1.0) if settings.standardise else np.ones(len(spread))
    network = StackedMlp(
        1,
        (data.scaled.shape[1], *settings.hidden, targets.shape[1]),
        config.activation,
        torch.Generator().manual_seed(config.seed + 1),
        dropout=settings.dropout,
        n_dropped=settings.dropped_layers,
        initial=config.initial,
    ).to(run.device)
    task = _Regression(data.scaled, targets / unit, None, data.held_back)
    done = config.autoencoder.loop.max_epochs
    history = task.fit(network, settings.loop, run, done, _epochs(config))
    with torch.no_grad():
        scale = torch.as_tensor(unit, dtype=torch.float32, device=run.device)
        network.weights[-1].mul_(scale)
        network.biases[-1].mul_(scale)
    return network, history


def _joined(labels: StackedMlp, autoencoder: Autoencoder) -> StackedMlp:
    """Label network and decoder as one perceptron: its activation on the latent numbers is the clip that METHODS 3 chooses."""
    weights = [*labels.weights, *autoencoder.weights[autoencoder.n_encoder_layers :]]
    biases = [*labels.biases, *autoencoder.biases[autoencoder.n_encoder_layers :]]
    sizes = [*(weight.shape[1] for weight in weights), weights[-1].shape[2]]
    out = StackedMlp(1, sizes, autoencoder.activation, torch.Generator().manual_seed(0)).to(weights[0].device)
    with torch.no_grad():
        for mine, given in zip([*out.weights, *out.biases], [*weights, *biases], strict=True):
            mine.copy_(given)
    return out


def _fine_tuned(
    task: _Regression, start: StackedMlp, loop: LoopConfig, run: StageRun, total: int
) -> tuple[bool, StackedMlp, History]:
    """Whether it helped, the better one of before and after, and what happened."""
    with torch.no_grad():
        task.to(run.device)
        before = float(task.validate(start))
    kept = {name: value.clone() for name, value in start.state_dict().items()}
    history = task.fit(start, loop, run, total - loop.max_epochs, total)
    helped = float(history.validation.min()) < before
    if not helped:
        start.load_state_dict(kept)
    return helped, start, history


class _Regression:
    """Mean squared error of ``network(inputs)`` against ``targets`` over their usable numbers, spectra alike."""

    def __init__(
        self, inputs: NDArray[Any], targets: NDArray[Any], good: NDArray[np.bool_] | None, held_back: NDArray[np.bool_]
    ) -> None:
        single = {"inputs": inputs, "targets": targets}
        self._arrays: dict[str, NDArray[Any]] = {name: np.asarray(array, dtype=np.float32) for name, array in single.items()}
        self._arrays |= {"train": np.flatnonzero(~held_back), "held": np.flatnonzero(held_back)}
        self._arrays |= {} if good is None else {"good": good}

    def to(self, device: str) -> None:
        """Put the arrays there; inputs that are the targets are put there once."""
        on = {name: torch.as_tensor(array, device=device) for name, array in self._arrays.items() if name != "inputs"}
        self.targets, self.train, self.held, self.good = on["targets"], on["train"], on["held"], on.get("good")
        same = self._arrays["inputs"] is self._arrays["targets"]
        self.inputs = self.targets if same else torch.as_tensor(self._arrays["inputs"], device=device)

    def fit(self, network: StackedMlp, loop: LoopConfig, run: StageRun, done: int, total: int) -> History:
        """Train the network; epochs are counted from ``done`` of ``total``."""
        tell = run.progress
        self.to(run.device)
        settings: dict[str, Any] = {"loop": asdict(loop), "activation": network.activation}
        settings |= {"dropout": network.dropout, "n_dropped": network.n_dropped}
        return train_network(
            network,
            self.loss,
            self.validate,
            len(self.train),
            loop,
            checkpoint=checkpoint_in(run.checkpoints, network, settings, self._arrays),
            progress=None if tell is None else lambda epoch, _: tell(done + epoch, total),
        )

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        return self._errors(network, self.train[index]).mean().reshape(1)

    def validate(self, network: nn.Module) -> Tensor:
        sums = [self._errors(network, rows).double().sum() for rows in torch.split(self.held, _ROWS)]
        return (torch.stack(sums).sum() / len(self.held)).reshape(1)

    def _errors(self, network: nn.Module, rows: Tensor) -> Tensor:
        """(n,) mean squared error of each spectrum."""
        squares: Tensor = (network(self.inputs[rows])[0] - self.targets[rows]).square()
        if self.good is None:
            return squares.mean(dim=1)
        good = self.good[rows]
        return torch.where(good, squares, 0.0).sum(dim=1) / good.sum(dim=1).clamp(min=1)


def _in_parts(function: Callable[[Tensor], Tensor], x: Single, device: str) -> Single:
    """(n, latent) of a network's function, some spectra at a time."""
    with torch.no_grad():
        parts = [function(torch.as_tensor(x[i : i + _ROWS], device=device))[0].cpu() for i in range(0, len(x), _ROWS)]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)
