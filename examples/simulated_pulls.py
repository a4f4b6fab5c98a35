"""Are the formal errors right? Stars made by a model itself, with its covariance and noise, fitted by it.

python examples/simulated_pulls.py miles.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from maury import Spectra, load_model
from maury.assess.metrics import coverage, pulls_of

N_STARS, SEED = 4000, 1


def main(path: str) -> None:
    """Print pulls and coverage per label for stars in the middle nine tenths of each label's training range."""
    model = load_model(path)
    emulator = model.inferrer.emulator
    labels = emulator.labels
    fitter = replace(model.inferrer.fitter, prior=None, continuum=None)  # a prior is not true of stars spread evenly over the box
    rng = np.random.default_rng(SEED)
    corners = np.sort(labels.scale(np.array([labels.lower, labels.upper])), axis=0)
    middle, half = corners.mean(axis=0), 0.45 * np.diff(corners, axis=0)[0]
    truth = labels.unscale(middle + half * rng.uniform(-1, 1, (N_STARS, len(labels))))
    covariance = emulator.model_covariance
    known = covariance.known
    sigma = np.full((N_STARS, len(known)), 0.02)  # S/N 50
    model_sigma = np.sqrt(np.where(known, covariance.diagonal, 0.0))
    flux = emulator.predict_flux(truth) + np.hypot(sigma, model_sigma) * rng.standard_normal(sigma.shape)
    if covariance.factors is not None:
        flux += rng.standard_normal((N_STARS, covariance.rank)) @ covariance.factors.T
    spectra = Spectra.from_arrays(emulator.wavelength, flux, error=sigma, medium="vacuum", frame="rest")
    estimates = fitter.fit(spectra, emulator)
    good = (estimates.flag == 0)[:, None]
    pulls = pulls_of(truth, np.where(good, estimates.values, np.nan), estimates.errors)
    print(f"{int(good.sum())} of {N_STARS} stars without flag")
    print("label   pull mean  pull std  within 68.3 %  within 95.4 %")
    for k, name in enumerate(labels.names):
        column = pulls[np.isfinite(pulls[:, k]), k]
        one, two = coverage(column)
        print(f"{name:7s} {column.mean():9.3f} {column.std():9.3f} {100 * one.fraction:14.1f} {100 * two.fraction:14.1f}")


if __name__ == "__main__":
    main(sys.argv[1])
