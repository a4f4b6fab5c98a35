"""Which problem serves an emulator best."""

from __future__ import annotations

from maury.emulate.payne import PayneEmulator
from maury.fit.chi2 import PixelProblem, Problem, TermProblem
from maury.fit.moved_basis import rough_emulator
from maury.fit.moving import MovingTermProblem
from maury.fit.products import products_on
from maury.fit.rough import RoughTermProblem
from maury.fit.velocity import MovingEmulator
from maury.protocols import Emulator, TermEmulator
from maury.spectra import Spectra


def make_problem(spectra: Spectra, emulator: Emulator, device: str = "cpu") -> Problem:
    """The fastest problem for this emulator; its sums over pixels on the device (:mod:`maury.fit.products`)."""
    if isinstance(emulator, MovingEmulator) and emulator.is_linear:
        return MovingTermProblem(spectra, emulator, device)
    if isinstance(emulator, PayneEmulator) and rough_emulator(emulator) is not emulator:
        return RoughTermProblem(spectra, emulator, products_on(device))
    if isinstance(emulator, TermEmulator):
        return TermProblem(spectra, emulator, products_on(device))
    return PixelProblem(spectra, emulator)
