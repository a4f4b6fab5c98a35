"""Infer: spectra and an emulator -> labels with covariance, status and flags.

* :mod:`~maury.fit.chi2`: chi-square with the model's covariance, in term space or over pixels.
* :mod:`~maury.fit.continuum`: smooth calibration errors, marginalised.
* :mod:`~maury.fit.lm`: batched Levenberg-Marquardt with bounds.
* :mod:`~maury.fit.fitter`: starts, bounds, errors and flags around it.
* :mod:`~maury.fit.starts`: a first guess from photometry and isochrones.
* :mod:`~maury.fit.regional`: a global model, then regional ones.
* :mod:`~maury.fit.inferrer`: emulator + fitter, and model files.
"""

from maury.fit.continuum import ContinuumModes
from maury.fit.fitter import ChiSquareFitter
from maury.fit.inferrer import EmulatorInferrer, FittedInferrer
from maury.fit.regional import RegionalInferrer
from maury.fit.starts import PHOTOMETRY_COLUMNS, PhotometricStarts

__all__ = [
    "PHOTOMETRY_COLUMNS",
    "ChiSquareFitter",
    "ContinuumModes",
    "EmulatorInferrer",
    "FittedInferrer",
    "PhotometricStarts",
    "RegionalInferrer",
]
