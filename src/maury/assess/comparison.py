"""Several systems judged by the same stars: what stands in a row of the table of ``maury compare``.

Metrics are those of :mod:`maury.assess.metrics`, over the stars for which *all* systems have labels. Errors of bias and scatter
are bootstraps over stars, each with all its spectra, with the same resamples for every system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maury.assess.metrics import coverage, label_metrics, pulls_of, robust_std
from maury.assess.repeats import repeat_scatter, repeat_scores
from maury.assess.visits import VisitPairs
from maury.estimates import LabelEstimates
from maury.labels import LabelSet

FloatArray = NDArray[np.float64]

_ONE_SIGMA = 0.6827
_FEWEST = 2  # stars or pairs that have a scatter


@dataclass(frozen=True)
class SystemScore:
    """One label of one system; NaN where something is unknown or there are fewer than two stars.

    Parameters
    ----------
    label, unit : as the system calls it.
    n : stars that count and that all systems have labels for; all but ``n_own`` is about these.
    n_own : stars that count and that this system has labels for.
    bias, scatter, rmse, and their errors : label units.
    excess : scatter above that of the best system (0 for that), with the error of the difference: both are of the same stars, so
        it is not the two errors in quadrature.
    inside : share of the stars whose true label lies within one standard error, 0.68 if errors are right.
    pull_scatter : robust standard deviation of residual/error, 1 if errors are right.
    n_pairs : of repeat visits that have labels by all systems, and none by this one that is doubtful.
    repeat_scatter : robust standard deviation of the differences of pairs over the root of 2, label units.
    repeat_pulls : the same of differences over their errors, 1 if errors are right.
    """

    label: str
    unit: str
    n: int
    n_own: int
    bias: float
    bias_error: float
    scatter: float
    scatter_error: float
    rmse: float
    inside: float
    pull_scatter: float
    excess: float = np.nan
    excess_error: float = np.nan
    n_pairs: int = 0
    repeat_scatter: float = np.nan
    repeat_scatter_error: float = np.nan
    repeat_pulls: float = np.nan
    repeat_pulls_error: float = np.nan


@dataclass(frozen=True)
class SystemFigures:
    """What is said of a system as a whole; NaN where unknown.

    Parameters
    ----------
    gap : median distance from the training spectra over what explains it; above 1 there is a gap.
    gap_beyond : share of the stars with a gap.
    doubtful : share of the stars with a flag that speaks against all labels, as a fit at a bound has.
    auc, auc_error : area under the ROC curve of a classifier between test stars and training spectra; 0.5: no gap.
    n_models : one, or one for each fold of test stars.
    n_training : training spectra of a model, the mean.
    train_time : of a model with calibration of its errors, the mean, s.
    infer_rate : test spectra in a second, preparation included.
    """

    gap: float
    gap_beyond: float
    doubtful: float
    auc: float
    auc_error: float
    n_models: int
    n_training: float
    train_time: float
    infer_rate: float


def system_scores(
    labels: LabelSet,
    truth: FloatArray,
    values: FloatArray,
    errors: FloatArray,
    *,
    counted: NDArray[np.bool_],
    common: NDArray[np.bool_],
    stars: Sequence[str],
    n_bootstrap: int = 400,
    seed: int = 0,
) -> list[SystemScore]:
    """Scores of every label of one system.

    Parameters
    ----------
    truth, values, errors : (n, K) label units; NaN where there are none.
    counted : (n,) stars that count.
    common : (n,) those of them that all systems have labels for.
    stars : (n,) name of the star of each spectrum.
    """
    own = counted & np.isfinite(values).all(axis=1)
    rows = label_metrics(truth[common], values[common], errors[common], labels=labels, n_bootstrap=0)
    spread = bootstrap_errors((values - truth)[common], np.asarray(stars, dtype=np.str_)[common].tolist(), n_bootstrap, seed)
    pulls = pulls_of(truth[common], values[common], errors[common])
    return [
        SystemScore(
            row.label,
            row.unit,
            row.n,
            int(own.sum()),
            row.bias,
            float(spread[0, k]),
            row.scatter,
            float(spread[1, k]),
            row.rmse,
            coverage(pulls[:, k], (_ONE_SIGMA,))[0].fraction,
            row.pull_scatter,
        )
        for k, row in enumerate(rows)
    ]


def with_repeats(
    scores: Sequence[SystemScore], estimates: LabelEstimates, pairs: VisitPairs, *, n_bootstrap: int = 400, seed: int = 0
) -> list[SystemScore]:
    """The same scores with those of repeat visits.

    Parameters
    ----------
    estimates : of the visits, whose labels are those of ``scores``.
    pairs : of visits; none leaves the scores as they are.
    """
    if not len(pairs):
        return list(scores)
    pulls = [row for row in repeat_scores(estimates, pairs, n_bootstrap=n_bootstrap, seed=seed) if row.selection == "all"]
    scatter = repeat_scatter(estimates, pairs, n_bootstrap=n_bootstrap, seed=seed)
    return [
        replace(
            score,
            n_pairs=len(pairs),
            repeat_scatter=float(size),
            repeat_scatter_error=float(error),
            repeat_pulls=pull.scatter,
            repeat_pulls_error=pull.uncertainty,
        )
        for score, (size, error), pull in zip(scores, scatter, pulls, strict=True)
    ]


def with_excess(
    scores: Sequence[Sequence[SystemScore]],
    residuals: Sequence[FloatArray],
    stars: Sequence[str],
    *,
    n_bootstrap: int = 400,
    seed: int = 0,
) -> list[list[SystemScore]]:
    """The scores of several systems with how far the scatter of each is above the smallest.

    Parameters
    ----------
    residuals : (n, K) of each system, of the same spectra; stars : (n,) names.
    """
    samples = [_resampled(residual, stars, n_bootstrap, seed)[:, 1] for residual in residuals]
    out: list[list[SystemScore]] = [[] for _ in scores]
    for k in range(min((len(rows) for rows in scores), default=0)):
        sizes = np.array([rows[k].scatter for rows in scores])
        if not np.isfinite(sizes).all():
            for rows, more in zip(scores, out, strict=True):
                more.append(rows[k])
            continue
        best = int(np.argmin(sizes))
        for rows, sample, more in zip(scores, samples, out, strict=True):
            error = np.std(sample[:, k] - samples[best][:, k], ddof=1) if len(sample) > 1 else np.nan
            more.append(replace(rows[k], excess=rows[k].scatter - float(sizes[best]), excess_error=float(error)))
    return out


def bootstrap_errors(residuals: FloatArray, stars: Sequence[str], n_bootstrap: int, seed: int) -> FloatArray:
    """(2, K) standard deviations of median and robust scatter of (n, K) residuals over resamples of the stars."""
    found = _resampled(residuals, stars, n_bootstrap, seed)
    return np.asarray(found.std(axis=0, ddof=1)) if len(found) > 1 else np.full(found.shape[1:], np.nan)


def _resampled(residuals: FloatArray, stars: Sequence[str], n_bootstrap: int, seed: int) -> FloatArray:
    """(n_bootstrap, 2, K) median and robust scatter of each resample; none for fewer than two stars."""
    names, number = np.unique(np.asarray([str(star) for star in stars]), return_inverse=True)
    if names.size < _FEWEST:
        return np.zeros((0, 2, residuals.shape[1]))
    random = np.random.default_rng(seed)
    order = np.argsort(number, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    found = np.empty((n_bootstrap, 2, residuals.shape[1]))
    for one in found:
        chosen = np.concatenate([rows_of[star] for star in random.integers(0, names.size, names.size)])
        one[0] = np.median(residuals[chosen], axis=0)
        one[1] = [robust_std(column) for column in residuals[chosen].T]
    return found
