"""What figures of residuals have in common: points, bins of equal count, the median's steps, and the numbers in a corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.assess.metrics import LabelMetrics, robust_std
from maury.errors import UsageError
from maury.labels import Label
from maury.report.style import BLUE, GREY, INK, ORANGE, VERMILION, decimals, signed, unit_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]

MANY = 3000
"""Above so many, points become small and faint so that the crowd shows its density."""


def points(
    axes: Axes,
    x: FloatArray,
    y: FloatArray,
    *,
    good: NDArray[np.bool_],
    doubtful: NDArray[np.bool_] | None = None,
    error: FloatArray | None = None,
) -> None:
    """Good stars filled, doubtful ones hollow; errors as thin bars unless there are too many to see."""
    many = good.sum() > MANY
    if error is not None and not many:
        bars = good & np.isfinite(error)
        axes.errorbar(x[bars], y[bars], yerr=error[bars], fmt="none", ecolor=BLUE, elinewidth=0.5, alpha=0.3, zorder=1)
    if doubtful is not None:
        axes.scatter(
            x[doubtful], y[doubtful], s=14, facecolors="none", edgecolors=GREY, linewidths=0.6, zorder=1, rasterized=many
        )
    axes.scatter(
        x[good], y[good], s=2 if many else 9, color=BLUE, alpha=0.25 if many else 0.65, linewidths=0, zorder=2, rasterized=many
    )


def residual_text(label: Label, residual: FloatArray) -> str:
    if residual.size < 2:
        return f"n = {residual.size}"
    scatter, bias = robust_std(residual), float(np.median(residual))
    digits, unit = decimals(scatter), unit_text(label.unit)
    return f"n = {residual.size}\nbias {signed(bias, digits)} {unit}\nscatter {scatter:.{digits}f} {unit}"


def equal_count_edges(along: FloatArray, n_bins: int, name: str) -> FloatArray:
    known = along[np.isfinite(along)]
    if known.size < 2 or known.min() == known.max():
        raise UsageError(f"expected at least two stars with different {name}, got {known.size} stars; validate on more of them")
    edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, max(1, min(n_bins, known.size // 10)) + 1)))
    edges[-1] = np.nextafter(edges[-1], np.inf)  # the largest value belongs to the last bin
    return edges


def bin_lines(axes: Axes, edges: FloatArray, rows: Sequence[LabelMetrics]) -> None:
    bias, scatter = np.array([row.bias for row in rows]), np.array([row.scatter for row in rows])
    low, middle, high = (np.r_[line, line[-1]] for line in (bias - scatter, bias, bias + scatter))
    axes.fill_between(edges, low, high, step="post", color=ORANGE, alpha=0.28, lw=0, zorder=0, label="bias ± scatter")
    axes.step(edges, middle, where="post", color=VERMILION, lw=1.6, zorder=4, label="bias")
    axes.axhline(0.0, color=INK, lw=0.7, zorder=3)
