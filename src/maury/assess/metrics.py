"""How far estimates lie from the truth: bias, scatter, pulls and coverage, per label and range.

Definitions (METHODS, "Metrics"), with residual = estimated - true:

* bias     median of the residuals
* mean     mean of the residuals, which a few wild ones may move
* scatter  1.4826 times the median absolute deviation of the residuals from their median
* RMSE     square root of the mean squared residual (about zero, so it contains the bias)
* MAE      mean absolute residual
* pull     residual / standard error; for right errors its mean is 0 and its standard deviation 1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.constants import ROBUST_SIGMA_PER_MAD
from maury.errors import UsageError
from maury.labels import LabelSet

if TYPE_CHECKING:
    from astropy.table import Table

FloatArray = NDArray[np.float64]
Ranges = Sequence[tuple[float, float]]

ALL = "all"


@dataclass(frozen=True)
class LabelMetrics:
    """Metrics of one label over one selection of stars; NaN where too few stars (fewer than 2) have both values.

    ``bias``, ``mean``, ``scatter``, ``scatter_error`` (bootstrap), ``rmse`` and ``mae`` are in the label's ``unit``; pulls have
    none.
    ``n`` stars have truth and estimate, ``n_failed`` have truth but no estimate.
    """

    label: str
    unit: str
    selection: str
    n: int
    n_failed: int
    bias: float
    mean: float
    scatter: float
    scatter_error: float
    rmse: float
    mae: float
    pull_mean: float = np.nan
    pull_scatter: float = np.nan
    pull_std: float = np.nan


@dataclass(frozen=True)
class Coverage:
    """Fraction of the stars whose true value lies inside the interval of nominal probability ``level``.

    ``uncertainty`` is the binomial standard error of that fraction if the errors are right, sqrt(level (1 - level)/n).
    """

    level: float
    fraction: float
    uncertainty: float
    n: int


def robust_std(values: ArrayLike) -> float:
    """1.4826 x median absolute deviation from the median of the finite values; NaN for fewer than two."""
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array)]
    if array.size < 2:
        return float("nan")
    return float(ROBUST_SIGMA_PER_MAD * np.median(np.abs(array - np.median(array))))


def label_metrics(
    true: ArrayLike,
    estimated: ArrayLike,
    errors: ArrayLike | None = None,
    *,
    labels: LabelSet,
    by: str | tuple[str, ArrayLike] | None = None,
    ranges: Ranges | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> list[LabelMetrics]:
    """Metrics of every label over all stars, then over each range.

    Parameters
    ----------
    true, estimated : (n, K) label units; NaN for unknown truth or failed estimates.
    errors : (n, K) standard errors of the estimates; without them there are no pulls.
    labels : names and units of the K labels.
    by : the label whose *true* value sorts stars into ``ranges``, or (name, (n,) values), for example ("snr", snr).
    ranges : (low, high) pairs, low <= value < high.
    n_bootstrap, seed : resamples for the error of the scatter; 0 resamples give NaN. The seed makes it repeatable.

    Returns
    -------
    One :class:`LabelMetrics` per selection and label; the selection of all stars comes first.

    Raises
    ------
    UsageError
        If shapes disagree, or ``by`` and ``ranges`` do not come together.
    """
    truth, guess = _check(true, labels, "true"), _check(estimated, labels, "estimated")
    sigma = None if errors is None else _check(errors, labels, "errors")
    if truth.shape != guess.shape or (sigma is not None and sigma.shape != guess.shape):
        raise UsageError(
            f"expected true, estimated and errors of one shape, got {truth.shape} and {guess.shape}; one row per star"
        )
    rows = []
    for selection, chosen in _selections(truth, labels, by, ranges):
        for k, label in enumerate(labels.labels):
            error = None if sigma is None else sigma[chosen, k]
            metrics = _metrics(truth[chosen, k], guess[chosen, k], error, (n_bootstrap, np.random.default_rng(seed)))
            rows.append(LabelMetrics(label.name, label.unit, selection, **metrics))
    return rows


def pulls_of(true: ArrayLike, estimated: ArrayLike, errors: ArrayLike) -> FloatArray:
    """(estimated - true)/errors, NaN where an error is zero or anything is missing."""
    sigma = np.asarray(errors, dtype=float)
    usable = np.where(sigma > 0, sigma, np.nan)
    return np.asarray((np.asarray(estimated, dtype=float) - np.asarray(true, dtype=float)) / usable)


def coverage(pulls: ArrayLike, levels: Sequence[float] = (0.6827, 0.9545)) -> list[Coverage]:
    """How many pulls lie inside the two-sided Gaussian intervals of the given probabilities.

    Parameters
    ----------
    pulls : any shape; those that are not finite are left out.
    levels : probabilities between 0 and 1.

    Raises
    ------
    UsageError
        If a level is not between 0 and 1.
    """
    from statistics import NormalDist

    if not all(0.0 < level < 1.0 for level in levels):
        raise UsageError(f"expected coverage levels between 0 and 1, got {tuple(levels)}; write 0.6827, not 68.27")
    array = np.abs(np.asarray(pulls, dtype=float))
    array = array[np.isfinite(array)]
    n = int(array.size)
    rows = []
    for level in levels:
        limit = NormalDist().inv_cdf(0.5 + level / 2.0)
        fraction = float(np.mean(array <= limit)) if n else float("nan")
        rows.append(Coverage(level, fraction, float(np.sqrt(level * (1.0 - level) / n)) if n else float("nan"), n))
    return rows


# -- tables -------------------------------------------------------------------------------------------------------


def summary_table(rows: Sequence[LabelMetrics]) -> Table:
    """One row per selection, columns ``n_teff``, ``bias_teff``, ``scatter_teff``, ... with the labels' units."""
    from astropy.table import Column, Table

    selections = list(dict.fromkeys(row.selection for row in rows))
    units = {row.label: row.unit for row in rows}
    by_place = {(row.selection, row.label): row for row in rows}
    table = Table([Column(np.array(selections, dtype=np.str_), name="selection", description="stars the row is about")])
    for label, unit in units.items():
        for field, about, has_unit in _TABLE_FIELDS:
            values = [getattr(by_place[selection, label], field) for selection in selections]
            column_unit = unit if has_unit and unit else None
            table.add_column(Column(values, name=f"{field}_{label}", unit=column_unit, description=f"{about} of {label}"))
    return table


def format_table(rows: Sequence[LabelMetrics]) -> str:
    """Plain text for a terminal or a page; digits follow the scatter (three of it are shown)."""
    with_pulls = any(np.isfinite(row.pull_std) for row in rows)
    head = ["label", "unit", "stars", "n", "failed", "bias", "mean", "scatter", "+-", "RMSE", "MAE"]
    lines = [[*head, "pull mean", "pull scatter", "pull std"] if with_pulls else head]
    for row in rows:
        digits = _digits(row.scatter)
        lengths = (row.bias, row.mean, row.scatter, row.scatter_error, row.rmse, row.mae)
        cells = [row.label, row.unit, row.selection, str(row.n), str(row.n_failed), *(_number(x, digits) for x in lengths)]
        lines.append(cells + [_number(x, 2) for x in (row.pull_mean, row.pull_scatter, row.pull_std)] if with_pulls else cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    left = 3  # the first columns are text
    text = [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


_TABLE_FIELDS = (
    ("n", "number of stars with truth and estimate", False),
    ("n_failed", "number of stars with truth and no estimate", False),
    ("bias", "median residual", True),
    ("mean", "mean residual", True),
    ("scatter", "1.4826 MAD of the residuals", True),
    ("scatter_error", "bootstrap error of the scatter", True),
    ("rmse", "root mean square residual", True),
    ("mae", "mean absolute residual", True),
    ("pull_mean", "mean pull", False),
    ("pull_scatter", "1.4826 MAD of the pulls", False),
    ("pull_std", "standard deviation of the pulls", False),
)


# -- parts --------------------------------------------------------------------------------------------------------


def _check(values: ArrayLike, labels: LabelSet, name: str) -> FloatArray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 2 or array.shape[1] != len(labels):
        raise UsageError(f"expected {name} of shape (n_stars, {len(labels)}), got {array.shape}; one column per label")
    return array


def _selections(
    truth: FloatArray, labels: LabelSet, by: str | tuple[str, ArrayLike] | None, ranges: Ranges | None
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    if (by is None) != (ranges is None):
        raise UsageError("expected 'by' and 'ranges' together, got one of them; say which quantity the ranges are of")
    yield ALL, np.ones(len(truth), dtype=bool)
    if by is None or ranges is None:
        return
    name, values = (by, truth[:, labels.index(by)]) if isinstance(by, str) else (by[0], np.asarray(by[1], dtype=float))
    if values.shape != (len(truth),):
        raise UsageError(f"expected one value of {name} for each of {len(truth)} stars, got shape {values.shape}")
    for low, high in ranges:
        yield _range_text(low, name, high), (values >= low) & (values < high)


def _range_text(low: float, name: str, high: float) -> str:
    if np.isneginf(low):
        return f"{name} < {high:g}"
    return f"{name} >= {low:g}" if np.isposinf(high) else f"{low:g} <= {name} < {high:g}"


def _metrics(
    truth: FloatArray, guess: FloatArray, error: FloatArray | None, resample: tuple[int, np.random.Generator]
) -> dict[str, Any]:
    known = np.isfinite(truth)
    both = known & np.isfinite(guess)
    residual = (guess - truth)[both]
    counts: dict[str, Any] = {"n": int(both.sum()), "n_failed": int((known & ~both).sum())}
    if counts["n"] < 2:
        return counts | dict.fromkeys(("bias", "mean", "scatter", "scatter_error", "rmse", "mae"), float("nan"))
    pull = np.zeros(0) if error is None else pulls_of(truth[both], guess[both], error[both])
    pull = pull[np.isfinite(pull)]
    enough = pull.size >= 2
    return counts | {
        "bias": float(np.median(residual)),
        "mean": float(np.mean(residual)),
        "scatter": robust_std(residual),
        "scatter_error": _bootstrap_error(residual, *resample),
        "rmse": float(np.sqrt(np.mean(residual**2))),
        "mae": float(np.mean(np.abs(residual))),
        "pull_mean": float(np.mean(pull)) if enough else float("nan"),
        "pull_scatter": robust_std(pull),
        "pull_std": float(np.std(pull, ddof=1)) if enough else float("nan"),
    }


def _bootstrap_error(residual: FloatArray, n_bootstrap: int, rng: np.random.Generator) -> float:
    """Standard deviation of the scatter over resamples with replacement."""
    if n_bootstrap < 2:
        return float("nan")
    return float(np.std([robust_std(rng.choice(residual, residual.size)) for _ in range(n_bootstrap)], ddof=1))


def _digits(scatter: float) -> int:
    return 3 if not scatter > 0 else int(np.clip(2 - np.floor(np.log10(scatter)), 0, 6))


def _number(value: float, digits: int) -> str:
    return "-" if not np.isfinite(value) else f"{value:.{digits}f}"
