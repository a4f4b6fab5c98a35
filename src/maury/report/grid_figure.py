"""Which labels a grid of model spectra has, and where its holes are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.grids.grid import FloatArray, Grid, Lattice
from maury.report.style import BLUE, GREY, ORANGE, VERMILION, axis_name, new_figure, styled, symbol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_PANELS = 12
_PANELS_PER_ROW = 4
_SIZE = (3.1, 2.6)  # inches of one panel
_MOST_TICKS = 5  # intervals: five-digit Teff of neighbouring panels would touch otherwise
_LARGEST = 22.0  # square points of a marker; those of the legend, whatever the size in the panels
_LEFTWARD, _DOWNWARD = "teff", "logg"  # as in a Kiel diagram


@styled
def grid_figure(grid: Grid) -> Figure:
    """Coverage of a grid: nodes of the first two labels that vary, a panel for each value of the third.

    Where more labels vary, a node stands for all their combinations: blue if all are there, orange if some are, a cross if none.
    Scattered points are drawn as they are, the first label against each of the next three.

    Raises
    ------
    UsageError
        If fewer than two labels vary.
    """
    varying = [k for k in range(len(grid.labels)) if np.ptp(grid.values[:, k]) > 0]
    if len(varying) < 2:
        raise UsageError(f"expected a grid in which two labels vary, got {len(varying)} in {grid.name}; see `maury grid info`")
    if not grid.is_lattice:
        return _scattered(grid, varying)
    return _panels(grid, varying)


def _panels(grid: Grid, varying: list[int]) -> Figure:
    lattice = grid.lattice
    panel = varying[2] if len(varying) > 2 and len(lattice.axes[varying[2]]) <= _MOST_PANELS else None
    values = np.array([np.nan]) if panel is None else lattice.axes[panel]
    columns = min(len(values), _PANELS_PER_ROW)
    lines = math.ceil(len(values) / columns)
    figure = new_figure(max(_SIZE[0] * columns + 0.6, 4.6), _SIZE[1] * lines + 1.1)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for number, (value, one) in enumerate(zip(values, axes, strict=False)):
        _nodes(one, (lattice.axes[varying[0]], lattice.axes[varying[1]]), _share(lattice, varying[:2], panel, number))
        if panel is not None:
            label = grid.labels[panel]
            one.set_title(f"{symbol(label.name)} = {value:g} {label.unit}".replace("-", "−"))
    _name_axes(grid, varying, axes[0])
    below = [axes[i] for i in range(len(values)) if i + columns >= len(values)]
    for one in below:
        one.set_xlabel(axis_name(grid.labels[varying[0]].name, grid.labels[varying[0]].unit))
        one.tick_params(labelbottom=True)
        one.locator_params(axis="x", nbins=_MOST_TICKS)
    for one in axes[: len(values) : columns]:
        one.set_ylabel(axis_name(grid.labels[varying[1]].name, grid.labels[varying[1]].unit))
    for one in axes[len(values) :]:
        one.set_visible(False)
    behind = [grid.labels[k].name for k in varying[2:] if k != panel]
    _legend(figure, axes[: len(values)], ", ".join(map(symbol, behind)))
    holes = f"{len(lattice.holes)} {'hole' if len(lattice.holes) == 1 else 'holes'}" if len(lattice.holes) else "no holes"
    figure.suptitle(f"{grid.name}: {grid.n_spectra} spectra, {holes}", x=0.01, ha="left")
    return figure


def _share(lattice: Lattice, drawn: list[int], panel: int | None, number: int) -> FloatArray:
    """(n_1, n_2) fraction of the nodes behind each drawn one that have a spectrum, in one panel."""
    there = (lattice.rows >= 0).astype(np.float64)
    if panel is not None:
        there = np.take(there, [number], axis=panel)
    behind = tuple(k for k in range(there.ndim) if k not in drawn)
    return np.asarray(there.mean(axis=behind) if behind else there)


def _nodes(axes: Axes, drawn: tuple[FloatArray, FloatArray], share: FloatArray) -> None:
    """Full, partly filled and empty nodes, each with a colour and a shape of its own."""
    x, y = np.meshgrid(*drawn, indexing="ij")
    size = float(np.clip(1500 / share.size, 5, _LARGEST))
    looks: Any = (
        (share == 1, "all there", {"c": BLUE, "marker": "o", "s": size, "linewidths": 0}),
        ((share > 0) & (share < 1), "some there", {"c": ORANGE, "marker": "s", "s": size, "linewidths": 0}),
        (share == 0, "hole", {"c": VERMILION, "marker": "x", "s": 1.6 * size, "linewidths": 1.1}),
    )
    for mine, name, look in looks:
        if mine.any():
            axes.scatter(x[mine], y[mine], label=name, zorder=3, **look)
    axes.grid(color=GREY, alpha=0.2, linewidth=0.5)


def _scattered(grid: Grid, varying: list[int]) -> Figure:
    others = varying[1:4]
    figure = new_figure(max(_SIZE[0] * len(others) + 0.6, 4.6), _SIZE[1] + 1.0)
    size = float(np.clip(8000 / grid.n_spectra, 2, 16))
    for one, k in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        one.scatter(grid.values[:, varying[0]], grid.values[:, k], s=size, c=BLUE, linewidths=0, alpha=0.7)
        one.set(
            xlabel=axis_name(grid.labels[varying[0]].name, grid.labels[varying[0]].unit),
            ylabel=axis_name(grid.labels[k].name, grid.labels[k].unit),
        )
        one.grid(color=GREY, alpha=0.2, linewidth=0.5)
        _name_axes(grid, [varying[0], k], one)
    figure.suptitle(f"{grid.name}: {grid.n_spectra} spectra at scattered points", x=0.01, ha="left")
    return figure


def _name_axes(grid: Grid, drawn: list[int], axes: Axes) -> None:
    """Directions of a Kiel diagram; shared by all panels."""
    if grid.names[drawn[0]] == _LEFTWARD:
        axes.invert_xaxis()
    if grid.names[drawn[1]] == _DOWNWARD:
        axes.invert_yaxis()


def _legend(figure: Figure, panels: NDArray[Any], behind: str) -> None:
    found = {text: handle for one in panels for handle, text in zip(*one.get_legend_handles_labels(), strict=True)}
    all_there = f"all {behind} there" if behind else "spectrum"
    texts = {"all there": all_there, "some there": f"some {behind} there", "hole": "hole"}
    order = [text for text in texts if text in found]
    scale = math.sqrt(_LARGEST / min(float(found[text].get_sizes()[0]) for text in order))
    handles, names = [found[text] for text in order], [texts[text] for text in order]
    figure.legend(handles, names, loc="outside lower center", ncols=3, markerscale=scale)
