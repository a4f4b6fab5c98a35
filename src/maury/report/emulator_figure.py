"""Figure of an emulator's accuracy along wavelength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from maury.errors import UsageError
from maury.report.style import BLUE, GREEN, ORANGE, SKY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def emulator_figure(
    wavelength: ArrayLike, shares: ArrayLike, limits: Sequence[float], *, medium: str = "vacuum", title: str = ""
) -> Figure:
    """Share of the stars whose pixel the emulator gives within each limit of the observed flux, against wavelength.

    Parameters
    ----------
    wavelength : (n_pixels,) Å.
    shares : (n_limits, n_pixels), see :func:`~maury.assess.emulation.share_per_pixel`; NaN pixels stay open.
    limits : relative deviations, at most four.

    Raises
    ------
    UsageError
        If shapes disagree.
    """
    x, y = np.asarray(wavelength, dtype=float), np.asarray(shares, dtype=float)
    if y.shape != (len(limits), x.size) or len(limits) > 4:
        raise UsageError(f"expected shares ({len(limits)}, {x.size}) for at most four limits, got {y.shape}; one row per limit")
    figure = new_figure(9.0, 3.2)
    axes = figure.add_subplot()
    for colour, limit, row in zip((ORANGE, BLUE, GREEN, SKY), limits, y, strict=False):
        axes.plot(x, 100.0 * row, color=colour, lw=0.9, label=f"within {100 * limit:g} %")
    axes.set(xlabel=f"wavelength in {medium}  [Å]", ylabel="stars  [%]", xlim=(x[0], x[-1]), ylim=(0.0, 101.0), title=title)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=len(limits))
    return figure
