"""Figures of the synthetic gap: a map of synthetic and observed spectra, and whether the gap tells a star's error."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.labels import Label
from maury.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    VERMILION,
    axis_name,
    figure_title,
    new_figure,
    note,
    remove_empty,
    rows_and_columns,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

NO_UMAP = (
    "expected umap-learn for a UMAP projection, got none installed; drew principal components instead: "
    "python3 -m pip install 'maury[gap]'"
)
OBSERVED = "observed"
_LOOKS = ((GREY, "o"), (BLUE, "s"), (ORANGE, "^"), (GREEN, "v"))
_FEW = 100  # observed spectra that are drawn large
_LOWEST = 0.01  # ratio drawn at the left end; noise leaves some below zero


def has_umap() -> bool:
    """Whether the optional package umap-learn is installed."""
    return find_spec("umap") is not None


def gap_map(groups: Mapping[str, FloatArray], *, seed: int = 0) -> dict[str, FloatArray]:
    """Two-dimensional map of spectra: UMAP with the correlation metric where umap-learn is there, else principal components.

    Axes have no meaning, and a seed does not give the same map on another machine.

    Parameters
    ----------
    groups : name -> (n, m) spectra on the same pixels.

    Returns
    -------
    Name -> (n, 2).
    """
    everything = np.vstack(list(groups.values()))
    if has_umap():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a seed costs parallelism, and numba's about itself
            mapper = import_module("umap").UMAP(metric="correlation", random_state=seed)
            points = np.asarray(mapper.fit_transform(everything.astype(np.float32)), dtype=np.float64)
    else:
        centred = everything - everything.mean(axis=0)
        left, size, _ = np.linalg.svd(centred, full_matrices=False)
        points = left[:, :2] * size[:2]
    ends = np.cumsum([len(rows) for rows in groups.values()])
    return dict(zip(groups, np.split(points, ends[:-1]), strict=True))


@styled
def gap_figure(points: Mapping[str, FloatArray], ratio: FloatArray, *, axes: str, title: str = "") -> Figure:
    """The map beside the distribution of the distance ratios.

    Parameters
    ----------
    points : name -> (n, 2) of :func:`gap_map`; up to four synthetic groups, then "observed".
    ratio : (n,) of the observed spectra; NaN are left out.
    axes : what the map's axes are, such as "UMAP".

    Raises
    ------
    UsageError
        If there are more than four synthetic groups, or no observed one.
    """
    synthetic = {name: xy for name, xy in points.items() if name != OBSERVED}
    if OBSERVED not in points or not 1 <= len(synthetic) <= len(_LOOKS):
        raise UsageError(f"expected one to four synthetic groups and {OBSERVED!r}, got {', '.join(points)}; correct the groups")
    figure = new_figure(9.0, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    for (name, xy), (colour, marker) in zip(synthetic.items(), _LOOKS, strict=False):
        left.scatter(*xy.T, s=7, marker=marker, color=colour, alpha=0.55, lw=0, label=name, rasterized=True)
    size = 26 if len(points[OBSERVED]) <= _FEW else 11
    left.scatter(*points[OBSERVED].T, s=size, marker="D", color=VERMILION, edgecolor="white", lw=0.4, label=OBSERVED, zorder=5)
    left.set(xlabel=f"{axes} 1", ylabel=f"{axes} 2")
    left.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, ncols=3, columnspacing=1.0, handletextpad=0.2)
    _histogram(right, ratio[np.isfinite(ratio)])
    figure_title(figure, title)
    return figure


def _histogram(axes: Axes, ratio: FloatArray) -> None:
    shown = np.maximum(ratio, _LOWEST)
    top = max(float(shown.max(initial=1.0)), 10.0) * 1.2
    axes.hist(shown, bins=np.geomspace(_LOWEST, top, 40).tolist(), color=VERMILION, alpha=0.75)
    axes.axvline(1.0, color=INK, lw=1.2, ls="--")
    axes.set(
        xscale="log", xlim=(_LOWEST * 0.9, top), xlabel="distance beyond noise / largest explained", ylabel="observed spectra"
    )
    if ratio.size:
        note(axes, f"{100 * (ratio > 1).mean():.0f} % beyond 1\nmedian {np.median(ratio):.2g}", corner="upper right")


@styled
def gap_error_figure(
    labels: Sequence[Label], ratio: FloatArray, residual: FloatArray, correlation: Sequence[str], *, title: str = ""
) -> Figure:
    """Absolute error of each label against the gap ratio, with running medians.

    Parameters
    ----------
    labels : K of them; ratio : (n,); residual : (n, K) estimated minus known, label units; NaN are left out.
    correlation : K notes, such as the rank correlation.

    Raises
    ------
    UsageError
        If shapes disagree.
    """
    if residual.shape != (len(ratio), len(labels)) or len(correlation) != len(labels):
        raise UsageError(
            f"expected residuals ({len(ratio)}, {len(labels)}) and a note for each label, got {residual.shape} and "
            f"{len(correlation)}; one row per star"
        )
    rows, columns = rows_and_columns(len(labels))
    figure = new_figure(0.6 + 3.0 * columns, 0.4 + 2.8 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, label, values, text in zip(grid.flat, labels, np.abs(residual).T, correlation, strict=False):
        known = np.isfinite(ratio) & np.isfinite(values)
        x, y = np.maximum(ratio[known], _LOWEST), values[known]
        axes.scatter(x, y, s=9, color=BLUE, alpha=0.5, lw=0, rasterized=True)
        if len(x) >= 20:
            parts = np.array_split(np.argsort(x, kind="stable"), min(8, len(x) // 10))
            middle = [(np.median(x[part]), np.median(y[part])) for part in parts]
            axes.plot(*np.array(middle).T, color=VERMILION, marker="o", ms=4, lw=1.4)
        axes.axvline(1.0, color=INK, lw=1.0, ls="--")
        axes.set(xscale="log", xlabel="gap", ylabel=f"|error of {axis_name(label.name, label.unit)}|")
        if (y > 0).any():
            axes.set(yscale="log", ylim=(np.quantile(y[y > 0], 0.01) / 2, 2 * y.max()))
        note(axes, text)
    remove_empty(grid, len(labels))
    figure_title(figure, title)
    return figure
