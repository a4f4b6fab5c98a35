"""Smooth errors of the flux calibration, marginalised in the fit.

The slope of a spectrum tells Teff, but only as far as the survey's flux calibration (and the reddening) can be trusted.
Dividing by a pseudo-continuum throws that away for everybody. Here smooth multiplicative modes, Legendre polynomials times a
typical spectrum, join the covariance with the amplitude that the calibration's errors are believed to have: C + B B^T. In
the limit of a large amplitude that is the same as fitting the polynomial together with the labels (a standard result of
generalised least squares: prior variance times basis outer product); a small one leaves the slope its say. It costs nothing
beside the low-rank covariance the model has anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.protocols import Emulator, ModelCovariance
from maury.spectra import Spectra, selected

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ContinuumModes:
    """How far the smooth shape of a spectrum may be off.

    Parameters
    ----------
    degree : highest Legendre polynomial over the wavelength range; modes are about range/degree wide.
    amplitude : standard deviation of each mode, as a fraction of the flux.
    trusted : file formats or instruments whose flux calibration is as good as the training set's: no modes for them.
    """

    degree: int = 10
    amplitude: float = 0.1
    trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.degree < 0 or not self.amplitude > 0:
            raise UsageError(f"expected degree >= 0 and amplitude > 0 of the modes, got {self.degree} and {self.amplitude}")

    def needed(self, spectra: Spectra) -> NDArray[np.bool_]:
        """(n_spectra,) for which spectra the modes are to be used."""
        return selected(spectra, (), self.trusted)

    def extend(self, emulator: Emulator) -> Emulator:
        """The emulator with the modes in its covariance; the typical spectrum is the one at the middle of the labels."""
        wavelength = emulator.wavelength
        position = 2.0 * (wavelength - wavelength[0]) / (wavelength[-1] - wavelength[0]) - 1.0
        labels = emulator.labels
        typical = emulator.predict_flux(labels.unscale(np.zeros((1, len(labels)))))[0]
        modes = np.polynomial.legendre.legvander(position, self.degree) * typical[:, None] * self.amplitude
        covariance = emulator.model_covariance
        factors = modes if covariance.factors is None else np.hstack([covariance.factors, modes])
        return emulator.with_covariance(ModelCovariance(covariance.diagonal, factors))

    def fitted(self, spectra: Spectra, emulator: Emulator, values: FloatArray) -> FloatArray:
        """(n, n_pixels) the emulator's flux at (n, K) labels plus the modes each spectrum asks for; for figures.

        The most probable modes given the residual r: B (I + B' C^-1 B)^-1 B' C^-1 r, with C of emulator and noise.
        """
        flux = emulator.predict_flux(values)
        out = np.array(flux)
        covariance = emulator.model_covariance
        rank = covariance.rank
        for row in np.flatnonzero(self.needed(spectra)):
            modes = self.extend(emulator).model_covariance.factors
            used = (spectra.ivar[row] > 0) & covariance.known
            if modes is None or not used.any():
                continue
            dense = np.diag(1.0 / spectra.ivar[row, used] + covariance.diagonal[used])
            if covariance.factors is not None:
                dense += covariance.factors[used] @ covariance.factors[used].T
            basis = modes[:, rank:]
            solved = np.linalg.solve(dense, np.column_stack([basis[used], (spectra.flux[row] - flux[row])[used]]))
            inner = np.eye(basis.shape[1]) + basis[used].T @ solved[:, :-1]
            out[row] += basis @ np.linalg.solve(inner, basis[used].T @ solved[:, -1])
        return out
