"""The resolution experiment (Imig et al. 2022): what a line width that the model does not know of does to the labels.

Raw spectra are smoothed further and fitted again by the same model, which goes on believing what it was told about their
resolution. The shifts are those that a wrong or a varying line-spread function gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from maury.assess.metrics import robust_std
from maury.assess.visits import DOUBTFUL_VISIT
from maury.estimates import LabelEstimates
from maury.prepare import Preparation
from maury.prepare.degrade import Degrade
from maury.spectra import Spectra

Infer = Callable[[list[Spectra]], LabelEstimates]


@dataclass(frozen=True)
class ResolutionShift:
    """Labels of degraded spectra minus those of the spectra as they are.

    Parameters
    ----------
    target : what they were degraded to.
    label, unit : of ``shift`` (median) and ``scatter`` (1.4826 median absolute deviation).
    n : spectra with both labels and no flag that makes either doubtful; with none, shift and scatter are NaN.
    error : median catalogue error of these spectra, to compare with.
    """

    target: str
    label: str
    unit: str
    n: int
    shift: float
    scatter: float
    error: float


def degradations(preparation: Preparation, resolving_powers: Sequence[float], fwhms: Sequence[float]) -> dict[str, Degrade]:
    """Steps that degrade raw spectra, by name ("R = 1000", "FWHM = 5 Å").

    What is said about the spectra's own resolution is taken from the preparation's first ``degrade`` step, else from their meta.

    Parameters
    ----------
    resolving_powers : R = wavelength/FWHM; fwhms : in Å.
    """
    own = next((step for step in preparation.steps if isinstance(step, Degrade)), Degrade(fwhm=1.0))
    to_power = {f"R = {power:g}": replace(own, resolving_power=power, fwhm=None, table=None) for power in resolving_powers}
    return to_power | {f"FWHM = {width:g} Å": replace(own, resolving_power=None, fwhm=width, table=None) for width in fwhms}


def resolution_shifts(
    infer: Infer,
    spectra: Sequence[Spectra],
    steps: Mapping[str, Degrade],
    progress: Callable[[int, int], None] | None = None,
) -> list[ResolutionShift]:
    """Shift of every label for every degradation.

    Parameters
    ----------
    infer : raw spectra -> labels, for example a model's ``infer``.
    spectra : raw.
    steps : of :func:`degradations`.
    progress : called with (degradations done, all).

    Raises
    ------
    UsageError
        If a spectrum is not sharper than the target, or its own resolution is unknown.
    """
    before = infer(list(spectra))
    rows = []
    for done, (target, step) in enumerate(steps.items(), start=1):
        rows += _shifts(target, before, infer([_degraded(batch, step) for batch in spectra]))
        if progress is not None:
            progress(done, len(steps))
    return rows


def _degraded(spectra: Spectra, step: Degrade) -> Spectra:
    """Smoothed spectra that still claim the resolution they had."""
    return step(spectra).with_pixels(meta=spectra.meta)


def _shifts(target: str, before: LabelEstimates, after: LabelEstimates) -> list[ResolutionShift]:
    good = (before.flag | after.flag) & int(DOUBTFUL_VISIT) == 0
    rows = []
    for k, label in enumerate(before.labels.labels):
        difference = (after.values - before.values)[good, k]
        known = np.isfinite(difference)
        shift = float(np.median(difference[known])) if known.any() else float("nan")
        error = float(np.median(before.errors[good, k][known])) if known.any() else float("nan")
        scatter = robust_std(difference[known])
        rows.append(ResolutionShift(target, label.name, label.unit, int(known.sum()), shift, scatter, error))
    return rows
