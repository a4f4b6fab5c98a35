"""Figure of two catalogues: how their labels differ, along the label itself."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from maury.assess.metrics import label_metrics, robust_std
from maury.labels import LabelSet
from maury.report.residuals import bin_lines, equal_count_edges, points, residual_text
from maury.report.style import (
    INK,
    axis_name,
    figure_title,
    new_figure,
    note,
    remove_empty,
    rows_and_columns,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REACH = 5.0  # robust scatters around zero and the median


@styled
def crossmatch_figure(
    labels: LabelSet,
    first: ArrayLike,
    second: ArrayLike,
    errors: ArrayLike | None,
    names: tuple[str, str],
    *,
    n_bins: int = 8,
    title: str = "",
) -> Figure:
    """Difference of each label, first minus second catalogue, along the label in the first; Teff runs leftward.

    Steps are the median and the robust scatter around it, in bins of equal count.

    Parameters
    ----------
    labels : K labels.
    first, second : (n, K) label units, row by row the same star; NaN is left out.
    errors : (n, K) standard errors of the differences, NaN where there are none.
    names : what the catalogues are called.
    n_bins : bins of equal count; fewer where there are fewer than 10 stars per bin.
    """
    ours, theirs = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    sigma = None if errors is None else np.asarray(errors, dtype=float)
    rows, columns = rows_and_columns(len(labels))
    figure = new_figure(3.6 * columns + 0.3, 3.3 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for k, (label, axes) in enumerate(zip(labels.labels, grid.flat, strict=False)):
        along, difference = ours[:, k], ours[:, k] - theirs[:, k]
        both = np.isfinite(difference)
        points(axes, along, difference, good=both, error=None if sigma is None else sigma[:, k])
        axes.axhline(0.0, color=INK, lw=0.7, zorder=3)
        if both.sum() > 1 and np.ptp(along[both]) > 0:
            edges = equal_count_edges(along[both], n_bins, label.name)
            scores = label_metrics(
                theirs, ours, labels=labels, by=(label.name, along), ranges=list(pairwise(edges.tolist())), n_bootstrap=0
            )
            bin_lines(axes, edges, [row for row in scores if row.label == label.name][1:])
            spread, middle = max(robust_std(difference), 1e-12), float(np.median(difference[both]))
            axes.set_ylim(min(0.0, middle) - _REACH * spread, max(0.0, middle) + _REACH * spread)
        if label.name == "teff":
            axes.invert_xaxis()
        axes.set(xlabel=f"{axis_name(label.name, label.unit)}, {names[0]}", ylabel=f"Δ {axis_name(label.name, label.unit)}")
        low, high = axes.get_ylim()
        beyond = int(((difference[both] < low) | (difference[both] > high)).sum())
        note(axes, residual_text(label, difference[both]) + (f"\n{beyond} beyond the frame" if beyond else ""), size=8)
    grid.flat[0].legend(*grid.flat[0].get_legend_handles_labels(), loc="lower left", fontsize=8)
    remove_empty(grid, len(labels))
    figure_title(figure, title or f"{names[0]} − {names[1]}")
    return figure
