"""Errors from repeat visits (Imig et al. 2022): what two spectra of the same star differ by is the error of one of them.

A pair of visits estimates the standard error of either by sigma = (sqrt(pi)/2) |x1 - x2|, because E|x1 - x2| = 2 sigma/sqrt(pi)
for Gaussian errors. These errors are the *precision*: what all visits of a star have in common (zero points, errors of the
training labels, a line-spread function that is wrong in the same way) does not show in them.

:class:`RepeatErrorModel` is learned by :func:`maury.assess.learn_repeats.fit_repeat_error_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.assess.calibration import check_labels, snr_of, with_errors
from maury.assess.quality import signal_to_noise
from maury.assess.visits import VisitPairs
from maury.constants import ROBUST_SIGMA_PER_MAD
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import ResultFlag

FloatArray = NDArray[np.float64]
RepeatVariant = Literal["debiased", "as_published"]

LOG_BIAS = -0.5 * float(np.euler_gamma + np.log(2.0)) + 0.5 * float(np.log(0.5 * np.pi))
"""Mean of ln(pair estimator) - ln(sigma) for Gaussian errors, -0.409: least squares on logarithms gives 0.66 sigma."""


def pair_sigma(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Standard error of a visit from a pair, (sqrt(pi)/2) |first - second|, any shape; its mean is sigma for Gaussian errors."""
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return np.asarray(0.5 * np.sqrt(np.pi) * np.abs(difference))


@dataclass(frozen=True)
class RepeatErrorModel:
    """ln sigma of each label as a quadratic in standardised labels and signal-to-noise, with all cross terms.

    With ``relative`` the quadratic is ln(sigma/e), e being the formal error, so that what the fit knows of a star stays.

    Parameters
    ----------
    labels, units : names and units of the K labels.
    inputs : the labels that enter the quadratic (Imig+2022: Teff, log g, [Fe/H]); signal-to-noise follows as the last input.
    lower, upper : range of each input among the visits it was learned from, label units and S/N. Inputs are clamped to it, as a
        quadratic must not extrapolate, and ERROR_EXTRAPOLATED is set outside.
    centre, spread : of each input, for standardising; those of ln(S/N) where ``log_snr``.
    coefficients : K tuples for the terms 1, x_i, x_i x_j (i <= j): 15 for four inputs.
    relative : the quadratic multiplies the formal error.
    log_snr : the input is ln(S/N), in which 1/(S/N) is a straight line; else S/N itself, as published.
    snr_column : the meta column that S/N is.
    variant : how it was learned.
    """

    labels: tuple[str, ...]
    units: tuple[str, ...]
    inputs: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]
    relative: bool = True
    log_snr: bool = True
    snr_column: str = "snr"
    variant: RepeatVariant = "debiased"

    def __post_init__(self) -> None:
        if self.variant not in get_args(RepeatVariant):
            raise UsageError(f"expected variant 'debiased' or 'as_published', got {self.variant!r}; choose one")
        n = len(self.inputs) + 1
        sizes = {name: len(getattr(self, name)) for name in ("lower", "upper", "centre", "spread")}
        if set(sizes.values()) != {n} or {len(row) for row in self.coefficients} != {n_terms(n)}:
            raise UsageError(
                f"expected {n} ranges, centres and spreads and {n_terms(n)} coefficients per label for the inputs "
                f"{', '.join(self.inputs)} and S/N, got others; learn the model again"
            )
        if len(self.units) != len(self.labels) or len(self.coefficients) != len(self.labels):
            raise UsageError(f"expected units and coefficients for each of {len(self.labels)} labels, got others; give one each")

    def sigma(self, values: ArrayLike, errors: ArrayLike, snr: ArrayLike) -> FloatArray:
        """Standard errors.

        Parameters
        ----------
        values, errors : (n, K) labels and their formal errors, label units, in the order of ``labels``.
        snr : (n,).

        Returns
        -------
        (n, K) label units; NaN where an input (or with ``relative`` the formal error) is unknown.
        """
        formal = np.asarray(errors, dtype=float)
        factor = np.exp(self._terms(values, snr) @ np.array(self.coefficients).T)
        return np.asarray(np.where(formal > 0, formal, np.nan) * factor if self.relative else factor)

    def inside(self, values: ArrayLike, snr: ArrayLike) -> NDArray[np.bool_]:
        """(n,) whether all inputs lie in the range the model was learned in."""
        raw = self._inputs(values, snr)
        return np.asarray(((raw >= self.lower) & (raw <= self.upper)).all(axis=1))

    def apply(self, estimates: LabelEstimates, snr: ArrayLike | None = None) -> LabelEstimates:
        """Estimates with errors from repeat visits and the correlations they had.

        Parameters
        ----------
        snr : (n,); default the meta column ``snr_column``. Where it is unknown the formal errors stay, flagged.

        Raises
        ------
        UsageError
            If labels or units differ, or snr has another length.
        """
        check_labels(self.labels, self.units, estimates.labels)
        x = snr_of(estimates, snr, self.snr_column)
        order = [estimates.labels.index(name) for name in self.labels]
        back = np.argsort(order)
        values, formal = estimates.values[:, order], estimates.errors[:, order]
        calibrated = with_errors(estimates, self.sigma(values, formal, x)[:, back])
        outside = ~self.inside(values, x) & np.isfinite(estimates.values).all(axis=1)
        return calibrated.add_flag(outside, int(ResultFlag.ERROR_EXTRAPOLATED))

    def to_config(self) -> dict[str, Any]:
        """Plain values for a model file; inverse of :func:`~maury.assess.calibration.error_model_from_config`."""
        return {"kind": "repeats", **asdict(self)}

    def _inputs(self, values: ArrayLike, snr: ArrayLike) -> FloatArray:
        return input_columns(values, snr, [self.labels.index(name) for name in self.inputs])

    def _terms(self, values: ArrayLike, snr: ArrayLike) -> FloatArray:
        clamped = np.clip(self._inputs(values, snr), self.lower, self.upper)
        return quadratic_terms((coordinates(clamped, self.log_snr) - np.array(self.centre)) / np.array(self.spread))


# -- the quadratic ----------------------------------------------------------------------------------------------------


def input_columns(values: ArrayLike, snr: ArrayLike, chosen: Sequence[int]) -> FloatArray:
    """(n, n_inputs + 1) chosen label columns and S/N as the last one; NaN for an S/N that is not above 0."""
    ratio = np.asarray(snr, dtype=float)
    ratio = np.where(np.isfinite(ratio) & (ratio > 0), ratio, np.nan)
    return np.column_stack([np.asarray(values, dtype=float)[:, list(chosen)], ratio])


def coordinates(inputs: FloatArray, log_snr: bool) -> FloatArray:
    """The inputs with the last column, S/N, as its logarithm if asked for."""
    return np.column_stack([inputs[:, :-1], np.log(inputs[:, -1])]) if log_snr else inputs


def quadratic_terms(x: FloatArray) -> FloatArray:
    """(n, m) -> (n, n_terms): 1, x_i, x_i x_j for i <= j."""
    i, j = np.triu_indices(x.shape[1])
    return np.column_stack([np.ones(len(x)), x, x[:, i] * x[:, j]])


def n_terms(n_inputs: int) -> int:
    """Number of terms of a quadratic in n inputs: 15 for four."""
    return 1 + n_inputs + n_inputs * (n_inputs + 1) // 2


# -- are errors right? --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RepeatScore:
    """Scatter of (x1 - x2)/sqrt(e1^2 + e2^2) of one label over a selection of pairs; 1 if the errors are right.

    ``scatter`` is 1.4826 times the weighted median of the absolute values (about zero, as the sign of a pair means nothing),
    ``uncertainty`` its bootstrap error over stars; ``inside`` is the weighted share of pairs below 1, for Gaussian errors 0.683.
    """

    label: str
    selection: str
    n_pairs: int
    n_stars: int
    scatter: float
    uncertainty: float
    inside: float


def pair_pulls(estimates: LabelEstimates, pairs: VisitPairs) -> FloatArray:
    """(n_pairs, K) differences of the visits of a pair over their errors added in quadrature."""
    variance = estimates.errors[pairs.first] ** 2 + estimates.errors[pairs.second] ** 2
    difference = estimates.values[pairs.first] - estimates.values[pairs.second]
    return np.asarray(difference / np.sqrt(np.where(variance > 0, variance, np.nan)))


def pair_snr(estimates: LabelEstimates, pairs: VisitPairs, column: str = "snr") -> FloatArray:
    """(n_pairs,) signal-to-noise of the poorer visit, which is what the difference of a pair is made of."""
    snr = signal_to_noise(estimates, column)
    return np.minimum(snr[pairs.first], snr[pairs.second])


def repeat_scores(
    estimates: LabelEstimates, pairs: VisitPairs, *, snr_column: str = "snr", n_bootstrap: int = 200, seed: int = 0
) -> list[RepeatScore]:
    """Scatter of pair pulls of each label over all pairs, and over the halves of low and high signal-to-noise.

    Each half holds half of the stars' weight; a pair's S/N is that of its poorer visit.

    Raises
    ------
    UsageError
        If there is no pair.
    """
    if not len(pairs):
        raise UsageError("expected at least one pair of visits of the same star, got none; give groups with repeat visits")
    pulls, snr = pair_pulls(estimates, pairs), pair_snr(estimates, pairs, snr_column)
    known = np.isfinite(snr)
    middle = weighted_median(snr[known], pairs.weight[known])
    selections = {"all": np.ones(len(pairs), bool), f"S/N < {middle:.0f}": snr < middle, f"S/N >= {middle:.0f}": snr >= middle}
    rows = []
    for k, name in enumerate(estimates.labels.names):
        for selection, chosen in selections.items():
            use = chosen & np.isfinite(pulls[:, k])
            rows.append(_score(name, selection, pulls[use, k], pairs.weight[use], pairs.star[use], n_bootstrap, seed))
    return rows


def repeat_scatter(estimates: LabelEstimates, pairs: VisitPairs, *, n_bootstrap: int = 200, seed: int = 0) -> FloatArray:
    """(K, 2) scatter of a single visit from pairs, and its bootstrap error over stars, label units.

    The scatter is 1.4826 times the weighted median of |x1 - x2| over the root of 2, whatever the errors say; NaN without pairs.
    """
    differences = (estimates.values[pairs.first] - estimates.values[pairs.second]) / np.sqrt(2.0)
    rows = []
    for column in differences.T:
        use = np.isfinite(column)
        own, weight = column[use], pairs.weight[use]
        random = np.random.default_rng(seed)
        rows.append((robust_scale(own, weight), _bootstrap(own, weight, pairs.star[use], n_bootstrap, random)))
    return np.array(rows)


def _score(
    label: str,
    selection: str,
    pulls: FloatArray,
    weight: FloatArray,
    star: NDArray[np.int64],
    n_bootstrap: int,
    seed: int,
) -> RepeatScore:
    spread = _bootstrap(pulls, weight, star, n_bootstrap, np.random.default_rng(seed))
    inside = float(np.average(np.abs(pulls) < 1.0, weights=weight)) if pulls.size else float("nan")
    return RepeatScore(label, selection, pulls.size, int(np.unique(star).size), robust_scale(pulls, weight), spread, inside)


def robust_scale(pulls: FloatArray, weight: FloatArray) -> float:
    """1.4826 times the weighted median of |pulls|; NaN where there is none."""
    return ROBUST_SIGMA_PER_MAD * weighted_median(np.abs(pulls), weight)


def weighted_median(values: FloatArray, weight: FloatArray) -> float:
    """Mean of the values at which the sum of weights, from either end, first reaches one half; NaN where there is none."""
    if not values.size or not weight.sum() > 0:
        return float("nan")
    order = np.argsort(values, kind="stable")
    ascending, w = values[order], weight[order]
    half = 0.5 * w.sum() * (1.0 - 1e-12)
    low, high = np.searchsorted(np.cumsum(w), half), np.searchsorted(np.cumsum(w[::-1]), half)
    return float(0.5 * (ascending[low] + ascending[::-1][high]))


def _bootstrap(pulls: FloatArray, weight: FloatArray, star: NDArray[np.int64], n: int, random: np.random.Generator) -> float:
    """Standard deviation of the scatter over resamples of the stars, each with all its pairs."""
    names, number = np.unique(star, return_inverse=True)
    if names.size < 2 or n < 2:
        return float("nan")
    times = random.multinomial(names.size, np.full(names.size, 1.0 / names.size), size=n)
    return float(np.std([robust_scale(pulls, weight * row[number]) for row in times], ddof=1))
