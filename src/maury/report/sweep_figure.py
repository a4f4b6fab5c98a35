"""Figure of a sweep: the error of every network, by what it sees and by its depth, against the threshold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from maury.labels import Label
from maury.networks.topology import PRESETS
from maury.report.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILION, axis_name, new_figure, styled, unit_text

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, GREY)
_MARKERS = "osD^vP"
_WIDTH = 0.32  # of a place, to either side, over which its networks are spread
_PLACES_PER_INCH = 1.2
_LEGEND_COLUMN = 2.4  # inches
_FEW_DECADES = 300.0  # between the largest and the smallest error, below which ticks between powers of ten have names


@styled
def sweep_figure(table: Table, labels: Sequence[Label], thresholds: Mapping[str, float]) -> Figure:
    """Mean error of each network on the screening spectra.

    Parameters
    ----------
    table : of :func:`maury.recipes.sweep_screening.runs_table`.
    labels : a panel for each.
    thresholds : by label, label units.
    """
    places = sorted({_place(windows, chunk) for windows, chunk in zip(table["windows"], table["chunk"], strict=True)}, key=_order)
    depths = sorted({_depth(str(name)) for name in table["architecture"]})
    figure = new_figure(max(6.0, 1.6 + len(places) / _PLACES_PER_INCH), 1.6 + 2.1 * len(labels))
    panels = figure.subplots(len(labels), 1, sharex=True, squeeze=False)[:, 0]
    for label, axes in zip(labels, panels, strict=True):
        _panel(axes, table, label, places, depths)
        axes.axhline(thresholds[label.name], color=INK, lw=1.0, ls="--", zorder=1, label="threshold")
        axes.set_title(f"threshold {thresholds[label.name]:g} {unit_text(label.unit)}", loc="right", fontsize=8.5, pad=3)
    panels[-1].set_xticks(range(len(places)), places, rotation=35, ha="right", rotation_mode="anchor")
    panels[-1].set_xlabel("window (Å) and pixels of a chunk")
    found: dict[str, Artist] = {}
    for axes in panels:
        found = {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)} | found
    order = sorted(found, key=_natural)
    columns = min(len(found), 6, max(1, int(figure.get_figwidth() / _LEGEND_COLUMN)))
    figure.legend([found[text] for text in order], order, loc="outside upper center", ncols=columns, markerscale=1.4)
    return figure


def _panel(axes: Axes, table: Table, label: Label, places: list[str], depths: list[int]) -> None:
    error = np.asarray(table[f"mae_{label.name}"], dtype=np.float64)
    joint = np.array(["+" in str(names) for names in table["labels"]])
    place = np.array(
        [places.index(_place(w, c)) for w, c in zip(table["windows"], table["chunk"], strict=True)], dtype=np.float64
    )
    depth = np.array([_depth(str(name)) for name in table["architecture"]])
    for number, some in enumerate(depths):
        offset = 0.0 if len(depths) == 1 else _WIDTH * (2.0 * number / (len(depths) - 1) - 1.0)
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        for together in (False, True):
            mine = np.flatnonzero(np.isfinite(error) & (depth == some) & (joint == together))
            if mine.size:
                spread = 0.06 * (np.arange(mine.size) % 3 - 1)  # neighbours that are alike stay visible
                name = f"{some} convolutions" + (", joint labels" if together else "")
                face = "none" if together else colour
                axes.scatter(
                    place[mine] + offset + spread, error[mine], s=18, c=face, ec=colour, marker=marker, lw=0.9, label=name
                )
    axes.set(yscale="log", ylabel=f"mean error, {axis_name(label.name, label.unit)}", xlim=(-0.6, len(places) - 0.4))
    axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    axes.yaxis.set_major_formatter("{x:g}")
    few = np.nanmax(error, initial=0.0) < _FEW_DECADES * np.nanmin(error, initial=np.inf)
    axes.yaxis.set_minor_formatter(_minor_text if few else "")
    axes.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.5)
    for between in range(1, len(places)):
        axes.axvline(between - 0.5, color=GREY, alpha=0.4, linewidth=0.5, zorder=0)


def _minor_text(value: float, _position: object = None) -> str:
    """Names of ticks between the powers of ten: some of them."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _place(windows: object, chunk: object) -> str:
    return str(windows).replace("+", "+\n") + (f": {chunk}" if chunk else "")


def _order(place: str) -> tuple[int, list[tuple[float, str]]]:
    """Joined windows come last."""
    return place.count("+"), _natural(place)


def _depth(architecture: str) -> int:
    """Convolutions of a topology."""
    return len(PRESETS[architecture].filters) if architecture in PRESETS else 0


def _natural(text: str) -> list[tuple[float, str]]:
    """Numbers in a text count as numbers."""
    return [(float(word), "") if word[0].isdigit() else (np.inf, word) for word in re.findall(r"[\d.]+|[^\d.]+", text)]
