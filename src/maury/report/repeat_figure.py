"""Figure of repeat visits: are the errors of single visits right, before and after calibration?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.assess.repeats import RepeatScore, pair_pulls, repeat_scores
from maury.assess.visits import VisitPairs
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.report.style import BLUE, GREEN, INK, ORANGE, SKY, VERMILION, new_figure, styled, symbol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_LOOKS = ((ORANGE, "o", ":"), (VERMILION, "s", "--"), (BLUE, "D", "-"), (GREEN, "^", "-."))
_REACH = 4.0


@styled
def repeat_figure(series: Mapping[str, LabelEstimates], pairs: VisitPairs, *, snr_column: str = "snr", title: str = "") -> Figure:
    """Differences of repeat visits in units of their errors, for several sets of errors of the same visits.

    Upper row: share of the pairs within a multiple of the error, beside the Gaussian it should be. Lower row: robust scatter
    over all pairs and over the halves of S/N, with its bootstrap error; it should be 1.

    Parameters
    ----------
    series : name -> estimates, at most four, for example formal errors, the catalogue's, and those of repeat visits.
    pairs : pairs of visits; rows of each of the estimates.

    Raises
    ------
    UsageError
        If there is no set of errors, more than four, or no pair.
    """
    if not 1 <= len(series) <= len(_LOOKS):
        raise UsageError(f"expected one to {len(_LOOKS)} sets of errors to draw, got {len(series)}; draw fewer")
    labels = next(iter(series.values())).labels
    pulls = {name: pair_pulls(estimates, pairs) for name, estimates in series.items()}
    scores = {name: repeat_scores(estimates, pairs, snr_column=snr_column) for name, estimates in series.items()}
    figure = new_figure(3.1 * len(labels) + 0.5, 5.6)
    grid = figure.subplots(2, len(labels), squeeze=False, sharey="row", height_ratios=[1.25, 1.0])
    for k, name in enumerate(labels.names):
        _shares(grid[0, k], {key: pull[:, k] for key, pull in pulls.items()}, pairs.weight)
        _scatters(grid[1, k], {key: [row for row in rows if row.label == name] for key, rows in scores.items()})
        grid[0, k].set_title(symbol(name))
        grid[0, k].set_xlabel(r"$|\Delta|\,/\,\sqrt{\sigma_1^2+\sigma_2^2}$")
    grid[0, 0].set_ylabel("share of pairs below")
    grid[1, 0].set_ylabel("robust s.d. of pulls")
    grid[0, 0].legend(loc="lower right")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _shares(axes: Axes, pulls: Mapping[str, FloatArray], weight: FloatArray) -> None:
    """Cumulative distribution of |pull| and that of a unit Gaussian."""
    from scipy.special import erf

    x = np.linspace(0.0, _REACH, 300)
    axes.plot(x, erf(x / np.sqrt(2.0)), color=INK, lw=1.0, label="Gaussian")
    for (colour, _, line), (name, pull) in zip(_LOOKS, pulls.items(), strict=False):
        known = np.isfinite(pull)
        order = np.argsort(np.abs(pull[known]), kind="stable")
        share = np.cumsum(weight[known][order])
        steps = np.r_[0.0, np.abs(pull[known])[order]], np.r_[0.0, share / share[-1]]
        axes.step(*steps, where="post", color=colour, ls=line, lw=1.6, label=name)
    axes.set(xlim=(0.0, _REACH), ylim=(0.0, 1.02))


def _scatters(axes: Axes, scores: Mapping[str, list[RepeatScore]]) -> None:
    """Robust scatter of each selection with its error, and the band 0.9 to 1.1."""
    axes.axhspan(0.9, 1.1, color=SKY, alpha=0.3, lw=0)
    axes.axhline(1.0, color=INK, lw=0.9)
    for number, ((colour, marker, _), rows) in enumerate(zip(_LOOKS, scores.values(), strict=False)):
        x = np.arange(len(rows)) + 0.2 * (number - 0.5 * (len(scores) - 1))
        y, error = [row.scatter for row in rows], [row.uncertainty for row in rows]
        axes.errorbar(x, y, yerr=error, fmt=marker, color=colour, ms=5.5, lw=1.3, capsize=0)
    rows = next(iter(scores.values()))
    axes.set_xticks(np.arange(len(rows)), [f"{row.selection}\n{row.n_pairs} pairs" for row in rows], fontsize=8)
    axes.tick_params(axis="x", which="both", top=False, bottom=False)
    axes.minorticks_off()
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(bottom=0.0)
