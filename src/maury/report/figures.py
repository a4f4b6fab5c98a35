"""One function per figure. Each takes plain arrays or a catalogue and returns a matplotlib Figure; see ``save_figure``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.assess.calibration import SnrErrorModel
from maury.assess.metrics import coverage, label_metrics, pulls_of, robust_std
from maury.errors import UsageError
from maury.labels import LabelSet
from maury.report.residuals import MANY, bin_lines, equal_count_edges, points, residual_text
from maury.report.style import (
    BLUE,
    COLOUR_MAP,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SKY,
    axis_name,
    figure_title,
    new_figure,
    note,
    remove_empty,
    rows_and_columns,
    signed,
    styled,
    symbol,
    unit_text,
)

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]


@styled
def kiel_diagram(table: Table, *, colour: str | None = None, title: str = "") -> Figure:
    """Surface gravity against effective temperature: Teff runs leftward, log g downward, flagged stars are hollow.

    Parameters
    ----------
    table : a catalogue with ``teff`` and ``logg``; ``e_teff``, ``e_logg``, ``flag`` and ``colour`` are used if there.
    colour : the column that colours the stars; None for the metallicity, fe_h or m_h.

    Raises
    ------
    UsageError
        If ``teff`` or ``logg`` is missing.
    """
    missing = [name for name in ("teff", "logg") if name not in table.colnames]
    if missing:
        raise UsageError(
            f"expected the columns teff and logg for a Kiel diagram, got none of {', '.join(missing)}; use another figure"
        )
    teff, logg = _numbers(table, "teff"), _numbers(table, "logg")
    known = np.isfinite(teff) & np.isfinite(logg)
    doubtful = _numbers(table, "flag") > 0 if "flag" in table.colnames else np.zeros(len(table), bool)
    colour = next((name for name in ("fe_h", "m_h") if name in table.colnames), "") if colour is None else colour
    shade = _numbers(table, colour) if colour in table.colnames else None
    figure = new_figure(6.2, 5.2)
    axes = figure.add_subplot()
    size = 22.0 if known.sum() < MANY else 6.0
    hollow = known & doubtful
    axes.scatter(
        teff[hollow], logg[hollow], s=size, facecolors="none", edgecolors=GREY, linewidths=0.7, label=f"flagged ({hollow.sum()})"
    )
    good = known & ~doubtful
    filled: dict[str, Any] = {"s": size, "linewidths": 0.3, "edgecolors": "white", "label": f"not flagged ({good.sum()})"}
    if shade is None or not np.isfinite(shade[good]).any():
        axes.scatter(teff[good], logg[good], color=BLUE, **filled)
    else:
        low, high = np.nanpercentile(shade[good], [2, 98])
        dots = axes.scatter(teff[good], logg[good], c=shade[good], cmap=COLOUR_MAP, vmin=low, vmax=high, **filled)
        figure.colorbar(dots, ax=axes, label=axis_name(colour, _unit(table, colour)), extend="both", aspect=32, pad=0.02)
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.set(xlabel=axis_name("teff", _unit(table, "teff")), ylabel=axis_name("logg", _unit(table, "logg")), title=title)
    _typical_error(axes, table, good)
    axes.legend(loc="lower left", handletextpad=0.2)
    return figure


@styled
def true_vs_recovered(
    labels: LabelSet,
    true: ArrayLike,
    estimated: ArrayLike,
    errors: ArrayLike | None = None,
    flags: ArrayLike | None = None,
    *,
    title: str = "",
) -> Figure:
    """Recovered against true labels with their residuals; bias, scatter and n are those of the stars without flag.

    Parameters
    ----------
    labels : K labels.
    true, estimated, errors : (n, K) label units; NaN is left out.
    flags : (n,) flag words, or (n, K) of each label; what has any bit is drawn hollow and left out of the numbers.
    """
    truth, guess = np.asarray(true, dtype=float), np.asarray(estimated, dtype=float)
    sigma = None if errors is None else np.asarray(errors, dtype=float)
    bits = np.zeros(len(truth), int) if flags is None else np.asarray(flags)
    doubtful = np.broadcast_to((bits if bits.ndim == 2 else bits[:, None]) != 0, truth.shape)
    rows, columns = rows_and_columns(len(labels))
    figure = new_figure(3.25 * columns + 0.3, 4.6 * rows)
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.6, 1.0] * rows)
    for k, label in enumerate(labels.labels):
        upper, lower = grid[2 * (k // columns) : 2 * (k // columns) + 2, k % columns]
        upper.tick_params(labelbottom=False)
        ok = np.isfinite(truth[:, k]) & np.isfinite(guess[:, k])
        error = None if sigma is None else sigma[:, k]
        good, hollow = ok & ~doubtful[:, k], ok & doubtful[:, k]
        points(upper, truth[:, k], guess[:, k], good=good, doubtful=hollow, error=error)
        points(lower, truth[:, k], guess[:, k] - truth[:, k], good=good, doubtful=hollow, error=error)
        _square_limits(upper, lower, truth[:, k], guess[:, k], good if good.any() else ok)
        note(
            upper, residual_text(label, (guess - truth)[good, k]) + (f"\n{hollow.sum()} flagged: hollow" if hollow.any() else "")
        )
        upper.set_title(symbol(label.name))
        lower.set_xlabel(axis_name(label.name, label.unit).replace("  [", ", true  ["))
        lower.set_xlim(upper.get_xlim())
    for axes, name in zip(grid[:, 0], ("recovered", "residual") * rows, strict=True):
        axes.set_ylabel(name)
    remove_empty(grid, len(labels))
    figure_title(figure, title)
    return figure


@styled
def pull_histogram(labels: LabelSet, true: ArrayLike, estimated: ArrayLike, errors: ArrayLike, *, title: str = "") -> Figure:
    """Histograms of (estimated - true)/error beside the unit Gaussian they should be, with their coverage.

    Parameters
    ----------
    labels : K labels.
    true, estimated, errors : (n, K) label units; NaN is left out.
    """
    pulls = pulls_of(true, estimated, errors)
    rows, columns = rows_and_columns(len(labels))
    figure = new_figure(3.0 * columns + 0.3, 3.2 * rows)
    edges = np.linspace(-5.0, 5.0, 41)
    x = np.linspace(-5.0, 5.0, 400)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for k, (label, axes) in enumerate(zip(labels.labels, grid.flat, strict=False)):
        pull = pulls[np.isfinite(pulls[:, k]), k]
        weights = np.full(pull.size, 1.0 / (max(pull.size, 1) * (edges[1] - edges[0])))
        axes.hist(np.clip(pull, -4.999, 4.999), edges, weights=weights, color=SKY, edgecolor="white", linewidth=0.4)
        axes.plot(x, np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi), color=INK, lw=1.3)
        axes.set(xlabel=f"pull of {symbol(label.name)}", xlim=(-5, 5))
        if pull.size > 1:
            inside = "\n".join(f"{100 * row.level:.0f} %: {100 * row.fraction:.1f}" for row in coverage(pull))
            mean = signed(float(pull.mean()), 2)
            note(axes, f"n = {pull.size}\nmean {mean}\ns.d. {pull.std(ddof=1):.2f}\nrobust {robust_std(pull):.2f}", size=8)
            note(axes, f"inside\n{inside}", corner="upper right", size=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("density")
    remove_empty(grid, len(labels))
    top = max(axes.get_ylim()[1] for axes in figure.axes)
    figure.axes[0].set_ylim(0.0, 1.28 * top)  # room for the numbers
    figure_title(figure, title)
    return figure


@styled
def snr_error_figure(
    model: SnrErrorModel,
    *,
    bins: tuple[ArrayLike, ArrayLike] | None = None,
    others: Mapping[str, SnrErrorModel] | None = None,
    title: str = "",
) -> Figure:
    """Standard error against signal-to-noise for each label.

    Parameters
    ----------
    model : the error model.
    bins : signal-to-noise (n_bins,) and scatter (n_bins, K) it was fitted to (:func:`~maury.assess.learn_errors.snr_bins`).
    others : further models of the same labels to compare with, by name.
    """
    n_labels = len(model.labels)
    low, high = model.snr_range
    centres, scatter = (None, None) if bins is None else (np.asarray(bins[0], dtype=float), np.asarray(bins[1], dtype=float))
    end = high if high is not None else 1.6 * max(model.snr_floor)
    end = end if centres is None else min(end, 1.25 * centres[-1])  # the last stars of a long tail say nothing
    x = np.linspace(low, end, 500)
    figure = new_figure(3.0 * n_labels + 0.3, 3.3)
    for k, axes in enumerate(figure.subplots(1, n_labels, squeeze=False)[0]):
        for colour, (name, other) in zip((GREEN, ORANGE, GREY), (others or {}).items(), strict=False):
            axes.plot(x, other.sigma(x)[:, other.labels.index(model.labels[k])], color=colour, lw=1.3, ls="--", label=name)
        axes.plot(x, model.sigma(x)[:, k], color=BLUE, lw=1.8, label="error model")
        if centres is not None and scatter is not None:
            axes.plot(centres, scatter[:, k], "o", color=INK, ms=4, label="scatter per bin")
        axes.axvline(model.snr_floor[k], color=GREY, lw=0.8, ls=":", label="floor begins")
        axes.set(xlabel=symbol(model.snr_column), title=symbol(model.labels[k]), xlim=(low, end))
        axes.set_ylim(0.0, 1.18 * axes.get_ylim()[1])
        axes.set_ylabel(f"standard error  [{unit_text(model.units[k])}]")
    figure.axes[0].legend(loc="lower left", fontsize=8)
    figure_title(figure, title)
    return figure


@styled
def cross_validation_figure(
    labels: LabelSet,
    true: ArrayLike,
    estimated: ArrayLike,
    errors: ArrayLike | None = None,
    *,
    by: str = "teff",
    n_bins: int = 8,
    title: str = "",
) -> Figure:
    """Residuals of held-out stars along one label: median and robust scatter in bins of equal count, and the errors claimed.

    Parameters
    ----------
    labels : K labels.
    true, estimated, errors : (n, K) label units; NaN is left out.
    by : the label along the axis (true values).
    n_bins : bins of equal count; fewer where there are fewer than 10 stars per bin.

    Raises
    ------
    UsageError
        If there are not two stars with different ``by``.
    """
    truth, guess = np.asarray(true, dtype=float), np.asarray(estimated, dtype=float)
    sigma = None if errors is None else np.asarray(errors, dtype=float)
    along = truth[:, labels.index(by)]
    edges = equal_count_edges(along, n_bins, by)
    ranges = list(pairwise(edges.tolist()))
    rows = label_metrics(truth, guess, sigma, labels=labels, by=by, ranges=ranges)
    figure = new_figure(7.2, 1.9 * len(labels) + 0.7)
    for k, (label, axes) in enumerate(
        zip(labels.labels, figure.subplots(len(labels), 1, squeeze=False, sharex=True)[:, 0], strict=True)
    ):
        residual = guess[:, k] - truth[:, k]
        points(axes, along, residual, good=np.isfinite(along) & np.isfinite(residual))
        bin_lines(axes, edges, [row for row in rows if row.label == label.name][1:])
        if sigma is not None:
            claimed = np.array([np.nanmedian(np.r_[sigma[(along >= a) & (along < b), k], np.nan]) for a, b in ranges])
            for sign in (-1.0, 1.0):
                line = np.r_[claimed, claimed[-1]] * sign
                axes.step(edges, line, where="post", color=GREEN, lw=1.3, ls="--", label="± median error" if sign > 0 else None)
        spread = max(robust_std(residual), 1e-12)
        axes.set(ylim=(-5.0 * spread, 5.0 * spread), ylabel=f"Δ {axis_name(label.name, label.unit)}", xlim=(edges[0], edges[-1]))
        note(axes, residual_text(label, residual[np.isfinite(residual)]).replace("\n", "    "), size=8)
    figure.axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=3, fontsize=8)
    figure.axes[-1].set_xlabel(f"{axis_name(by, labels.labels[labels.index(by)].unit)}")
    figure_title(figure, title)
    return figure


# -- parts --------------------------------------------------------------------------------------------------------


def _numbers(table: Table, name: str) -> FloatArray:
    return np.asarray(np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan), dtype=np.float64)


def _unit(table: Table, name: str) -> str:
    return "" if table[name].unit is None else str(table[name].unit)


def _typical_error(axes: Axes, table: Table, good: NDArray[np.bool_]) -> None:
    """A cross in the upper left corner, the size of the median errors."""
    if not good.any() or not {"e_teff", "e_logg"} <= set(table.colnames):
        return
    e_teff, e_logg = (np.nanmedian(np.r_[_numbers(table, name)[good], np.nan]) for name in ("e_teff", "e_logg"))
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = left + 0.09 * (right - left), top + 0.10 * (bottom - top)
    axes.errorbar(x, y, xerr=e_teff, yerr=e_logg, color=INK, lw=1.0, capsize=2)
    axes.annotate("median error", (x, y), xytext=(9, 7), textcoords="offset points", fontsize=8)


def _square_limits(upper: Axes, lower: Axes, truth: FloatArray, guess: FloatArray, shown: NDArray[np.bool_]) -> None:
    """Limits around all true values and the recovered ones that are to be ``shown`` for sure: no failure shall set them."""
    if not shown.any():
        return
    low, high = (float(f(np.append(truth[np.isfinite(truth)], guess[shown]))) for f in (np.min, np.max))
    margin = 0.05 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    upper.plot(limits, limits, color=INK, lw=0.9, zorder=3)
    upper.set(xlim=limits, ylim=limits)
    lower.axhline(0.0, color=INK, lw=0.9, zorder=3)
    reach = 6.0 * robust_std((guess - truth)[shown]) if shown.sum() > 1 else 1.0
    lower.set_ylim(-reach or -1.0, reach or 1.0)
