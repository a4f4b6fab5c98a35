"""Model spectra for labels.

* :mod:`~maury.grids.analytic` : a small closed-form generator for tests and the demonstration (not physics).
* :mod:`~maury.grids.isochrones` : PARSEC isochrones as downloaded.
* :mod:`~maury.grids.grid` : a grid of model spectra; :mod:`~maury.grids.open` opens one from what it is stored as:
  :mod:`~maury.grids.phoenix`, :mod:`~maury.grids.store`, or any file with a :mod:`~maury.grids.description`.
* :mod:`~maury.grids.interpolate` : spectra between its nodes.
* :mod:`~maury.grids.sampling`, :mod:`~maury.grids.constraints` : which labels a training set is made for.
* :mod:`~maury.grids.augment` : noise, velocity and continuum errors, lost pixels.
* :mod:`~maury.grids.chunks`, :mod:`~maury.grids.training_set` : long builds that survive a kill, and what they write.
"""

from maury.grids.analytic import AnalyticSpectra
from maury.grids.description import GridDescription, open_described
from maury.grids.grid import ArrayRows, Grid
from maury.grids.interpolate import GridInterpolator
from maury.grids.isochrones import Isochrones, read_isochrones
from maury.grids.open import open_grid
from maury.grids.store import write_grid

__all__ = [
    "AnalyticSpectra",
    "ArrayRows",
    "Grid",
    "GridDescription",
    "GridInterpolator",
    "Isochrones",
    "open_described",
    "open_grid",
    "read_isochrones",
    "write_grid",
]
