"""GISIC as METHODS 0.3 lists it, step by step for one spectrum: slow, plain, and for comparison only."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import UnivariateSpline
from scipy.ndimage import gaussian_filter1d

FloatArray = NDArray[np.float64]
BANDS = {"2.0.5": ((4100, 4200), (4200, 4400), (5060, 5180)), "1.4": ((4200, 4400), (5060, 5180))}


def normalize(
    wave: FloatArray, flux: FloatArray, *, version: str = "2.0.5", sigma: float = 30, s: float | None = None, boost: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Normalised flux and continuum. Derivatives are not divided by their maxima (see maury.prepare.gisic)."""
    smooth = gaussian_filter1d(flux, sigma)  # 1
    d2 = np.gradient(np.gradient(smooth))  # 2
    zeros = np.flatnonzero(d2 == 0)  # 3, in pixels
    crossings = np.sort(np.concatenate([zeros, np.flatnonzero(d2[:-1] * d2[1:] < 0) + 0.5]))
    marks = []
    for left, right in pairwise(crossings):  # 4
        low, high = int(np.floor(left)) + 1, int(np.ceil(right))
        if high > low and np.mean(d2[low:high] < 0) > 0.8:
            marks.append(wave[low + np.argmin(d2[low:high])])
    marks = [m for m in marks if not any(low <= m <= high for low, high in BANDS[version])]  # 5
    segments: list[tuple[float, FloatArray]] = []  # 6
    for m in marks:
        near = np.abs(wave - m) <= 15
        segments.append((float(np.median(wave[near])), flux[near]))
    segments += [(wave[0], flux[:30]), (wave[-1], flux[-30:])]
    segments.sort(key=lambda segment: segment[0])
    return _continuum(wave, flux, segments, version=version, s=s, boost=boost)


def _continuum(
    wave: FloatArray, flux: FloatArray, segments: list[Any], *, version: str, s: float | None, boost: bool
) -> tuple[FloatArray, FloatArray]:
    med, top, scatter = [], [], []  # 7
    for _, values in segments:
        low, high = np.percentile(values, [70 if version == "2.0.5" else 85, 98])
        med.append(np.median(values[(values >= low) & (values <= high)]))
        top.append(high)
        median = np.median(values)
        mad = np.median(np.abs(values - median))
        scatter.append(mad / median if version == "2.0.5" else mad)
    r = (np.array(scatter) - min(scatter)) / (max(scatter) - min(scatter))  # 8
    points = np.array(med) + (np.array(top) - np.array(med)) * r * boost
    x = np.array([position for position, _ in segments])
    smoothing = {"2.0.5": 5.0, "1.4": 0.0}[version] if s is None else s  # 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "s too small": on counts, where the package interpolates
        continuum = UnivariateSpline(x, points, k=3, s=smoothing)(wave)
    norm = flux / continuum  # 10
    norm[(norm < 0) | (norm > 2)] = 1.0
    return norm, continuum
