"""Which labels the stars of a training set have, part by part, and where there are too few of them to trust a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError
from maury.labels import LabelSet
from maury.report.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILION, axis_name, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_LOOK: Any = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (SKY, "D"), (VERMILION, "v"))
"""Colour and shape of each part: shapes tell them apart without colours."""
_METALS = ("fe_h", "m_h")


def neighbour_distance(labels: LabelSet, values: ArrayLike, k: int = 5) -> FloatArray:
    """(n,) distance of each star to its k-th nearest other star in scaled labels: small where the training set is dense.

    Parameters
    ----------
    values : (n, K) in label units; n > k.
    k : neighbours; 1/distance**K is the usual k-nearest-neighbour density up to a constant.

    Raises
    ------
    UsageError
        If there are not more stars than neighbours.
    """
    from scipy.spatial import KDTree

    scaled = labels.scale(values)
    if not 1 <= k < len(scaled):
        raise UsageError(f"expected more than {k} stars for the distance to neighbour {k}, got {len(scaled)}; lower k")
    distance: FloatArray = KDTree(scaled).query(scaled, k=[k + 1])[0][:, 0]  # the nearest one is the star itself
    return distance


@styled
def coverage_figure(
    labels: LabelSet, values: ArrayLike, part: Sequence[str] | None = None, *, k: int = 5, limit: float = 1.0, title: str = ""
) -> Figure:
    """Label coverage of a training set: Kiel diagram and metallicity against Teff, thin regions ringed.

    Parameters
    ----------
    labels : K labels with ``teff``; ``logg`` and ``fe_h`` or ``m_h`` are drawn if there, else the second and third label.
    values : (n, K) label units.
    part : (n,) name of the part each star belongs to; None for one part.
    k, limit : a star is in a thin region if its k-th nearest other star is farther than ``limit`` in the labels drawn, scaled
        (one unit is about one standard deviation of these stars; see :meth:`~maury.labels.LabelSet.from_training`). With more
        labels every star would be far from every other.

    Raises
    ------
    UsageError
        If there is no label ``teff``, or no other to draw it against.
    """
    truth = np.asarray(values, dtype=float)
    others = _drawn_against_teff(labels)
    names = np.array(["all"] * len(truth) if part is None else list(part), dtype=object)
    thin = _thin(labels, truth, ["teff", *others], k, limit)
    teff = truth[:, labels.index("teff")]
    figure = new_figure(5.4 * len(others) + 0.4, 4.6)
    for axes, name in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        y = truth[:, labels.index(name)]
        _parts(axes, teff, y, names)
        ring: Any = {"s": 46, "facecolors": "none", "edgecolors": INK, "linewidths": 0.8, "zorder": 4}
        axes.scatter(
            teff[thin],
            y[thin],
            **ring,
            label=f"thin: neighbour {k} is farther than {limit:g} in these labels, scaled ({thin.sum()})",
        )
        _axes(axes, labels, name, teff)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(len(texts), 4))
    if title:
        figure.suptitle(title)
    return figure


def _thin(labels: LabelSet, values: FloatArray, drawn: Sequence[str], k: int, limit: float) -> NDArray[np.bool_]:
    """(n,) which stars have no k others near, in the labels drawn, scaled by these stars themselves; all if they are too few."""
    if len(values) <= k:
        return np.ones(len(values), dtype=bool)
    columns = [labels.index(name) for name in drawn]
    even = LabelSet.from_training([labels.labels[c] for c in columns], values[:, columns])
    return neighbour_distance(even, values[:, columns], k) > limit


def _drawn_against_teff(labels: LabelSet) -> list[str]:
    """The labels on the vertical axes: gravity and metallicity where there are any, else the next two."""
    if "teff" not in labels.names:
        raise UsageError(f"expected a label teff for the coverage of a training set, got {', '.join(labels.names)}; add it")
    metals = [name for name in _METALS if name in labels.names][:1]
    wanted = [name for name in ("logg",) if name in labels.names] + metals
    wanted += [name for name in labels.names if name not in ("teff", *wanted)]
    if not wanted:
        raise UsageError("expected a second label beside teff for the coverage of a training set, got none; use a histogram")
    return wanted[:2]


def _parts(axes: Axes, x: FloatArray, y: FloatArray, names: NDArray[Any]) -> None:
    """The largest part first, so that it does not cover the others."""
    different = list(dict.fromkeys(names.tolist()))
    size = 16.0 if len(x) < 3000 else 5.0
    for name in sorted(different, key=lambda each: -int((names == each).sum())):
        mine = names == name
        colour, shape = _LOOK[different.index(name) % len(_LOOK)]
        axes.scatter(x[mine], y[mine], s=size, c=colour, marker=shape, alpha=0.75, linewidths=0, label=f"{name} ({mine.sum()})")


def _axes(axes: Axes, labels: LabelSet, name: str, teff: FloatArray) -> None:
    """Names and directions: Teff leftward, logarithmic where it spans more than a factor of three; log g downward."""
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    if teff.max() > 3 * teff.min():
        axes.set_xscale("log")
        ticks = [t for t in (2500, 3500, 5000, 7000, 10_000, 15_000, 20_000, 30_000, 50_000) if teff.min() <= t <= teff.max()]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.invert_xaxis()
    if name == "logg":
        axes.invert_yaxis()
    unit = {label.name: label.unit for label in labels.labels}
    axes.set(xlabel=axis_name("teff", unit["teff"]), ylabel=axis_name(name, unit[name]))
    axes.grid(color=GREY, alpha=0.2, linewidth=0.5)
