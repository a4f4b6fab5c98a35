"""Prepare: Spectra -> Spectra, step by step, until all are on the model's grid.

A step is a frozen dataclass of its parameters that maps a batch of spectra to a new one; none writes into its input.
In the order in which they usually stand in a recipe::

    to_vacuum, to_air    air.py          Ciddor 1996
    mask, reject_spikes  masking.py      survey bits by name, sky lines, tellurics, arm joins; spikes
    measure_rv           measure_rv.py   radial velocities against templates (velocity.py, templates.py, cross_correlation.py)
    rotate               rotation.py     Gray's profile; (with macroturbulence.py) profiles.py, broadening.py, log_grid.py
    macroturbulence      macroturbulence.py   radial-tangential
    degrade              degrade.py      to a target resolution, Gaussian or Voigt (widths: lsf.py, kernels: instrument.py)
    resample             resample.py     rest frame and common grid in one flux-conserving step (arithmetic: rebin.py)
    running_median, gaussian, scale      continuum.py   (running medians: median.py)
    polynomial           polynomial.py   upper envelope
    gisic                gisic.py        spline through the tops between the lines (order statistics: stretches.py)
    reject_slope         slope.py        spectra whose continuum falls steeper than any star's
    crop, noise_floor, measure_snr       signal.py
    fill_masked          masking.py      only to reproduce published codes

Before them orders of one file become one spectrum: orders.py.
:class:`Preparation` (preparation.py) holds a tuple of them; grid.py, banded.py, interpolation.py are the geometry and algebra
below, arrays.py what callers may hand in.
"""

from maury.prepare.air import ToAir, ToVacuum, air_to_vacuum, vacuum_to_air
from maury.prepare.continuum import GaussianContinuum, RunningMedian, Scale
from maury.prepare.degrade import Degrade
from maury.prepare.gisic import Gisic
from maury.prepare.instrument import convolve_instrument
from maury.prepare.macroturbulence import Macroturbulence, macroturbulence_flux
from maury.prepare.masking import FillMasked, Mask, RejectSpikes
from maury.prepare.measure_rv import MeasureRv
from maury.prepare.polynomial import PolynomialContinuum
from maury.prepare.preparation import STEPS, Failure, Preparation, PreparedResult, Source
from maury.prepare.resample import Resample
from maury.prepare.rotation import Rotate, rotate_flux
from maury.prepare.signal import SDSS_BANDS, CorrelatedNoise, Crop, MeasureSnr, NoiseFloor, snr, snr_bands, snr_sum
from maury.prepare.slope import RejectSlope

__all__ = [
    "SDSS_BANDS",
    "STEPS",
    "CorrelatedNoise",
    "Crop",
    "Degrade",
    "Failure",
    "FillMasked",
    "GaussianContinuum",
    "Gisic",
    "Macroturbulence",
    "Mask",
    "MeasureRv",
    "MeasureSnr",
    "NoiseFloor",
    "PolynomialContinuum",
    "Preparation",
    "PreparedResult",
    "RejectSlope",
    "RejectSpikes",
    "Resample",
    "Rotate",
    "RunningMedian",
    "Scale",
    "Source",
    "ToAir",
    "ToVacuum",
    "air_to_vacuum",
    "convolve_instrument",
    "macroturbulence_flux",
    "rotate_flux",
    "snr",
    "snr_bands",
    "snr_sum",
    "vacuum_to_air",
]
