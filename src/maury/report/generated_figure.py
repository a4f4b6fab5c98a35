"""Figure of generated spectra beside the computed ones they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maury.report.style import BLUE, INK, VERMILION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_COLOURS = (VERMILION, BLUE)


@styled
def generated_figure(
    wavelength: FloatArray,
    true: FloatArray,
    generated: Mapping[str, FloatArray],
    texts: list[str],
    *,
    medium: str,
) -> Figure:
    """Spectra one above the other, each with what the generators leave, in per cent of the continuum.

    Parameters
    ----------
    wavelength : (n_pixels,) Å.
    true : (n, n_pixels) computed spectra; generated : name -> the same of at most two generators.
    texts : n labels in words.
    """
    n = len(true)
    figure = new_figure(9.5, 2.6 * n)
    axes = figure.subplots(2 * n, 1, sharex=True, gridspec_kw={"height_ratios": [2.2, 1.0] * n})
    for row in range(n):
        upper, lower = axes[2 * row], axes[2 * row + 1]
        upper.plot(wavelength, true[row], color=INK, lw=1.0, label="computed")
        for colour, (name, flux) in zip(_COLOURS, generated.items(), strict=False):
            upper.plot(wavelength, flux[row], color=colour, lw=0.8, ls="--", label=name)
            lower.plot(wavelength, 100.0 * (flux[row] - true[row]), color=colour, lw=0.7)
        lower.axhline(0.0, color=INK, lw=0.6)
        reach = 100.0 * max(np.abs(flux[row] - true[row]).max() for flux in generated.values())
        lower.set(ylabel="error [%]", ylim=(-1.15 * reach, 1.15 * reach))
        upper.set(ylabel="normalised flux")
        upper.set_title(texts[row], fontsize=8.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    axes[-1].set(xlabel=f"wavelength in {medium}  [Å]", xlim=(wavelength[0], wavelength[-1]))
    return figure
