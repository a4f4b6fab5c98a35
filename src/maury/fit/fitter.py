"""Spectra + Emulator -> LabelEstimates: starts, bounds, the batched optimiser, errors, status and flags for every star."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.fit.chi2 import ExactProblem, Problem, usable_pixels
from maury.fit.continuum import ContinuumModes
from maury.fit.lm import LmResult, LmSettings, minimise, refine
from maury.fit.prior import LabelPrior, with_prior
from maury.fit.problems import make_problem
from maury.fit.products import check_device
from maury.fit.starts import PhotometricStarts
from maury.fit.velocity import VelocityLabel
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet
from maury.protocols import Emulator
from maury.spectra import Spectra
from maury.threads import in_threads

FloatArray = NDArray[np.float64]

_BROADENING = ("vsini", "v_macro")  # nothing to be seen of them is a result, and a common one
_NONE = 1e-6  # of the range: as good as no broadening, whatever the way through scaled labels leaves of a zero
_DOUBT = 0.1  # of chi-square: how far the approximate one of a bad fit may be off


@dataclass(frozen=True)
class ChiSquareFitter:
    """Least chi-square fit of any emulator, all stars together.

    Parameters
    ----------
    n_starts : local fits per star. They begin at the best of ``n_candidates`` points spread over the training range and at
        points with other labels (a polynomial model has several minima: METHODS 0.5); the lowest chi-square wins.
    n_candidates : points (spread evenly over the box, the centre among them) at which chi-square is tabulated to choose starts.
    margin : bounds of the fit lie outside the training range by this fraction of it on either side; solutions beyond the
        range are flagged OUT_OF_RANGE, at the bounds AT_BOUND.
    min_pixels : stars with fewer usable pixels are not fitted (FEW_PIXELS).
    rival_delta_chi2 : another minimum within this of the best, with labels more than 3 sigma away, sets SEVERAL_MINIMA.
    unconstrained : an error above this fraction of the training range sets UNCONSTRAINED.
    block : stars per block (bounds memory).
    continuum : smooth calibration errors to marginalise, or None (see :class:`~maury.fit.continuum.ContinuumModes`).
    prior : of the labels, in the emulator's scaled labels, or None (see :class:`~maury.fit.prior.LabelPrior`).
    velocity : fitted as one more label ``delta_rv``, or None (see :mod:`maury.fit.velocity`).
    bounds_of : (label, lower, upper) bounds in label units instead of those of ``margin``.
    photometry : one more start for spectra with meta columns bp_rp and m_g, or None (see :mod:`maury.fit.starts`).
    device : where sums over pixels are computed, "cpu" or "cuda"; like ``workers`` a choice of the moment, not saved.
    workers : blocks of stars that are fitted at the same time, on as many cores.
    """

    n_starts: int = 3
    n_candidates: int = 256
    margin: float = 0.1
    min_pixels: int = 50
    rival_delta_chi2: float = 9.0
    unconstrained: float = 0.5
    block: int = 2048
    optimiser: LmSettings = field(default_factory=LmSettings)
    continuum: ContinuumModes | None = None
    prior: LabelPrior | None = None
    photometry: PhotometricStarts | None = None
    velocity: VelocityLabel | None = None
    bounds_of: tuple[tuple[str, float, float], ...] = ()
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.n_starts < 1 or self.n_candidates < self.n_starts:
            raise UsageError(f"expected 1 <= n_starts <= n_candidates, got {self.n_starts} and {self.n_candidates}")
        if self.margin < 0:
            raise UsageError(f"expected margin >= 0, got {self.margin}; it is a fraction of the training range")
        check_device(self.device)

    def to_config(self) -> dict[str, Any]:
        """Plain values for a model file."""
        plain = asdict(replace(self, prior=None, photometry=None))
        del plain["device"], plain["workers"]
        for name, part in (("prior", self.prior), ("photometry", self.photometry)):
            plain[name] = None if part is None else part.to_config()
        return plain

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ChiSquareFitter:
        """Inverse of :meth:`to_config`."""
        modes = config["continuum"]
        continuum = None if modes is None else ContinuumModes(**{**modes, "trusted": tuple(modes["trusted"])})
        prior = None if config["prior"] is None else LabelPrior.from_config(config["prior"])
        points = config.get("photometry")  # models of before have none
        photometry = None if points is None else PhotometricStarts.from_config(points)
        optimiser = LmSettings(**config["optimiser"])
        moving = config.get("velocity")
        parts: dict[str, Any] = {"optimiser": optimiser, "continuum": continuum, "prior": prior, "photometry": photometry}
        parts["velocity"] = None if moving is None else VelocityLabel(**moving)
        parts["bounds_of"] = tuple((str(n), float(low), float(high)) for n, low, high in config.get("bounds_of", ()))
        return cls(**{**config, **parts})

    def fit(
        self,
        spectra: Spectra,
        emulator: Emulator,
        progress: Callable[[int, int], None] | None = None,
        *,
        start: FloatArray | None = None,
    ) -> LabelEstimates:
        """Labels, covariance, chi-square, status and flags of every spectrum.

        Parameters
        ----------
        spectra : on the emulator's grid.
        progress : called with (stars done, stars in all).
        start : (n, K) label units: one local fit per star from here, instead of a search over the box.

        Raises
        ------
        UsageError
            If the grids differ or there is no spectrum.
        """
        if len(spectra) == 0:
            raise UsageError("expected at least one spectrum to fit, got none")
        needs_modes = np.zeros(len(spectra), dtype=bool) if self.continuum is None else self.continuum.needed(spectra)
        parts, rows = [], []
        for group in (np.flatnonzero(~needs_modes), np.flatnonzero(needs_modes)):
            extend = self.continuum is not None and group.size > 0 and bool(needs_modes[group[0]])
            model = self.continuum.extend(emulator) if extend and self.continuum is not None else emulator
            model = model if self.velocity is None else self.velocity.extend(model)
            size = max(1, min(self.block, -(-group.size // self.workers)))
            blocks = [group[first : first + size] for first in range(0, group.size, size)]
            fit = partial(self._fit_rows, spectra, model, start)
            for block, part in zip(blocks, in_threads(fit, blocks, self.workers), strict=True):
                parts.append(part)
                rows.append(block)
                if progress is not None:
                    progress(sum(map(len, rows)), len(spectra))
        return LabelEstimates.concatenate(parts)[np.argsort(np.concatenate(rows), kind="stable")]

    def labels_of(self, labels: LabelSet) -> LabelSet:
        """The labels that a fit of an emulator with these labels gives."""
        return labels if self.velocity is None else self.velocity.labels(labels)

    def bounds(self, labels: LabelSet) -> tuple[FloatArray, FloatArray]:
        """(K,) lower and upper bounds in scaled labels."""
        corners = np.sort(labels.scale(np.array([labels.lower, labels.upper])), axis=0)
        width = corners[1] - corners[0]
        if self.velocity is not None:
            width[-1] = 0.0  # its range is its bound
        lower, upper = corners[0] - self.margin * width, corners[1] + self.margin * width
        for name, low, high in self.bounds_of:
            k = labels.index(name)
            ends = np.tile(np.array(labels.lower), (2, 1))
            ends[:, k] = low, high
            lower[k], upper[k] = np.sort(labels.scale(ends)[:, k])
        return lower, upper

    def _fit_rows(
        self, spectra: Spectra, emulator: Emulator, start: FloatArray | None, rows: NDArray[np.int64]
    ) -> LabelEstimates:
        return self._fit_block(spectra[rows], emulator, None if start is None else start[rows])

    def _fit_block(self, spectra: Spectra, emulator: Emulator, start: FloatArray | None) -> LabelEstimates:
        n_pixels = usable_pixels(spectra, emulator.model_covariance)
        fit = np.flatnonzero(n_pixels >= self.min_pixels)
        estimates = LabelEstimates.missing(
            emulator.labels,
            spectra.ids.tolist(),
            [f"{p} usable pixels, the fit asks for {self.min_pixels}" for p in n_pixels],
            spectra.meta,
            int(ResultFlag.FEW_PIXELS | ResultFlag.FAILED),
        ).with_(n_pixels=n_pixels)
        if fit.size == 0:
            return estimates
        data = make_problem(spectra[fit], emulator, self.device)
        problem = with_prior(data, self.prior)
        lower, upper = self.bounds(emulator.labels)
        if start is None:
            starts = self._starts(problem, lower, upper)
            if self.photometry is not None:
                starts = self.photometry.add_to(starts, spectra[fit], emulator.labels)
        else:
            starts = np.nan_to_num(emulator.labels.scale(start[fit]))[:, None, :]
        best, rival = self._best_of_starts(problem, starts, lower, upper)
        if self.prior is not None:  # the catalogue's chi-square is that of the spectrum alone
            best = replace(best, chi2=best.chi2 - self.prior.evaluate(best.scaled[:, : self.prior.means.shape[1]]).chi2)
        return self._assemble(estimates, fit, emulator.labels, best, rival)

    def _best_of_starts(
        self, problem: Problem, starts: FloatArray, lower: FloatArray, upper: FloatArray
    ) -> tuple[LmResult, NDArray[np.bool_]]:
        """The best of the local fits from (n, S, K) starts, and (n,) whether another minimum rivals it."""
        n, s, k = starts.shape
        star = np.repeat(np.arange(n), s)
        result = minimise(problem, star, starts.reshape(n * s, k), lower, upper, self.optimiser)
        winner, rivals = self._compared(result, n, 0.0)
        if isinstance(problem, ExactProblem):
            # what was stepped through is approximate: every end that may yet be the lowest is followed to the exact minimum
            _, possible = self._compared(result, n, _DOUBT)
            rows = np.union1d(winner, np.flatnonzero(possible))
            result = result.only(rows, refine(problem, result.take(rows), star[rows], lower, upper, self.optimiser))
            winner, rivals = self._compared(result, n, 0.0)
        return result.take(winner), np.asarray(rivals.any(axis=1))

    def _compared(self, result: LmResult, n: int, doubt: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(n,) row of the lowest end of each star, and (n, S) which others rival it, chi-square being in doubt by a fraction."""
        k = result.scaled.shape[1]
        chi2 = np.where(np.isfinite(result.chi2), result.chi2, np.inf).reshape(n, -1)
        winner = np.arange(n) * chi2.shape[1] + chi2.argmin(axis=1)
        best = result.take(winner)
        apart = result.scaled.reshape(n, -1, k) - best.scaled[:, None, :]
        distance = np.einsum("nsk,nkl,nsl->ns", apart, best.hessian, apart)
        limit = (1.0 + doubt) * best.chi2 + (1.0 + 10.0 * doubt) * self.rival_delta_chi2
        return winner, np.asarray((chi2 < limit[:, None]) & (distance > 9.0) & result.converged.reshape(n, -1))

    def _starts(self, problem: Problem, lower: FloatArray, upper: FloatArray) -> FloatArray:
        """(n, n_starts, K): the best candidate, then the best ones that lie well away from those already chosen."""
        candidates = candidate_points(lower, upper, self.n_candidates)
        if self.velocity is not None:
            candidates[:, -1] = 0.0  # starts differ in the labels; the velocity is small
        table = problem.chi2_table(candidates)
        np.putmask(table, ~np.isfinite(table), np.inf)
        offset = np.abs(candidates[:, None, :] - candidates[None, :, :]) / (upper - lower)
        near = np.asarray((offset < 0.2).all(axis=2))  # (n_candidates, n_candidates)
        chosen = [table.argmin(axis=1)]
        for _ in range(1, self.n_starts):
            np.putmask(table, near[chosen[-1]], np.inf)
            chosen.append(table.argmin(axis=1))
        return np.asarray(candidates[np.stack(chosen, axis=1)])

    def _assemble(
        self,
        estimates: LabelEstimates,
        fit: NDArray[np.int64],
        labels: LabelSet,
        best: LmResult,
        rival: NDArray[np.bool_],
    ) -> LabelEstimates:
        n, k = len(estimates), len(labels)
        covariance_scaled, regular = safe_inverse(best.hessian)
        good = np.isfinite(best.chi2) & regular
        values, covariance, chi2 = np.full((n, k), np.nan), np.full((n, k, k), np.nan), np.full(n, np.nan)
        values[fit[good]] = labels.unscale(best.scaled[good])
        covariance[fit[good]] = labels.unscale_covariance(covariance_scaled[good], best.scaled[good])
        chi2[fit[good]] = best.chi2[good]
        status, reason, flag = list(estimates.status), list(estimates.reason), estimates.flag.copy()
        label_flags = estimates.label_flags.copy()
        for row, position in enumerate(fit):
            converged = bool(best.converged[row])
            status[position] = (
                FitStatus.FAILED if not good[row] else FitStatus.CONVERGED if converged else FitStatus.MAX_ITERATIONS
            )
            reason[position] = "" if good[row] else "the fit found no minimum with a regular covariance"
            flag[position] = 0 if good[row] and converged else int(ResultFlag.NOT_CONVERGED if good[row] else ResultFlag.FAILED)
        flag[fit[good & rival]] |= int(ResultFlag.SEVERAL_MINIMA)
        limit = self._upper_limits(labels, best, good)
        label_flags[fit] = np.where(best.at_bound & good[:, None] & ~limit, int(ResultFlag.AT_BOUND), 0)
        flag |= np.bitwise_or.reduce(label_flags, axis=1)
        label_flags[fit] |= np.where(limit, int(ResultFlag.UPPER_LIMIT), 0)  # a slow rotator is no doubtful star
        out = estimates.with_(
            values=values,
            covariance=covariance,
            chi2=chi2,
            status=tuple(status),
            reason=tuple(reason),
            flag=flag,
            label_flags=label_flags,
        )
        return self._flag_range(out)

    def _upper_limits(self, labels: LabelSet, best: LmResult, good: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, K) which labels stopped at the zero below which there is no broadening."""
        lower, upper = (labels.unscale(ends[None])[0] for ends in self.bounds(labels))
        zero = np.array([name in _BROADENING for name in labels.names]) & (np.abs(lower) <= _NONE * np.abs(upper))
        return np.asarray(best.at_bound & good[:, None] & zero & (labels.unscale(best.scaled) < 0.5 * (lower + upper)))

    def _flag_range(self, estimates: LabelEstimates) -> LabelEstimates:
        labels = estimates.labels
        finite = np.isfinite(estimates.values)
        limit = estimates.label_flags & int(ResultFlag.UPPER_LIMIT) != 0  # the training may begin a little above zero
        beyond = finite & ~limit & ~labels.in_range(estimates.values)
        out = estimates.add_label_flag(beyond, int(ResultFlag.OUT_OF_RANGE))
        width = np.array(labels.upper) - np.array(labels.lower)
        with np.errstate(invalid="ignore"):
            wide = finite & (estimates.errors > self.unconstrained * width)
        return out.add_label_flag(wide, int(ResultFlag.UNCONSTRAINED))


def candidate_points(lower: FloatArray, upper: FloatArray, n: int) -> FloatArray:
    """(n, K) points that fill the box evenly, the centre first; always the same.

    The additive recurrence x_i = 1/2 + i a (mod 1) with a_k = g^-k, g^(K+1) = g + 1 (Roberts 2018, the golden ratio for K = 1):
    as even as a Sobol set, for any n, without importing scipy.stats, which takes longer than most fits.
    """
    k = len(lower)
    golden = 2.0
    for _ in range(60):
        golden = (1.0 + golden) ** (1.0 / (k + 1))
    points = (0.5 + np.arange(n)[:, None] * golden ** -np.arange(1.0, k + 1)) % 1.0
    return np.asarray(lower + points * (upper - lower))


def safe_inverse(matrix: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(m, K, K) inverses of positive-definite matrices and (m,) whether each is regular; NaN where it is not."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(matrix).all(axis=(1, 2)))
    scale = np.sqrt(np.abs(np.einsum("mkk->mk", np.where(finite[:, None, None], matrix, 1.0))))
    regular = finite & (scale > 0).all(axis=1)
    unit = np.eye(matrix.shape[1])
    scale = np.where(regular[:, None], scale, 1.0)
    scaled = np.where(regular[:, None, None], matrix, unit) / (scale[:, :, None] * scale[:, None, :])
    values, vectors = np.linalg.eigh(scaled)
    regular &= values[:, 0] > 1e-12
    inverse = np.matmul(vectors / np.where(values > 1e-12, values, 1.0)[:, None, :], vectors.transpose(0, 2, 1))
    inverse = inverse / (scale[:, :, None] * scale[:, None, :])
    return np.where(regular[:, None, None], inverse, np.nan), regular
