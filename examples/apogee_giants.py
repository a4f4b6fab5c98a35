"""The Cannon on 671 APOGEE red giants: against the coefficients that another implementation published, and cross-validated.

The set (100 pixels of the H band with Teff, log g, [M/H]) comes with the coefficients and scatter of its authors' own Cannon,
which has 13 hand-picked terms. Run it with the data's folder:

    python examples/apogee_giants.py data/apogee_giants/apogee_giants.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from maury import CannonConfig, ChiSquareFitter, EmulatorInferrer, Spectra, train_cannon
from maury.assess.crossval import cross_validate
from maury.assess.metrics import LabelMetrics, format_table, label_metrics
from maury.labels import make_label
from maury.train.splits import k_folds

LABELS = (make_label("teff", "K"), make_label("logg", "dex"), make_label("m_h", "dex"))
PUBLISHED_TERMS = ("teff^4", "teff^3", "teff^2", "teff", "logg^3", "logg^2", "logg")
PUBLISHED_TERMS += ("teff*logg", "teff*m_h", "logg*m_h", "m_h", "m_h^2")  # after the constant, in the order of the file
PUBLISHED_POWERS = [(0, 0, 0), (4, 0, 0), (3, 0, 0), (2, 0, 0), (1, 0, 0), (0, 3, 0), (0, 2, 0), (0, 1, 0)]
PUBLISHED_POWERS += [(1, 1, 0), (1, 0, 1), (0, 1, 1), (0, 0, 1), (0, 0, 2)]


def load(path: Path) -> tuple[Spectra, np.ndarray, np.ndarray, np.ndarray]:
    """Spectra (n, 100), labels (n, 3), published coefficients (100, 13) and scatter (100,)."""
    with np.load(path, allow_pickle=False) as file:
        values = file["labels"].astype(float)
        pixels = np.arange(file["flux"].shape[1], dtype=float) + 1.0  # the set has no wavelengths; pixel numbers serve
        spectra = Spectra.from_arrays(pixels, file["flux"], error=file["flux_error"], medium="vacuum", frame="rest")
        return spectra, values, file["published_coefficients"].astype(float), file["published_scatter"].astype(float)


def published_design(values: np.ndarray) -> np.ndarray:
    """(n, 13) terms as published: labels minus their means, unscaled."""
    offset = values - values.mean(axis=0)
    return np.stack([np.prod(offset**powers, axis=1) for powers in np.array(PUBLISHED_POWERS)], axis=1)


def compare(path: Path) -> dict[str, float]:
    """Ours against the published model, trained on the same stars with the same terms."""
    spectra, values, coefficients, scatter = load(path)
    model = train_cannon(spectra, LABELS, values, CannonConfig(terms=PUBLISHED_TERMS))
    design = published_design(values)
    flux = model.predict_flux(values)
    # the same polynomials in other coordinates: the published coefficients of our model follow from its fluxes exactly
    ours = np.linalg.lstsq(design / np.abs(design).max(axis=0), flux, rcond=None)[0].T / np.abs(design).max(axis=0)
    variance = 1.0 / spectra.ivar + scatter**2
    errors = np.stack([np.sqrt(np.diag(np.linalg.inv(design.T @ (design / v[:, None])))) for v in variance.T])
    difference = np.abs(flux - design @ coefficients.T) / scatter
    return {
        "largest flux difference / scatter": float(difference.max()),
        "largest coefficient difference / its error": float((np.abs(ours - coefficients) / errors).max()),
        "largest relative scatter difference": float(np.abs(model.scatter / scatter - 1).max()),
    }


def validate(path: Path) -> list[LabelMetrics]:
    """Five-fold cross-validation of a quadratic Cannon."""
    spectra, values, _, _ = load(path)

    def train(stars: np.ndarray) -> EmulatorInferrer:
        return EmulatorInferrer(train_cannon(spectra[stars], LABELS, values[stars]), ChiSquareFitter())

    held_out = cross_validate(spectra, train, k_folds(len(spectra), 5, 0))
    return label_metrics(values, held_out.values, held_out.errors, labels=held_out.labels)


if __name__ == "__main__":
    for name, value in compare(Path(sys.argv[1])).items():
        print(f"{name:45s} {value:.2e}")
    print(format_table(validate(Path(sys.argv[1]))))
