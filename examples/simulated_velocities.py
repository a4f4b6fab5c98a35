"""Are the errors of cross-correlation velocities right? Simulated spectra whose velocities are known.

python examples/simulated_velocities.py

2000 spectra for each S/N (R = 1800, 1500 pixels of 69 km/s, −300 to 300 km/s), with the template's own continuum, and again with
a smooth response of ±25 % that the template lacks. Printed: mean error, and the standard deviation of (velocity − truth)/error.
"""

from __future__ import annotations

import numpy as np

from maury import Spectra
from maury.grids import AnalyticSpectra
from maury.prepare.templates import ContinuumRule
from maury.prepare.velocity import CrossCorrelation, CrossCorrelator

N, SNR = 2000, (20.0, 60.0, 100.0, 200.0)
STAR = AnalyticSpectra(("teff", "logg", "fe_h"))
SUN = np.array([[5777.0, 4.4, 0.0]])
WAVELENGTH = 10 ** (3.65 + 1e-4 * np.arange(1500))


def main() -> None:
    """Print one line for every continuum, response and S/N."""
    random = np.random.default_rng(5)
    velocity = random.uniform(-300.0, 300.0, N)
    clean = STAR.flux(WAVELENGTH, np.repeat(SUN, N, axis=0), velocity=velocity)
    noise = random.standard_normal(clean.shape)
    wide = np.arange(4300.0, 6500.0, 1.0)
    flux = STAR.flux(wide, SUN)
    template = Spectra.from_arrays(wide, flux, ivar=np.ones(flux.shape), medium="vacuum", frame="rest")
    print(f"{'continuum':15} {'response':>9} {'S/N':>4} {'e_rv km/s':>10} {'mean pull':>10} {'std of pulls':>13}")
    for kind in ("running_median", "gisic", "gaussian"):
        correlator = CrossCorrelator((template,), CrossCorrelation(continuum=ContinuumRule(kind)))
        for part in (0.0, 0.25):
            response = 1 + part * np.sin(WAVELENGTH / 500.0)
            for snr in SNR:
                seen, error = clean * (1 + noise / snr) * response, clean * response / snr
                spectra = Spectra.from_arrays(WAVELENGTH, seen, error=error, medium="vacuum", frame="observed")
                found = correlator.measure(spectra)
                pulls = (found.rv - velocity) / found.e_rv
                numbers = f"{np.mean(found.e_rv):10.2f} {np.mean(pulls):10.3f} {np.std(pulls):13.3f}"
                print(f"{kind:15} {part:8.0%} {snr:5.0f} {numbers}")


if __name__ == "__main__":
    main()
