"""One autoencoder of a training, from first weights to regressors on its latent numbers (needs torch; METHODS 2)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maury.errors import UsageError
from maury.labels import LabelSet
from maury.networks.autoencoder import Autoencoder
from maury.networks.cnn1d import StackedCnn1d
from maury.regress.cnn import CnnNetworks, Float32, Inputs
from maury.regress.latent import Encoder, LatentNetworks, PixelScale
from maury.regress.latent_config import LatentConfig
from maury.regress.latent_stages import (
    Domain,
    Joint,
    Noise,
    Reconstruction,
    Regression,
    Together,
    latent_numbers,
    reconstruction_error,
)
from maury.train.config import LoopConfig
from maury.train.loop import History, checkpoint_in, train_network
from maury.train.population import drawn, population_weights
from maury.train.transfer import Critic, frozen

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Rows = NDArray[np.bool_]

_CRITIC = 64  # neurons


@dataclass(frozen=True)
class ReconstructionError:
    """Mean squared error of the flux that autoencoders give back, over usable pixels; means over the autoencoders.

    Parameters
    ----------
    spectra : whose; n : how many.
    before, after : the transfer; equal where there is none.
    """

    spectra: str
    n: int
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Data:
    """All that stages learn from.

    Parameters
    ----------
    scaled : (n, K) labels; unseen, unseen_heads : (n,) synthetic spectra that choose epochs of autoencoders (and of both
        together), and of regressors on a resting one.
    known : (m, K) scaled labels of observed spectra; seen : (m,) those that the transfer sees.
    residuals : (k, p) of those, and their (k,) rows, where the noise is made of them.
    """

    labels: LabelSet
    scaled: FloatArray
    unseen: Rows
    unseen_heads: Rows
    scale: PixelScale
    synthetic: Domain
    observed: Domain | None
    known: FloatArray | None
    seen: Rows | None
    residuals: tuple[Float32, IntArray] | None

    def noise(self, config: LatentConfig, device: str) -> Noise:
        """Of the synthetic spectra in training."""
        return Noise(config, self.scale, self.observed, self.residuals, device)


class Run:
    """Where a training's stages compute, where they keep their state, whom they tell, and how far they are.

    Parameters
    ----------
    total : epochs of all stages.
    """

    def __init__(self, device: str, checkpoints: Path | None, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.device, self.checkpoints, self.progress = device, checkpoints, progress
        self.done, self.total = 0, total

    def autoencoder(self, config: LatentConfig, data: Data, number: int) -> Autoencoder:
        return Autoencoder(
            data.synthetic.x.shape[1],
            config.hidden,
            config.latent,
            config.activation,
            torch.Generator().manual_seed(1000 * config.loop.seed + number),
            initial="glorot",
            output=config.output,
        ).to(self.device)

    def fit(self, network: nn.Module, task: Any, loop: LoopConfig, config: LatentConfig) -> History:
        """Train ``network`` on a stage's loss."""
        done, tell = self.done, self.progress
        history = train_network(
            network,
            task.loss,
            task.validate,
            task.n,
            loop,
            checkpoint=checkpoint_in(
                self.checkpoints, network, {"config": asdict(config), "stage": type(task).__name__}, task.arrays
            ),
            progress=None if tell is None else lambda epoch, _: tell(done + epoch, self.total),
        )
        self.done = done + loop.max_epochs
        return history


class OneAutoencoder:
    """One autoencoder: trained on synthetic spectra, carried over, with regressors."""

    def __init__(self, run: Run, config: LatentConfig, data: Data, number: int) -> None:
        self.run, self.config, self.data, self.number = run, config, data, number
        self.noise = data.noise(config, run.device)
        self.history: dict[str, History] = {}
        pretrained = run.autoencoder(config, data, number)
        task = self._reconstruction(pretrained, data.synthetic, data.unseen, self.noise)
        self.history["autoencoder"] = run.fit(pretrained, task, self._loop(config.loop), config)
        self.before, old = self._encoder(pretrained), self._errors(pretrained)
        rows, held = np.flatnonzero(~data.unseen), np.flatnonzero(data.unseen)
        if config.transfer.is_joint:
            adapted, heads, inputs = self._joint(pretrained, rows, held)
        else:
            adapted = self._reconstructed(pretrained)
            source = pretrained if config.latents == "pretrained" else adapted
            inputs = self._inputs(source, rows)
            rows, held = np.flatnonzero(~data.unseen_heads), np.flatnonzero(data.unseen_heads)
            heads = self._regressors(source, adapted, inputs, rows, held)
        self.network = LatentNetworks(self._encoder(adapted), self._heads(heads, inputs))
        new = self._errors(adapted)
        self.errors = [ReconstructionError(name, n, error, new[name][1]) for name, (n, error) in old.items()]

    # -- stages -----------------------------------------------------------------------------------------------------------

    def _reconstructed(self, pretrained: Autoencoder) -> Autoencoder:
        """The autoencoder after the published transfer, if that is wanted."""
        transfer, data = self.config.transfer, self.data
        if transfer.method != "reconstruction":
            return pretrained
        assert data.observed is not None
        assert data.seen is not None
        network = deepcopy(pretrained)
        task = self._reconstruction(network, data.observed, ~data.seen, None)
        with frozen(network, transfer.frozen):
            self.history["transfer"] = self.run.fit(network, task, self._loop(transfer.loop), self.config)
        return network

    def _regressors(
        self, source: Autoencoder, adapted: Autoencoder, inputs: Inputs, rows: IntArray, held: IntArray
    ) -> StackedCnn1d:
        """Regressors on an encoder that rests, the last of ``population`` rounds."""
        config, data = self.config, self.data
        chosen = rows
        for turn in range(config.transfer.population + 1):
            heads = self._new_heads()
            task = Regression(source, inputs, data.synthetic, data.scaled, chosen, held, self.noise, config, self.run.device)
            self.history["regressors"] = self.run.fit(heads, task, self._loop(config.head.loop), config)
            if turn < config.transfer.population:
                chosen = self._as_observed(adapted, heads, inputs, rows, turn)
        return heads

    def _joint(self, pretrained: Autoencoder, rows: IntArray, held: IntArray) -> tuple[Autoencoder, StackedCnn1d, Inputs]:
        """Encoder and regressors that learned together, in the last of ``population`` rounds."""
        config, data, transfer = self.config, self.data, self.config.transfer
        assert data.observed is not None
        assert data.seen is not None
        inputs, seen, chosen = self._inputs(pretrained, rows), np.flatnonzero(data.seen), rows
        for turn in range(transfer.population + 1):
            critic = None
            if transfer.method == "adversarial":
                critic = Critic(config.latent, _CRITIC, torch.Generator().manual_seed(self._loop(transfer.loop).seed))
            network = Together(deepcopy(pretrained), self._new_heads(), critic).to(self.run.device)
            task = Joint(
                inputs,
                data.synthetic,
                data.scaled,
                chosen,
                held,
                data.observed,
                seen,
                data.known,
                self.noise,
                config,
                self.run.device,
            )
            with frozen(network.autoencoder, transfer.frozen):
                self.history["transfer"] = self.run.fit(network, task, self._loop(transfer.loop), config)
            if turn < transfer.population:
                chosen = self._as_observed(network.autoencoder, network.heads, inputs, rows, turn)
        return network.autoencoder, network.heads, inputs

    def _as_observed(self, encoder: Autoencoder, heads: StackedCnn1d, inputs: Inputs, rows: IntArray, turn: int) -> IntArray:
        """Rows of synthetic spectra drawn like the observed ones that the transfer sees, by what was found of those."""
        data = self.data
        assert data.observed is not None
        assert data.seen is not None
        latents = latent_numbers(encoder, data.observed.x[data.seen], self.run.device)
        found = self._heads(heads, inputs).predict(latents, np.ones(latents.shape, dtype=bool)).mean(axis=1)
        weights = population_weights(data.scaled[rows], data.labels.scale(found))
        return drawn(rows, weights, self._loop(self.config.transfer.loop).seed + turn)

    # -- pieces -------------------------------------------------------------------------------------------------------------

    def _loop(self, loop: LoopConfig) -> LoopConfig:
        """Of this autoencoder: another order of batches than the others'."""
        return replace(loop, seed=1000 * loop.seed + self.number)

    def _reconstruction(self, network: Autoencoder, domain: Domain, held: Rows, noise: Noise | None) -> Reconstruction:
        bottleneck: Tensor = network.weights[network.n_encoder_layers - 1]
        return Reconstruction(domain, held, noise, self.config, bottleneck, self.run.device)

    def _inputs(self, encoder: Autoencoder, rows: IntArray) -> Inputs:
        """Scaling of the latent numbers of the synthetic spectra that are learned from."""
        latents = latent_numbers(encoder, self.data.synthetic.x[rows], self.run.device)
        scale = float(np.sqrt(latents.var(axis=0).mean()))
        if not scale > 0:
            raise UsageError("expected latent numbers that differ, got all alike; lower the penalties or the learning rate")
        return Inputs(np.arange(latents.shape[1], dtype=np.float64), latents.mean(axis=0), scale)

    def _new_heads(self) -> StackedCnn1d:
        head, n_labels = self.config.head, len(self.data.labels)
        n_each, n_out = (1, n_labels) if head.joint else (n_labels, 1)
        generator = torch.Generator().manual_seed(self._loop(head.loop).seed)
        return StackedCnn1d(n_each * head.members, head.topology, self.config.latent, n_out, generator).to(self.run.device)

    def _heads(self, heads: StackedCnn1d, inputs: Inputs) -> CnnNetworks:
        return CnnNetworks(self.data.labels, inputs, self.config.head.topology, heads.numpy_layers())

    def _encoder(self, network: Autoencoder) -> Encoder:
        layers = network.numpy_layers()[: network.n_encoder_layers]
        return Encoder(self.data.scale, self.config.activation, tuple((w[0], b[0]) for w, b in layers))

    def _errors(self, network: Autoencoder) -> dict[str, tuple[int, float]]:
        """Of each kind of spectra: how many, and their reconstruction error."""
        data = self.data
        groups = [("synthetic", data.synthetic, ~data.unseen), ("synthetic, held back", data.synthetic, data.unseen)]
        if data.observed is not None and data.seen is not None:
            groups += [("observed", data.observed, data.seen), ("observed, held back", data.observed, ~data.seen)]
        device, unit = self.run.device, data.scale.unit
        return {
            name: (int(rows.sum()), reconstruction_error(network, domain, np.flatnonzero(rows), unit, device))
            for name, domain, rows in groups
        }
