"""How often is a gap seen where there is none, and where there is one? Simulated spectra.

python examples/gap_calibration.py

1000 training spectra without noise and with S/N 200, 100 and 50; R = 1800, 120 or 400 pixels of 1 Å. For each S/N of the stars,
3000 new ones drawn like the training spectra, 1000 of these moved by 180 km/s (a line width), and 1000 stars of 3500 to 3900 K,
300 K and more below all training stars. All is drawn eight times, since 1000 training spectra settle a 99th percentile only so
far. Printed: mean shares, in per cent, whose ratio exceeds 1 (the flag SYNTHETIC_GAP), and the highest of eight without a gap.
"""

from __future__ import annotations

import numpy as np

from maury import Spectra
from maury.assess.gap import SyntheticGap, largest
from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.grids import AnalyticSpectra

N_DRAWS, N_TRAINING, N_STARS, N_OTHERS, N_PIXELS = 8, 1000, 3000, 1000, (120, 400)
TRAINING_SNR, SNR = (np.inf, 200.0, 100.0, 50.0), (20.0, 50.0, 100.0, 300.0, 1000.0)
CLEAN_SNR = 1000.0  # what spectra without noise say of their errors
STAR = AnalyticSpectra(("teff", "logg", "fe_h"))
LOW, HIGH, COOL = np.array([4200.0, 1.5, -1.5]), np.array([6800.0, 5.0, 0.4]), (3500.0, 3900.0)
SHIFT = 1.0 + 180.0 / SPEED_OF_LIGHT_KM_S


def observed(wavelength: np.ndarray, flux: np.ndarray, snr: float, random: np.random.Generator) -> Spectra:
    """Spectra with white noise of this S/N; infinite: none."""
    noise = random.standard_normal(flux.shape) / snr
    ivar = np.full(flux.shape, min(snr, CLEAN_SNR) ** 2)
    return Spectra.from_arrays(wavelength, flux + noise, ivar=ivar, medium="vacuum", frame="rest")


def shares(n_pixels: int, training_snr: float, seed: int) -> np.ndarray:
    """(S/N, 3) per cent flagged of stars without a gap, moved ones and cool ones, for one draw of training spectra and stars."""
    random = np.random.default_rng(seed)
    grid = 5000.0 + np.arange(n_pixels)
    training, same = (LOW + random.random((n, 3)) * (HIGH - LOW) for n in (N_TRAINING, N_STARS))
    cool = LOW + random.random((N_OTHERS, 3)) * (HIGH - LOW)
    cool[:, 0] = random.uniform(*COOL, N_OTHERS)
    kinds = [STAR.normalised(grid, same), STAR.normalised(grid / SHIFT, same[:N_OTHERS]), STAR.normalised(grid, cool)]
    gap = SyntheticGap.from_training(observed(grid, STAR.normalised(grid, training), training_snr, random))
    assert gap is not None
    ratios = [[largest(gap.ratios(observed(grid, flux, snr, random))) for flux in kinds] for snr in SNR]
    return 100.0 * np.array([[(ratio > 1.0).mean() for ratio in row] for row in ratios])


def main() -> None:
    """Print one line for every number of pixels, S/N of the training spectra and S/N of the stars."""
    print(f"{'pixels':>6} {'training S/N':>12} {'S/N':>5} {'no gap %':>9} {'highest':>8} {'180 km/s %':>11} {'cool %':>7}")
    for n_pixels in N_PIXELS:
        for training_snr in TRAINING_SNR:
            found = np.array([shares(n_pixels, training_snr, seed) for seed in range(N_DRAWS)])
            for snr, (same, moved, cool), highest in zip(SNR, found.mean(axis=0), found[:, :, 0].max(axis=0), strict=True):
                numbers = f"{same:9.2f} {highest:8.2f} {moved:11.1f} {cool:7.1f}"
                print(f"{n_pixels:6d} {training_snr:12.0f} {snr:5.0f} {numbers}", flush=True)


if __name__ == "__main__":
    main()
