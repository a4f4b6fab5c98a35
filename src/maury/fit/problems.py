"""Which problem serves an emulator best."""

from __future__ import annotations

from maury.fit.chi2 import PixelProblem, Problem, TermProblem
from maury.fit.moving import MovingTermProblem
from maury.fit.velocity import MovingEmulator
from maury.protocols import Emulator, TermEmulator
from maury.spectra import Spectra


def make_problem(spectra: Spectra, emulator: Emulator) -> Problem:
    """The fastest problem for this emulator."""
    if isinstance(emulator, MovingEmulator) and emulator.is_linear:
        return MovingTermProblem(spectra, emulator)
    if isinstance(emulator, TermEmulator):
        return TermProblem(spectra, emulator)
    return PixelProblem(spectra, emulator)
