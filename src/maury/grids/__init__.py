"""Model spectra for labels.

* :mod:`~maury.grids.analytic` : a small closed-form generator for tests and the demonstration (not physics).
* :mod:`~maury.grids.isochrones` : PARSEC isochrones as downloaded.
"""

from maury.grids.analytic import AnalyticSpectra
from maury.grids.isochrones import Isochrones, read_isochrones

__all__ = ["AnalyticSpectra", "Isochrones", "read_isochrones"]
