"""Training autoencoders and the regressors on their latent numbers, on two domains (needs torch; METHODS 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError
from maury.labels import Label, LabelSet
from maury.regress.latent import Encoder, LatentNetworks, PixelScale
from maury.regress.latent_config import LIKE_OBSERVED, LatentConfig, SearchConfig, hidden_layers
from maury.regress.latent_run import Data, OneAutoencoder, ReconstructionError, Run
from maury.regress.latent_stages import Domain, Reconstruction
from maury.regress.noise import residuals_of
from maury.spectra import Spectra
from maury.train.loop import History
from maury.train.scaling import scaled_labels
from maury.train.splits import held_back, k_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Rows = NDArray[np.bool_]


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
    errors : of both domains, and of spectra that no stage has learned from.
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
    config : None: :class:`~maury.regress.latent_config.LatentConfig` as it is, without a transfer.
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
    unseen_heads = unseen
    if not config.transfer.is_joint:
        unseen_heads = held_back(len(scaled), 1, config.head.validation_fraction, config.head.loop.seed, groups)[0]
    scale = PixelScale.of(spectra, ~unseen, config.output == "sigmoid")
    seen = None if observed is None else _seen(len(observed), config, known)
    residuals = None
    if config.noise == "residuals" and observed is not None and seen is not None:
        rows = np.flatnonzero(seen)
        found = residuals_of(observed[rows], spectra[np.flatnonzero(~unseen)]) / scale.unit
        residuals = found.astype(np.float32), rows
    data = Data(
        label_set,
        scaled,
        unseen,
        unseen_heads,
        scale,
        Domain.of(spectra, scale, weighted=False),
        None if observed is None else Domain.of(observed, scale, config.weighted),
        known,
        seen,
        residuals,
    )
    run = Run(device, checkpoints, progress, _epochs(config))
    if config.search is None:
        return _train([config] * config.autoencoders, run, data, ())
    kinds = _searched(config, config.search, run, data, groups)
    kept = kinds[: config.search.keep]
    return _train([replace(config, hidden=hidden_layers(c.width), activity=c.penalty) for c in kept], run, data, kinds)


def _known(
    label_set: LabelSet, observed: Spectra | None, values: ArrayLike | None, config: LatentConfig, spectra: Spectra
) -> FloatArray | None:
    """(m, K) scaled labels of observed spectra, once it is clear that there are the observed spectra that the settings want."""
    transfer = config.transfer
    if observed is None:
        if transfer.method != "none" or config.noise in LIKE_OBSERVED or transfer.population:
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


def _searched(
    config: LatentConfig, settings: SearchConfig, run: Run, data: Data, groups: tuple[str, ...] | None
) -> tuple[Candidate, ...]:
    """All combinations of the grid search by their cross-validated reconstruction, the best first."""
    some = _share(len(data.scaled), settings, config.loop.seed, groups)
    folds = k_folds(len(some), settings.folds, config.loop.seed, None if groups is None else [groups[i] for i in some])
    part = Domain(data.synthetic.x[some], data.synthetic.weight[some], data.synthetic.sigma[some])
    loop = replace(config.loop, max_epochs=settings.epochs, check_every=settings.epochs)
    found = []
    for width in settings.widths:
        for penalty in settings.penalties:
            one = replace(config, hidden=hidden_layers(width), activity=penalty, loop=loop, contraction=0.0)
            noise = data.noise(one, run.device)
            errors = []
            for fold in folds:
                held = np.zeros(len(some), dtype=bool)
                held[fold] = True
                network = run.autoencoder(one, data, 0)
                task = Reconstruction(part, held, noise, one, network.weights[len(one.hidden)], run.device)
                errors.append(run.fit(network, task, loop, one).validation.min())
            found.append(Candidate(width, penalty, float(np.mean(errors))))
    return tuple(sorted(found, key=lambda candidate: candidate.error))


def _seen(n: int, config: LatentConfig, known: FloatArray | None) -> Rows:
    """(n,) observed spectra that the transfer sees."""
    seen: Rows = ~held_back(n, 1, config.transfer.held_back, config.transfer.loop.seed)[0]
    if known is not None and not np.isfinite(known[seen]).all(axis=1).any():
        raise UsageError(
            f"expected known labels among the observed spectra that the transfer 'labels' sees, got none in {int(seen.sum())} of "
            f"{n}; give more of them, or another seed"
        )
    return seen


def _train(configs: list[LatentConfig], run: Run, data: Data, found: tuple[Candidate, ...]) -> LatentTraining:
    """An autoencoder for each of the settings, with its transfer and its regressors."""
    history: dict[str, History] = {}
    trained = []
    for number, config in enumerate(configs):
        one = OneAutoencoder(run, config, data, number)
        trained.append(one)
        history |= {f"{stage}_{number}" if len(configs) > 1 else stage: h for stage, h in one.history.items()}
    errors = []
    for rows in zip(*(one.errors for one in trained), strict=True):
        before, after = (float(np.mean([getattr(row, when) for row in rows])) for when in ("before", "after"))
        errors.append(replace(rows[0], before=before, after=after))
    networks, encoders = tuple(one.network for one in trained), tuple(one.before for one in trained)
    return LatentTraining(networks, encoders, history, tuple(errors), found, data.unseen | data.unseen_heads)


def _epochs(config: LatentConfig) -> int:
    """Of all stages."""
    search = config.search
    learn = config.transfer.loop if config.transfer.is_joint else config.head.loop
    each = config.loop.max_epochs + (1 + config.transfer.population) * learn.max_epochs
    each += config.transfer.loop.max_epochs if config.transfer.method == "reconstruction" else 0
    if search is None:
        return config.autoencoders * each
    return search.keep * each + len(search.widths) * len(search.penalties) * search.folds * search.epochs


def _share(n: int, settings: SearchConfig, seed: int, groups: tuple[str, ...] | None) -> IntArray:
    """Rows of the spectra that are searched on, whole groups."""
    names = np.array([str(i) for i in range(n)] if groups is None else list(groups))
    unique = np.unique(names)
    random = np.random.default_rng(seed)
    chosen = random.permutation(unique)[: max(settings.folds, round(settings.fraction * len(unique)))]
    return np.flatnonzero(np.isin(names, chosen))
