"""Model spectra for labels.

* :mod:`~maury.grids.analytic` : a small closed-form generator for tests and the demonstration (not physics).
"""

from maury.grids.analytic import AnalyticSpectra

__all__ = ["AnalyticSpectra"]
