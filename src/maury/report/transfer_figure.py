"""Figure of a transfer: both domains in flux and in latent numbers before and after, and how well both are reconstructed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from maury.report.style import BLUE, GREY, VERMILION, new_figure, note, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maury.assess.gap_transfer import SpaceGap
    from maury.regress.latent_run import ReconstructionError

_SHOWN, _MARGIN = 0.995, 0.15  # quantile up to which points are shown, and the frame about them in their range


@styled
def transfer_figure(spaces: Sequence[SpaceGap], errors: Sequence[ReconstructionError]) -> Figure:
    """A map for each space, and a bar for each kind of spectra before and after.

    Parameters
    ----------
    spaces : see :func:`maury.assess.gap_transfer.transfer_gap`; errors : of the training.
    """
    figure = new_figure(8.6, 7.4)
    grid = figure.subplots(2, 2)
    for axes, space in zip(grid.flat, spaces, strict=False):
        axes.scatter(*space.synthetic.T, s=8, color=GREY, alpha=0.6, lw=0, label="synthetic, noise as observed", rasterized=True)
        axes.scatter(*space.observed.T, s=12, marker="D", color=VERMILION, alpha=0.8, lw=0, label="observed", rasterized=True)
        both = np.vstack([space.synthetic, space.observed])
        low, high = np.quantile(both, (1.0 - _SHOWN, _SHOWN), axis=0)
        margin = _MARGIN * np.where(high > low, high - low, 1.0)
        (left, bottom), (right, top) = low - margin, high + margin
        axes.set(xlim=(left, right), ylim=(bottom, top), title=space.space)
        axes.set(xlabel="principal component 1", ylabel="principal component 2")
        text = f"{100 * space.beyond:.0f} % beyond"
        note(axes, f"{text}\nAUC {space.auc:.2f}" if np.isfinite(space.auc) else text)
    grid[0, 0].legend(loc="upper right")
    _bars(grid[1, 1], errors)
    return figure


def _bars(axes: Axes, errors: Sequence[ReconstructionError]) -> None:
    shown = [error for error in errors if error.n]
    place = np.arange(len(shown))
    for shift, when, colour in ((-0.2, "before", GREY), (0.2, "after", BLUE)):
        axes.bar(place + shift, [np.sqrt(getattr(error, when)) for error in shown], 0.38, color=colour, label=when)
    axes.set_xticks(place, [error.spectra.replace(", ", ",\n") for error in shown])
    axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    axes.set(yscale="log", ylabel="rms of reconstructed - given flux", title="reconstruction")
    axes.legend()
