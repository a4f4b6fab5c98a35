"""Learning the error model of repeat visits: pairs of spectra -> :class:`~maury.assess.repeats.RepeatErrorModel`.

Two ways (METHODS 4):

* ``debiased``: a Student likelihood of the differences, Var(x1 - x2) = sigma1^2 + sigma2^2 with each visit's own sigma, and a
  ridge on all terms but the constant, whose strength each label gets by cross-validation over stars.
* ``as_published``: least squares on ln of the pair estimator (Imig et al. 2022), which gives 0.66 sigma.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from maury.assess.calibration import with_errors
from maury.assess.quality import signal_to_noise
from maury.assess.repeats import (
    RepeatErrorModel,
    RepeatVariant,
    coordinates,
    input_columns,
    n_terms,
    pair_sigma,
    quadratic_terms,
    robust_scale,
)
from maury.assess.visits import VisitPairs
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.labels import LabelSet
from maury.train.splits import k_folds

FloatArray = NDArray[np.float64]

_STUDENT_DEGREES = 1.0
"""Wild pairs hardly count. Of 1, 2, 3, 5 degrees and the median pull, on simulated sets of 72 stars with tails from Gaussian to
t_2, 1 has the smallest largest error: rms of ln(robust pull scatter) 0.12 to 0.14; 2: 0.10 to 0.17, the median 0.14 to 0.16."""
_STUDENT_PER_GAUSSIAN = 0.6120031809624809
"""Scale that this likelihood gives a unit Gaussian: the root of E[2 z^2/(s^2 + z^2)] = 1."""
MIN_STARS = 20
"""with a pair of visits, to learn errors from."""
_IMIG_INPUTS = ("teff", "logg", "fe_h", "m_h")
_SMALLEST_DIFFERENCE = 1e-3  # of the median |difference|; one pair in 1500 of Gaussian errors is closer
_SECOND_ORDER_PENALTY = 16.0
"""Products are a quarter as large as linear terms, a priori. Chosen on simulated sets of 72 stars, where with 1 the error of
ln sigma is larger by a quarter to a half (sigma falling with S/N, Gaussian errors, 5 degrees of freedom: 0.35 against 0.22)."""
_SNR_PENALTY = 0.1
"""That errors fall with S/N is the one dependence to be expected. On such simulated sets the halves of low and high S/N then
are 3 % off on average instead of 7 %, at an unchanged error of ln sigma."""
_MAX_STEPS, _TOLERANCE = 60, 1e-6  # of ln likelihood; its errors are of the order of 1


@dataclass(frozen=True)
class RepeatConfig:
    """How to learn errors from repeat visits.

    Parameters
    ----------
    variant : "debiased" or "as_published"; see the module.
    relative : the quadratic multiplies the formal error, see :class:`RepeatErrorModel`. On 72 held-out LAMOST stars, likelihood
        does not tell it from the quadratic alone (ln: 0.6 +- 2.0 apart); a star noisier than all of them keeps its own noise.
    log_snr : use ln(S/N) rather than S/N (there 6.6 +- 5.0 better in ln likelihood).
    inputs : labels that enter the quadratic; empty: those of Teff, log g and [Fe/H] or [M/H] that the model has, else its first
        three labels.
    ridges : strengths to choose from, per star, for the linear terms of labels (a tenth of it for that of S/N, 16 times as much
        for products); infinity leaves the constant alone.
    folds, seed : of the cross-validation that chooses.
    snr_column : the meta column that S/N is.
    """

    variant: RepeatVariant = "debiased"
    relative: bool = True
    log_snr: bool = True
    inputs: tuple[str, ...] = ()
    ridges: tuple[float, ...] = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, np.inf)
    folds: int = 5
    seed: int = 0
    snr_column: str = "snr"

    def __post_init__(self) -> None:
        if self.variant not in get_args(RepeatVariant):
            raise UsageError(f"expected variant 'debiased' or 'as_published', got {self.variant!r}; choose one")
        if not self.ridges or min(self.ridges) < 0:
            raise UsageError(f"expected ridge strengths that are not negative, got {self.ridges}; give some")


IMIG2022 = RepeatConfig("as_published", relative=False, log_snr=False)
"""The error model as Imig et al. (2022) describe it; standardised inputs and cross terms are our reading of "quadratic"."""


def fit_repeat_error_model(
    estimates: LabelEstimates,
    pairs: VisitPairs,
    config: RepeatConfig = RepeatConfig(),
) -> RepeatErrorModel:
    """The error model of one's own repeat visits.

    Parameters
    ----------
    estimates : n visits with their *formal* errors.
    pairs : which of them are visits of the same star; each star counts once, whatever its number of pairs.

    Notes
    -----
    ``debiased`` is exact on average for Gaussian errors. With heavier tails the *robust* scatter of the pulls stays near 1 (0.96
    for t_2) and their plain standard deviation is above 1: a few wild pairs are outliers, not a larger error for all.

    Raises
    ------
    UsageError
        If fewer than 20 stars have a pair with all it takes (for ``as_published`` also: than coefficients plus 5), an
        input is no label of the estimates, or a label is the same in all visits of every star.
    """
    names = config.inputs or _default_inputs(estimates.labels)
    columns = [estimates.labels.index(name) for name in names]
    raw = input_columns(estimates.values, signal_to_noise(estimates, config.snr_column), columns)
    pairs = _complete_pairs(estimates, raw, pairs)
    least = max(MIN_STARS, n_terms(len(names) + 1) + 5 if config.variant == "as_published" else 0)
    if pairs.n_stars < least:
        raise UsageError(
            f"expected at least {least} stars with repeat visits to learn errors from, got {pairs.n_stars}; add stars"
        )
    rows = np.unique(np.concatenate([pairs.first, pairs.second]))
    lower, upper = raw[rows].min(axis=0), raw[rows].max(axis=0)
    x = coordinates(raw[rows], config.log_snr)
    centre, spread = x.mean(axis=0), np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 1.0)
    terms = [quadratic_terms((coordinates(part, config.log_snr) - centre) / spread) for part in _inputs_of_pairs(raw, pairs)]
    learn = _debiased if config.variant == "debiased" else _as_published
    coefficients = [learn(_Pairs.of(estimates, k, pairs, terms, config.relative), config) for k in range(len(estimates.labels))]
    return RepeatErrorModel(
        labels=estimates.labels.names,
        units=estimates.labels.units,
        inputs=tuple(names),
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        centre=tuple(centre.tolist()),
        spread=tuple(spread.tolist()),
        coefficients=tuple(tuple(row.tolist()) for row in coefficients),
        relative=config.relative,
        log_snr=config.log_snr,
        snr_column=config.snr_column,
        variant=config.variant,
    )


def cross_fitted(
    estimates: LabelEstimates,
    pairs: VisitPairs,
    config: RepeatConfig = RepeatConfig(),
    *,
    n_folds: int = 10,
    n_repeats: int = 3,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> LabelEstimates:
    """Estimates in which every visit of a pair has the errors of models that were learned from other stars.

    Spectra in no pair keep their formal errors.

    Parameters
    ----------
    n_folds, n_repeats, seed : stars are dealt into ``n_folds`` folds ``n_repeats`` times, logarithms of errors averaged, so
        that the answer hardly depends on the deal.
    progress : called with (folds done, folds in all).

    Raises
    ------
    UsageError
        As :func:`fit_repeat_error_model`, which is given (n_folds - 1)/n_folds of the stars.
    """
    stars = np.unique(pairs.star)
    folds = [fold for r in range(n_repeats) for fold in k_folds(stars.size, min(n_folds, stars.size), seed + r)]
    paired = np.unique(np.concatenate([pairs.first, pairs.second]))
    log_sigma = np.full(estimates.values.shape, np.nan)
    log_sigma[paired] = 0.0
    for done, fold in enumerate(folds, start=1):
        model = fit_repeat_error_model(estimates, pairs.of_stars(np.delete(stars, fold)), config)
        mine = pairs.of_stars(stars[fold])
        rows = np.unique(np.concatenate([mine.first, mine.second]))
        log_sigma[rows] += np.log(model.apply(estimates[rows]).errors) / n_repeats
        if progress is not None:
            progress(done, len(folds))
    return with_errors(estimates, np.exp(log_sigma))


def _default_inputs(labels: LabelSet) -> tuple[str, ...]:
    return tuple(name for name in labels.names if name in _IMIG_INPUTS) or labels.names[:3]


def _complete_pairs(estimates: LabelEstimates, inputs: FloatArray, pairs: VisitPairs) -> VisitPairs:
    """The pairs both of whose visits have labels, errors and signal-to-noise; a star's pairs still weigh 1 together."""
    complete = (np.isfinite(inputs).all(axis=1) & (estimates.errors > 0).all(axis=1)).astype(bool)
    kept = complete[pairs.first] & complete[pairs.second]
    star = pairs.star[kept]
    weight = 1.0 / np.bincount(star, minlength=1)[star]
    return VisitPairs(pairs.first[kept], pairs.second[kept], star, weight)


def _inputs_of_pairs(inputs: FloatArray, pairs: VisitPairs) -> tuple[FloatArray, FloatArray]:
    """(n_pairs, n_inputs) of the first and the second visits: the star's mean labels, and each visit's own S/N.

    With each visit's own labels, a wild label would be an input that explains its own wild difference.
    """
    labels = 0.5 * (inputs[pairs.first, :-1] + inputs[pairs.second, :-1])
    return np.column_stack([labels, inputs[pairs.first, -1]]), np.column_stack([labels, inputs[pairs.second, -1]])


# -- one label --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Differences of one label with what their errors may depend on.

    ``difference`` (absolute), ``weight``, ``star`` (n_pairs,); ``terms`` (2, n_pairs, n_terms) of both visits;
    ``scale`` (2, n_pairs): what exp(terms @ coefficients) multiplies.
    """

    difference: FloatArray
    weight: FloatArray
    star: NDArray[np.int64]
    terms: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, estimates: LabelEstimates, k: int, pairs: VisitPairs, terms: Sequence[FloatArray], relative: bool) -> _Pairs:
        """The pairs for label k; ``terms`` (n_pairs, n_terms) of first and second visits."""
        scale = estimates.errors[:, k] if relative else np.ones(len(estimates))
        difference = np.abs(estimates.values[pairs.first, k] - estimates.values[pairs.second, k])
        if not difference.any():
            name = estimates.labels.names[k]
            raise UsageError(f"expected visits that differ, got equal {name} in every pair; are they the same spectra twice?")
        # equal to the digit: its logarithm, and with it the likelihood, must stay finite
        difference = np.maximum(difference, _SMALLEST_DIFFERENCE * np.median(difference[difference > 0]))
        return cls(difference, pairs.weight, pairs.star, np.stack(terms), np.stack([scale[pairs.first], scale[pairs.second]]))

    def of_pairs(self, chosen: NDArray[np.bool_]) -> _Pairs:
        return _Pairs(
            self.difference[chosen], self.weight[chosen], self.star[chosen], self.terms[:, chosen], self.scale[:, chosen]
        )

    def sigma(self, coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n_pairs,) standard error of the difference, and (n_pairs, n_terms) derivative of its logarithm."""
        variance = (self.scale * np.exp(np.clip(self.terms @ coefficients, -50.0, 50.0))) ** 2
        total = variance.sum(axis=0)
        return np.sqrt(total), np.einsum("vp,vpt->pt", variance / total, self.terms)

    def loss(self, coefficients: FloatArray) -> FloatArray:
        """(n_pairs,) minus ln of the Student likelihood, constants left out."""
        sigma, _ = self.sigma(coefficients)
        tail = 0.5 * (_STUDENT_DEGREES + 1.0) * np.log1p((self.difference / sigma) ** 2 / _STUDENT_DEGREES)
        return np.asarray(np.log(sigma) + tail)


def _debiased(data: _Pairs, config: RepeatConfig) -> FloatArray:
    """Student likelihood with the ridge that cross-validation over stars prefers; right for Gaussian errors."""
    strongest_first = sorted(config.ridges, reverse=True)
    best = strongest_first[0] if len(strongest_first) == 1 else _choose_ridge(data, strongest_first, config)
    coefficients = _path(data, [ridge for ridge in strongest_first if ridge >= best])[-1]
    coefficients[0] -= np.log(_STUDENT_PER_GAUSSIAN)
    return coefficients


def _choose_ridge(data: _Pairs, ridges: Sequence[float], config: RepeatConfig) -> float:
    """The ridge whose held-out likelihood is largest; ``ridges`` fall."""
    stars = np.unique(data.star)
    losses = np.zeros(len(ridges))
    for fold in k_folds(stars.size, min(config.folds, stars.size), config.seed):
        held = np.isin(data.star, stars[fold])
        learn, test = data.of_pairs(~held), data.of_pairs(held)
        losses += [float(test.weight @ test.loss(coefficients)) for coefficients in _path(learn, ridges)]
    return ridges[int(np.argmin(losses))]


def _path(data: _Pairs, ridges: Sequence[float]) -> list[FloatArray]:
    """Coefficients for each of the falling ridges, each started at the one before; the first at a constant.

    The likelihood has several maxima; from the constant outwards the same one is followed on every subset of the stars.
    """
    beta = np.zeros(data.terms.shape[2])
    start = robust_scale(data.difference / data.sigma(beta)[0], data.weight)
    beta[0] = np.log(start) if start > 0 else 0.0
    path = []
    for ridge in ridges:
        beta = _maximum_likelihood(data, ridge, beta)
        path.append(beta)
    return path


def _maximum_likelihood(data: _Pairs, ridge: float, beta: FloatArray) -> FloatArray:
    """(n_terms,) coefficients by Fisher scoring with step halving from ``beta``; ``ridge`` is per star."""
    n = data.terms.shape[2]
    free = n if np.isfinite(ridge) else 1
    penalty = np.zeros(1) if free == 1 else ridge * data.weight.sum() * _relative_penalty(n)
    information = 2.0 * _STUDENT_DEGREES / (_STUDENT_DEGREES + 3.0)  # of ln sigma per pair

    def objective(trial: FloatArray) -> float:
        return float(data.weight @ data.loss(trial) + 0.5 * np.sum(penalty * trial[:free] ** 2))

    cost = objective(beta)
    for _ in range(_MAX_STEPS):
        sigma, slope = data.sigma(beta)
        slope, z2 = slope[:, :free], (data.difference / sigma) ** 2
        pull = (_STUDENT_DEGREES + 1.0) * z2 / (_STUDENT_DEGREES + z2) - 1.0
        gradient = slope.T @ (data.weight * pull) - penalty * beta[:free]
        hessian = information * (slope.T * data.weight) @ slope + np.diag(penalty + 1e-9)
        step = np.zeros(n)
        step[:free] = np.linalg.solve(hessian, gradient)
        trials = ((objective(beta + length * step), beta + length * step) for length in 0.5 ** np.arange(12))
        new, trial = next((pair for pair in trials if pair[0] < cost), (cost, beta))
        if cost - new < _TOLERANCE:
            break
        cost, beta = new, trial
    return beta


def _relative_penalty(n: int) -> FloatArray:
    """(n,) 0 for the constant, 1 for linear terms of labels, :data:`_SNR_PENALTY`, :data:`_SECOND_ORDER_PENALTY` for products."""
    n_inputs = next(m for m in range(1, n) if n_terms(m) == n)
    labels, products = np.ones(n_inputs - 1), np.full(n - 1 - n_inputs, _SECOND_ORDER_PENALTY)
    return np.asarray(np.r_[0.0, labels, _SNR_PENALTY, products])


def _as_published(data: _Pairs, config: RepeatConfig) -> FloatArray:
    """Weighted least squares on ln of the pair estimator over the mean terms of both visits (no ridge, no correction)."""
    target = np.log(pair_sigma(data.difference, 0.0)) - np.log(data.scale).mean(axis=0)
    root = np.sqrt(data.weight)
    solution, *_ = np.linalg.lstsq(data.terms.mean(axis=0) * root[:, None], target * root, rcond=None)
    return np.asarray(solution, dtype=np.float64)
