"""Estimates with everything a catalogue can meet: a clean star, a doubtful one, a failed one, one never fitted."""

from __future__ import annotations

import numpy as np
from astropy.table import MaskedColumn, Table

from maury.estimates import LabelEstimates
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet, make_label

LABELS = LabelSet(
    (make_label("teff", "K"), make_label("logg", "dex"), make_label("radius", "Rsun")),
    (5000.0, 4.0, 1.0),
    (500.0, 0.5, 0.5),
    (4000.0, 1.0, 0.1),
    (7000.0, 5.0, 30.0),
)


def sample_estimates() -> LabelEstimates:
    values = np.array([[5777.25, 4.4375, 1.0], [4000.0, 1.25, 25.0], [np.nan] * 3, [np.nan] * 3])
    sigma = np.array([50.0, 0.125, 0.05])
    rho = np.array([[1.0, 0.5, -0.25], [0.5, 1.0, 0.0], [-0.25, 0.0, 1.0]])
    covariance = np.tile(rho * sigma[:, None] * sigma, (4, 1, 1))
    covariance[2:] = np.nan
    label_flags = np.zeros((4, 3), np.int64)
    label_flags[1, 0] = ResultFlag.AT_BOUND
    meta = Table(
        {
            "file": ["a.fits", "b.fits.gz", "Å ünder.csv", "dir/d.fits"],
            "instrument": ["LAMOST"] * 4,
            "snr": [80.0, 21.5, np.nan, np.nan],
            "rv": [-12.25, 30.0, np.nan, 0.0],
            "resolving_power": [np.nan] * 4,
            "fwhm": [2.5, 2.5, np.nan, 2.5],
            "teff": [5700.0, 4100.0, np.nan, 5000.0],
            "star_id": MaskedColumn([2**60 + 1, 5, 6, 7], mask=[False, False, True, False]),
            "visits": [1, 2, 3, 4],
            "cube": np.zeros((4, 3)),
        }
    )
    meta["teff"].unit = "K"
    return LabelEstimates(
        labels=LABELS,
        ids=np.array(["star 1", "star 2", "star 3", "star 4"]),
        values=values,
        covariance=covariance,
        chi2=np.array([2990.5, 9000.0, np.nan, np.nan]),
        n_pixels=np.array([3000, 2900, 2900, 0]),
        status=(FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS, FitStatus.FAILED, FitStatus.NOT_FITTED),
        flag=np.array([0, ResultFlag.POOR_CHI2 | ResultFlag.AT_BOUND, ResultFlag.FAILED, ResultFlag.UNREADABLE]),
        label_flags=label_flags,
        reason=("", "", "the fit did not end", "expected flux, got NaN only; check the file"),
        meta=meta,
        raw_values=values + 1.0,
        raw_covariance=covariance / 4.0,
    )
