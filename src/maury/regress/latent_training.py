"""Training autoencoders and the regressors on their latent numbers, on two domains (needs torch; METHODS 2)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from maury.errors import UsageError
from maury.labels import Label, LabelSet
from maury.networks.autoencoder import Autoencoder
from maury.networks.cnn1d import StackedCnn1d
from maury.regress.cnn import CnnNetworks, Inputs
from maury.regress.latent import Encoder, LatentNetworks, PixelScale
from maury.regress.latent_config import LatentConfig, SearchConfig, hidden_layers
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
from maury.spectra import Spectra
from maury.train.config import LoopConfig
from maury.train.loop import History, checkpoint_in, train_network
from maury.train.population import drawn, population_weights
from maury.train.scaling import scaled_labels
from maury.train.splits import held_back, k_folds
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


@dataclass(frozen=True)
class Candidate:
    """An autoencoder of the search: neurons of the first layer, penalty, cross-validated mean squared error of the inputs."""

    width: int
    penalty: float
    error: float


@dataclass(frozen=True, eq=False)
class LatentTraining:
    """What training gives.

    Parameters
    ----------
    networks : encoders for observed spectra and their regressors, one for each autoencoder.
    before : the encoders as they were before the transfer.
    history : losses by epoch of the stages of each autoencoder.
    errors : of both domains, and of spectra that no stage has seen.
    search : all that the grid search tried, best first; empty without a search.
    held_back : (n,) synthetic spectra that chose epochs. Judge on others.
    """

    networks: tuple[LatentNetworks, ...]
    before: tuple[Encoder, ...]
    history: dict[str, History]
    errors: tuple[ReconstructionError, ...]
    search: tuple[Candidate, ...]
    held_back: Rows


def train_latent(
    spectra: Spectra,
    labels: tuple[Label, ...],
    values: ArrayLike,
    config: LatentConfig | None = None,
    *,
    observed: Spectra | None = None,
    observed_values: ArrayLike | None = None,
    groups: tuple[str, ...] | None = None,
    device: str = "cpu",
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LatentTraining:
    """Train on prepared synthetic spectra with labels, and carry over to prepared observed ones.

    Parameters
    ----------
    spectra : n synthetic spectra; bad pixels have their mean.
    labels, values : the labels and their (n, K) values in label units, all finite.
    observed : m spectra on the same grid.
    observed_values : (m, K) label units, NaN where not known; the transfer "labels" alone uses them.
    groups : (n,) names: spectra of one name are held back together.
    device : where torch computes, "cpu" or "cuda".
    checkpoints : folder in which trainings' states are kept; one that was killed goes on from there.
    progress : called with (epochs done, epochs at most).

    Raises
    ------
    UsageError
        If there are no observed spectra where the settings ask for some, or on another grid; no known labels for the transfer
        "labels"; or labels that are not finite, or too few spectra to hold some back.
    """
    config = config or LatentConfig()
    label_set, scaled = scaled_labels(labels, values, "range", len(spectra))
    known = _known(label_set, observed, observed_values, config, spectra)
    unseen = held_back(len(scaled), 1, config.validation_fraction, config.loop.seed, groups)[0]
    scale = PixelScale.of(spectra, ~unseen, config.output == "sigmoid")
    data = _Data(
        label_set,
        scaled,
        unseen,
        scale,
        Domain.of(spectra, scale, weighted=False),
        None if observed is None else Domain.of(observed, scale, config.weighted),
        known,
        None if observed is None else _seen(len(observed), config, known),
    )
    run = _Run(config, device, checkpoints, progress)
    found = run.search(data, groups) if config.search is not None else ()
    return run.train(data, found)


def _known(
    label_set: LabelSet, observed: Spectra | None, values: ArrayLike | None, config: LatentConfig, spectra: Spectra
) -> FloatArray | None:
    """(m, K) scaled labels of observed spectra, once it is clear that there are the observed spectra that the settings want."""
    transfer = config.transfer
    if observed is None:
        if transfer.method != "none" or config.noise == "observed" or transfer.population:
            raise UsageError(
                f"expected observed spectra for the transfer {transfer.method!r} and noise {config.noise!r}, got none; give some"
            )
        return None
    if not np.array_equal(observed.wavelength, spectra.wavelength):
        raise UsageError(f"expected observed spectra on the grid of the synthetic ones, {spectra!r}, got {observed!r}")
    if transfer.method != "labels":
        return None
    given = np.full((len(observed), len(label_set)), np.nan) if values is None else np.asarray(values, dtype=np.float64)
    rows = np.isfinite(given).all(axis=1)
    if not rows.any():
        raise UsageError("expected observed spectra with known labels for the transfer 'labels', got none; name a part with some")
    scaled = np.full(given.shape, np.nan)
    scaled[rows] = label_set.scale(given[rows])
    return scaled


def _seen(n: int, config: LatentConfig, known: FloatArray | None) -> Rows:
    """(n,) observed spectra that the transfer sees."""
    seen: Rows = ~held_back(n, 1, config.transfer.held_back, config.transfer.loop.seed)[0]
    if known is not None and not np.isfinite(known[seen]).all(axis=1).any():
        raise UsageError(
            f"expected known labels among the observed spectra that the transfer 'labels' sees, got none in {int(seen.sum())} of "
            f"{n}; give more of them, or another seed"
        )
    return seen


@dataclass(frozen=True, eq=False)
class _Data:
    """All that stages learn from; ``seen``: (m,) observed spectra that the transfer sees."""

    labels: LabelSet
    scaled: FloatArray
    unseen: Rows
    scale: PixelScale
    synthetic: Domain
    observed: Domain | None
    known: FloatArray | None
    seen: Rows | None


class _Run:
    """One training: its settings, where it computes, and how far it is."""

    def __init__(
        self, config: LatentConfig, device: str, checkpoints: Path | None, progress: Callable[[int, int], None] | None
    ) -> None:
        self.config, self.device, self.checkpoints, self.progress = config, device, checkpoints, progress
        self.done, self.total = 0, self._epochs()

    # -- the grid search ------------------------------------------------------------------------------------------------

    def search(self, data: _Data, groups: tuple[str, ...] | None) -> tuple[Candidate, ...]:
        """All combinations by their cross-validated reconstruction, the best first."""
        settings = self.config.search
        assert settings is not None
        some = _share(len(data.scaled), settings, self.config.loop.seed, groups)
        names = None if groups is None else [groups[i] for i in some]
        folds = k_folds(len(some), settings.folds, self.config.loop.seed, names)
        part = Domain(data.synthetic.x[some], data.synthetic.weight[some], data.synthetic.sigma[some])
        loop = replace(self.config.loop, max_epochs=settings.epochs, check_every=settings.epochs)
        found = []
        for width in settings.widths:
            for penalty in settings.penalties:
                config = replace(self.config, hidden=hidden_layers(width), activity=penalty, loop=loop, contraction=0.0)
                noise = Noise(config, data.scale, data.observed, self.device)
                errors = []
                for fold in folds:
                    held = np.zeros(len(some), dtype=bool)
                    held[fold] = True
                    network = self._autoencoder(config, data, 0)
                    task = Reconstruction(part, held, noise, config, network.weights[len(config.hidden)], self.device)
                    errors.append(self._fit(network, task, loop, config).validation.min())
                found.append(Candidate(width, penalty, float(np.mean(errors))))
        return tuple(sorted(found, key=lambda candidate: candidate.error))

    # -- autoencoders and their regressors ------------------------------------------------------------------------------

    def train(self, data: _Data, found: tuple[Candidate, ...]) -> LatentTraining:
        """Every autoencoder with its transfer and its regressors."""
        configs = [self.config] * self.config.autoencoders
        if self.config.search is not None:
            kept = found[: self.config.search.keep]
            configs = [replace(self.config, hidden=hidden_layers(c.width), activity=c.penalty) for c in kept]
        history: dict[str, History] = {}
        networks, before, errors = [], [], []
        for number, config in enumerate(configs):
            one = _One(self, config, data, number)
            networks.append(one.network)
            before.append(one.before)
            errors.append(one.errors)
            history |= {f"{stage}_{number}" if len(configs) > 1 else stage: h for stage, h in one.history.items()}
        means = tuple(
            ReconstructionError(rows[0].spectra, rows[0].n, *(float(np.mean([getattr(r, f) for r in rows])) for f in _WHEN))
            for rows in zip(*errors, strict=True)
        )
        return LatentTraining(tuple(networks), tuple(before), history, means, found, data.unseen)

    def _autoencoder(self, config: LatentConfig, data: _Data, number: int) -> Autoencoder:
        return Autoencoder(
            data.synthetic.x.shape[1],
            config.hidden,
            config.latent,
            config.activation,
            torch.Generator().manual_seed(1000 * config.loop.seed + number),
            initial="glorot",
            output=config.output,
        ).to(self.device)

    def _fit(self, network: nn.Module, task: Any, loop: LoopConfig, config: LatentConfig) -> History:
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

    def _epochs(self) -> int:
        """Of all stages."""
        config, search = self.config, self.config.search
        learn = config.transfer.loop if config.transfer.is_joint else config.head.loop
        each = config.loop.max_epochs + (1 + config.transfer.population) * learn.max_epochs
        each += config.transfer.loop.max_epochs if config.transfer.method == "reconstruction" else 0
        if search is None:
            return config.autoencoders * each
        return search.keep * each + len(search.widths) * len(search.penalties) * search.folds * search.epochs


_WHEN = ("before", "after")


class _One:
    """One autoencoder: trained on synthetic spectra, carried over, with regressors."""

    def __init__(self, run: _Run, config: LatentConfig, data: _Data, number: int) -> None:
        self.run, self.config, self.data, self.number = run, config, data, number
        self.noise = Noise(config, data.scale, data.observed, run.device)
        self.history: dict[str, History] = {}
        pretrained = run._autoencoder(config, data, number)
        task = self._reconstruction(pretrained, data.synthetic, data.unseen, self.noise)
        self.history["autoencoder"] = run._fit(pretrained, task, self._loop(config.loop), config)
        self.before, old = self._encoder(pretrained), self._errors(pretrained)
        rows, held = np.flatnonzero(~data.unseen), np.flatnonzero(data.unseen)
        if config.transfer.is_joint:
            adapted, heads, inputs = self._joint(pretrained, rows, held)
        else:
            adapted = self._reconstructed(pretrained)
            source = pretrained if config.latents == "pretrained" else adapted
            inputs = self._inputs(source, rows)
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
            self.history["transfer"] = self.run._fit(network, task, self._loop(transfer.loop), self.config)
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
            self.history["regressors"] = self.run._fit(heads, task, self._loop(config.head.loop), config)
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
                self.history["transfer"] = self.run._fit(network, task, self._loop(transfer.loop), config)
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


def _share(n: int, settings: SearchConfig, seed: int, groups: tuple[str, ...] | None) -> IntArray:
    """Rows of the spectra that are searched on, whole groups."""
    names = np.array([str(i) for i in range(n)] if groups is None else list(groups))
    unique = np.unique(names)
    random = np.random.default_rng(seed)
    chosen = random.permutation(unique)[: max(settings.folds, round(settings.fraction * len(unique)))]
    return np.flatnonzero(np.isin(names, chosen))
