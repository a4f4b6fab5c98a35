"""The look of all figures: one palette, one type size, axis names with units; and saving them.

Figures are made without pyplot: nothing global changes, nothing is kept alive, no display is needed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from maury.errors import UsageError
from maury.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")

# Okabe & Ito's palette: told apart with every kind of colour vision
INK, BLUE, ORANGE, GREEN, VERMILION, SKY, GREY = "#1b1b1b", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#8c8c8c"
COLOUR_MAP = "viridis"

_IN_A_ROW = 4  # panels

FORMATS = (".png", ".pdf", ".svg")

STYLE: Any = {  # matplotlib types the keys one by one since 3.11, and not before
    "figure.facecolor": "white",
    "figure.dpi": 120,
    "savefig.dpi": 200,
    "font.size": 9.5,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look the same everywhere
    "mathtext.fontset": "dejavusans",
    "axes.edgecolor": "#4a4a4a",
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#4a4a4a",
    "ytick.color": "#4a4a4a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "maury",  # the same figure gives the same bytes
}

_SYMBOLS = {
    "teff": r"$T_\mathrm{eff}$",
    "logg": r"$\log\,g$",
    "fe_h": "[Fe/H]",
    "m_h": "[M/H]",
    "alpha_m": r"[$\alpha$/M]",
    "v_micro": r"$v_\mathrm{micro}$",
    "v_macro": r"$v_\mathrm{macro}$",
    "vsini": r"$v\,\sin i$",
    "resolving_power": "$R$",
    "rv": r"$v_\mathrm{r}$",
    "delta_rv": r"$\Delta v_\mathrm{r}$",
    "radius": "$R$",
    "mass": "$M$",
    "luminosity": "$L$",
    "snr": "S/N per pixel",
    "snr_sum": r"S/N, sum of $u\,g\,r\,i\,z$",
}
_UNITS = {"Rsun": r"$R_\odot$", "solRad": r"$R_\odot$", "Msun": r"$M_\odot$", "solMass": r"$M_\odot$", "Lsun": r"$L_\odot$"}
_UNITS |= {"solLum": r"$L_\odot$", "km/s": r"km s$^{-1}$", "km / s": r"km s$^{-1}$"}


def styled(make: Callable[P, T]) -> Callable[P, T]:
    """Run a figure's function with the house style, and leave matplotlib's settings as they were."""

    @functools.wraps(make)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return make(*args, **kwargs)

    return inside


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that lays itself out and can be saved anywhere."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rows_and_columns(n: int) -> tuple[int, int]:
    """Of a figure with a panel for each of n labels: one row up to four, then two or more."""
    rows = -(-n // _IN_A_ROW)
    return rows, -(-n // rows)


def remove_empty(grid: NDArray[Any], n: int) -> None:
    """Take the panels that none of n labels fills out of a grid (of one or more axes per label, one below the other)."""
    rows, columns = rows_and_columns(n)
    for axes in grid[-(len(grid) // rows) :, n - (rows - 1) * columns :].flat:
        axes.remove()


def figure_title(figure: Figure, title: str) -> None:
    """A title at the figure's left, if there is one."""
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def symbol(name: str) -> str:
    """How the field writes a label: ``teff`` with a subscript."""
    return _SYMBOLS.get(name, name.replace("_", " "))


def unit_text(unit: str) -> str:
    """How the field writes a unit."""
    return _UNITS.get(unit, unit)


def axis_name(name: str, unit: str) -> str:
    """Symbol and unit, for an axis."""
    return f"{symbol(name)}  [{unit_text(unit)}]" if unit else symbol(name)


def signed(value: float, digits: int) -> str:
    """A number with its sign, a true minus, and no minus before zero."""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0.0:.{digits}f}"


def decimals(scatter: float) -> int:
    """Decimals that show two or three digits of a scatter."""
    import math

    return 2 if not (math.isfinite(scatter) and scatter > 0) else max(0, min(5, 1 - math.floor(math.log10(scatter))))


def note(axes: Axes, text: str, *, corner: str = "upper left", size: float = 8.5) -> None:
    """A few lines of numbers in a corner, readable over points."""
    vertical, horizontal = corner.split()
    axes.text(
        0.035 if horizontal == "left" else 0.965,
        0.96 if vertical == "upper" else 0.04,
        text,
        transform=axes.transAxes,
        ha=horizontal,
        va="top" if vertical == "upper" else "bottom",
        fontsize=size,
        linespacing=1.35,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
        zorder=10,
    )


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Save as PNG, PDF or SVG by extension; whole or not at all, and the same bytes for the same figure.

    Raises
    ------
    UsageError
        For another extension, or a path that cannot be written.
    """
    import matplotlib as mpl

    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"expected a figure name ending in {', '.join(FORMATS)}, got {path}; add one of these endings")
    undated = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}[suffix]
    with replacing(path, UsageError) as temporary, mpl.rc_context(STYLE):
        figure.savefig(temporary, format=suffix[1:], metadata=undated, dpi=STYLE["savefig.dpi"])
