"""Emulator + Fitter is an Inferrer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maury.estimates import LabelEstimates
from maury.fit.fitter import ChiSquareFitter
from maury.labels import LabelSet
from maury.protocols import Emulator
from maury.spectra import Spectra


@dataclass(frozen=True, eq=False)
class EmulatorInferrer:
    """Labels by fitting ``emulator`` to spectra with ``fitter``."""

    emulator: Emulator
    fitter: ChiSquareFitter

    @property
    def labels(self) -> LabelSet:
        return self.emulator.labels

    def infer(self, spectra: Spectra, progress: Callable[[int, int], None] | None = None) -> LabelEstimates:
        """Labels of prepared spectra on the emulator's grid (see :meth:`ChiSquareFitter.fit`)."""
        return self.fitter.fit(spectra, self.emulator, progress)
