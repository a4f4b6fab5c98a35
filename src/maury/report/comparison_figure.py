"""Figure of a comparison: estimate - truth of every test star by every system, and bias and scatter side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.assess.comparison import SystemScore
from maury.errors import UsageError
from maury.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SKY,
    VERMILION,
    axis_name,
    decimals,
    new_figure,
    signed,
    styled,
    unit_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_LOOKS = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "D"), (ORANGE, "^"), (SKY, "v"), (GREY, "P"))
_QUANTILE, _REACH = 0.95, 1.5  # of the systems' residuals: beyond so many times that, points stand at the edge
_MANY = 200  # stars without error bars
_NAME = 22  # letters of a system's name in a line of a title


@dataclass(frozen=True, eq=False)
class DrawnSystem:
    """What is drawn of one system.

    Parameters
    ----------
    name : title of its column.
    labels : K names, as the system calls them.
    truth, values, errors : (n, K) label units.
    common : (n,) stars that the scores are about; others are drawn pale.
    scores : of each label.
    """

    name: str
    labels: tuple[str, ...]
    truth: FloatArray
    values: FloatArray
    errors: FloatArray
    common: NDArray[np.bool_]
    scores: Sequence[SystemScore]


@styled
def comparison_figure(systems: Sequence[DrawnSystem]) -> Figure:
    """A row for each label: a panel for each system over the true label, and one of bias and scatter with their errors.

    All panels of a row have one scale; points beyond it stand as small triangles at its edge.

    Raises
    ------
    UsageError
        If there is no system.
    """
    if not systems:
        raise UsageError("expected at least one system to draw, got none")
    units = [score.unit for score in systems[0].scores]
    n_labels, n_systems = len(units), len(systems)
    figure = new_figure(2.35 * n_systems + 2.1, 2.35 * n_labels + 0.7)
    widths = [1.0] * n_systems + [0.42 + 0.16 * n_systems]
    grid: Any = figure.subplots(n_labels, n_systems + 1, squeeze=False, sharey="row", width_ratios=widths)
    for k, unit in enumerate(units):
        reach = _reach(systems, k)
        for number, system in enumerate(systems):
            _residuals(grid[k, number], system, k, _LOOKS[number % len(_LOOKS)], reach)
            grid[k, number].set_xlabel(axis_name(system.labels[k], unit))
        _summary(grid[k, -1], systems, k)
        grid[k, 0].set_ylabel("estimate − truth" + (f"  [{unit_text(unit)}]" if unit else ""))
        grid[k, 0].set_ylim(-reach, reach)
    for number, system in enumerate(systems):
        _column_name(grid[0, number], _wrapped(system.name), _LOOKS[number % len(_LOOKS)][0])
    _column_name(grid[0, -1], "bias and scatter", INK)
    return figure


def _reach(systems: Sequence[DrawnSystem], k: int) -> float:
    sizes = [np.abs(system.values[:, k] - system.truth[:, k]) for system in systems]
    largest = [float(np.quantile(size[np.isfinite(size)], _QUANTILE)) for size in sizes if np.isfinite(size).any()]
    return _REACH * max(float(np.median(largest)), 1e-9) if largest else 1.0


def _residuals(axes: Axes, system: DrawnSystem, k: int, look: tuple[str, str], reach: float) -> None:
    colour, marker = look
    truth, residual = system.truth[:, k], system.values[:, k] - system.truth[:, k]
    known = np.isfinite(residual)
    inside = known & (np.abs(residual) <= reach)
    axes.axhline(0.0, color=INK, lw=0.9, zorder=1)
    few = known.sum() <= _MANY
    for chosen, alpha in ((inside & ~system.common, 0.25), (inside & system.common, 0.85 if few else 0.5)):
        if few:
            bars = np.where(np.isfinite(system.errors[chosen, k]), system.errors[chosen, k], 0.0)
            axes.errorbar(
                truth[chosen], residual[chosen], yerr=bars, fmt="none", ecolor=colour, elinewidth=0.6, alpha=0.3 * alpha
            )
        axes.plot(truth[chosen], residual[chosen], marker, color=colour, ms=3.4 if few else 2.4, mew=0, alpha=alpha)
    for edge, shape in ((reach, "^"), (-reach, "v")):
        beyond = known & ((residual > edge) if edge > 0 else (residual < edge))
        axes.plot(truth[beyond], np.full(beyond.sum(), 0.965 * edge), shape, color=colour, ms=4.5, mfc="none", mew=0.9)
    score = system.scores[k]
    digits = decimals(score.scatter)
    text = f"bias {signed(score.bias, digits)} ± {score.bias_error:.{digits}f}, scatter {score.scatter:.{digits}f}"
    axes.set_title(text, fontsize=7.5, pad=3)
    low, high = float(np.nanmin(truth)), float(np.nanmax(truth))
    margin = 0.05 * (high - low) or 1.0
    hot_left = system.labels[k] == "teff"  # as in every diagram of the field
    axes.set_xlim(*((high + margin, low - margin) if hot_left else (low - margin, high + margin)))


def _summary(axes: Axes, systems: Sequence[DrawnSystem], k: int) -> None:
    """Bias with its error, and bias plus and minus scatter, on the scale of the row."""
    axes.axhline(0.0, color=INK, lw=0.9, zorder=1)
    for number, system in enumerate(systems):
        colour, marker = _LOOKS[number % len(_LOOKS)]
        score = system.scores[k]
        axes.bar(number, 2.0 * score.scatter, bottom=score.bias - score.scatter, width=0.62, color=colour, alpha=0.28, lw=0)
        axes.errorbar(number, score.bias, yerr=score.bias_error, fmt=marker, color=colour, ms=5, lw=1.3, capsize=2.5)
    axes.set_xlim(-0.7, len(systems) - 0.3)
    axes.set_xticks([])
    axes.tick_params(axis="x", which="both", bottom=False, top=False)


def _column_name(axes: Axes, text: str, colour: str) -> None:
    """Above the numbers of the first row."""
    look: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "color": colour, "fontsize": 10}
    axes.annotate(text, (0.0, 1.0), (0, 17), ha="left", va="bottom", **look)


def _wrapped(name: str) -> str:
    """A long name in two lines, broken at a hyphen."""
    if len(name) <= _NAME or "-" not in name:
        return name
    places = [i for i, letter in enumerate(name) if letter == "-"]
    middle = min(places, key=lambda place: abs(place - len(name) // 2))
    return f"{name[: middle + 1]}\n{name[middle + 1 :]}"
