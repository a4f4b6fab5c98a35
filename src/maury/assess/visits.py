"""Visits of a star: which pairs of spectra are repeats of each other, and one row per star from its visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from maury.assess.quality import signal_to_noise
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import FitStatus, ResultFlag
from maury.spectra import empty_meta

if TYPE_CHECKING:
    from astropy.table import Table

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
CombineMethod = Literal["imig2022", "inverse_variance"]

DOUBTFUL_VISIT = (
    ResultFlag.UNREADABLE
    | ResultFlag.FAILED
    | ResultFlag.NOT_CONVERGED
    | ResultFlag.FEW_PIXELS
    | ResultFlag.POOR_CHI2
    | ResultFlag.AT_BOUND
    | ResultFlag.WRONG_DOMAIN
)
"""Visits with any of these bits teach no errors, and are left out of a star's mean where it has better ones."""


@dataclass(frozen=True, eq=False)
class VisitPairs:
    """All pairs of visits of the same star.

    Parameters
    ----------
    first, second : (n_pairs,) rows of the estimates.
    star : (n_pairs,) number of the star, 0 .. n_stars - 1.
    weight : (n_pairs,) one over the number of pairs of the star: pairs that share a visit are not independent.
    """

    first: IntArray
    second: IntArray
    star: IntArray
    weight: FloatArray

    def __len__(self) -> int:
        return int(self.first.size)

    @property
    def n_stars(self) -> int:
        return int(np.unique(self.star).size)

    def of_stars(self, stars: IntArray) -> VisitPairs:
        """The pairs of these stars alone."""
        chosen = np.isin(self.star, stars)
        return VisitPairs(self.first[chosen], self.second[chosen], self.star[chosen], self.weight[chosen])


def visit_pairs(groups: Sequence[str], usable: NDArray[np.bool_] | None = None) -> VisitPairs:
    """Pairs of visits per star.

    Parameters
    ----------
    groups : (n,) name of the star of each visit; "" for a spectrum of no known star.
    usable : (n,) visits that may be in a pair; all if None.

    Raises
    ------
    UsageError
        If ``usable`` has another length.
    """
    names = np.asarray([str(group) for group in groups])
    allowed = np.ones(names.size, bool) if usable is None else np.asarray(usable, dtype=bool)
    if allowed.shape != names.shape:
        raise UsageError(f"expected usable for each of {names.size} visits, got shape {allowed.shape}; one entry per visit")
    first, second, star, weight = [], [], [], []
    stars = {name: rows for name, rows in rows_of_names(names).items() if name}
    for number, everything in enumerate(stars.values()):
        rows = everything[allowed[everything]]
        a, b = np.triu_indices(rows.size, 1)
        first.append(rows[a])
        second.append(rows[b])
        star.append(np.full(a.size, number))
        weight.append(np.full(a.size, 1.0 / max(a.size, 1)))
    empty = [np.zeros(0)]
    rows_a, rows_b, number_of = (np.concatenate(part or empty).astype(np.int64) for part in (first, second, star))
    return VisitPairs(rows_a, rows_b, number_of, np.concatenate(weight or empty))


def rows_of_names(names: NDArray[np.str_]) -> dict[str, IntArray]:
    """Name -> its rows, in the order in which names first come."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names.tolist()):
        rows.setdefault(name, []).append(row)
    return {name: np.array(chosen, dtype=np.int64) for name, chosen in rows.items()}


def good_visits(estimates: LabelEstimates) -> NDArray[np.bool_]:
    """(n,) visits with all labels, errors above 0 and none of the bits of :data:`DOUBTFUL_VISIT`."""
    return np.asarray(_measured(estimates) & (estimates.flag & int(DOUBTFUL_VISIT) == 0))


# -- visits of a star into one row ------------------------------------------------------------------------------------


def combine_visits(estimates: LabelEstimates, groups: Sequence[str], method: CombineMethod = "imig2022") -> LabelEstimates:
    """One row per star from the estimates of its visits, stars in the order in which they first come.

    * ``imig2022``: median of the visits; error = the larger of their median absolute deviation (not scaled) and their median
      error (catalogue convention of Imig et al. 2022); correlations are the mean of those of the visits.
    * ``inverse_variance``: each label's mean with weights 1/e^2; covariance of that mean for independent visits. Its error is
      right only if the visits' errors have no part in common: errors from repeat visits are of that kind, errors that
      contain the noise of training labels (``held_out``) are not.

    Parameters
    ----------
    estimates : n visits.
    groups : (n,) name of the star of each visit; a visit with "" is a star of its own.
    method : one of the two above.

    Returns
    -------
    Estimates whose ``ids`` are the stars. Visits with a bit of :data:`DOUBTFUL_VISIT` are left out where the star has better
    ones. ``flag`` and ``label_flags`` are the union over the visits used, ``chi2`` and ``n_pixels`` their sums; meta holds
    ``file`` (joined by "|"), ``snr`` (root of the sum of squares), ``n_visits`` (used) and ``n_visits_all``. A star without
    any measured visit keeps its row, NaN, with the reason of its first visit. Values before calibration,
    and lower and upper errors, are not kept.

    Raises
    ------
    UsageError
        If the method is unknown or there is not one group per visit.
    """
    if method not in get_args(CombineMethod):
        raise UsageError(f"expected method {' or '.join(get_args(CombineMethod))}, got {method!r}; choose one")
    if len(groups) != len(estimates):
        raise UsageError(f"expected the star of each of {len(estimates)} visits, got {len(groups)} names; give one per visit")
    visits = rows_of_names(np.array([str(group) or str(name) for group, name in zip(groups, estimates.ids, strict=True)]))
    measured, good = _measured(estimates), good_visits(estimates)
    used = [_first_not_empty(rows, good, measured) for rows in visits.values()]
    parts = [
        _combined(name, estimates[chosen], method) if chosen.size else _failed(name, estimates[rows])
        for (name, rows), chosen in zip(visits.items(), used, strict=True)
    ]
    meta = _meta(estimates, list(visits.values()), used)
    return LabelEstimates.concatenate(parts).with_(meta=meta)


def _measured(estimates: LabelEstimates) -> NDArray[np.bool_]:
    """(n,) visits with all labels and errors above 0."""
    errors = estimates.errors
    return np.asarray((np.isfinite(estimates.values) & np.isfinite(errors) & (errors > 0)).all(axis=1))


def _first_not_empty(rows: IntArray, *choices: NDArray[np.bool_]) -> IntArray:
    """The rows that the first of these choices which takes any takes."""
    return next((rows[choice[rows]] for choice in choices if choice[rows].any()), np.zeros(0, np.int64))


def _combined(name: str, visits: LabelEstimates, method: CombineMethod) -> LabelEstimates:
    """The row of a star with measured visits."""
    combine = _median if method == "imig2022" else _weighted_mean
    values, covariance = combine(visits)
    converged = all(status is FitStatus.CONVERGED for status in visits.status)
    return visits[:1].with_(
        ids=np.array([name]),
        values=values[None],
        covariance=covariance[None],
        chi2=np.array([visits.chi2.sum()]),
        n_pixels=np.array([visits.n_pixels.sum()]),
        status=(FitStatus.CONVERGED if converged else FitStatus.MAX_ITERATIONS,),
        flag=np.bitwise_or.reduce(visits.flag, keepdims=True),
        label_flags=np.bitwise_or.reduce(visits.label_flags, axis=0, keepdims=True),
        reason=("",),
        raw_values=None,
        raw_covariance=None,
        interval_errors=None,
    )


def _failed(name: str, visits: LabelEstimates) -> LabelEstimates:
    """The row of a star none of whose visits has labels."""
    reason = next((text for text in visits.reason if text), "no visit with labels and errors")
    flag = int(np.bitwise_or.reduce(visits.flag)) | int(ResultFlag.FAILED)
    return LabelEstimates.missing(visits.labels, [name], [f"{len(visits)} visits failed; {reason}"], visits.meta[:1], flag)


def _median(visits: LabelEstimates) -> tuple[FloatArray, FloatArray]:
    values = np.median(visits.values, axis=0)
    deviation = np.median(np.abs(visits.values - values), axis=0)
    sigma = np.maximum(deviation, np.median(visits.errors, axis=0))
    return values, visits.correlation.mean(axis=0) * np.outer(sigma, sigma)


def _weighted_mean(visits: LabelEstimates) -> tuple[FloatArray, FloatArray]:
    """Weighted mean and its covariance, sum of W C W over the visits with W = diag(weights)."""
    weight = 1.0 / visits.errors**2
    weight /= weight.sum(axis=0)
    covariance = np.einsum("vk,vkl,vl->kl", weight, visits.covariance, weight)
    return (weight * visits.values).sum(axis=0), covariance


def _meta(estimates: LabelEstimates, rows: list[IntArray], used: list[IntArray]) -> Table:
    meta = empty_meta(len(rows))
    names = [str(x) for x in estimates.meta["file"]] if "file" in estimates.meta.colnames else list(map(str, estimates.ids))
    meta["file"] = [
        "|".join(names[i] for i in (chosen if len(chosen) else all_)) for all_, chosen in zip(rows, used, strict=True)
    ]
    if "snr" in estimates.meta.colnames:
        snr = signal_to_noise(estimates, "snr")
        meta["snr"] = [float(np.sqrt(np.sum(snr[chosen] ** 2))) if len(chosen) else np.nan for chosen in used]
    meta["n_visits"] = [len(chosen) for chosen in used]
    meta["n_visits_all"] = [len(all_) for all_ in rows]
    meta["n_visits"].info.description = "number of visits used"
    meta["n_visits_all"].info.description = "number of visits of the star"
    return meta
