"""Report: figures of catalogues, fits and validations.

* :mod:`~maury.report.style` : palette, axis names, saving
* :mod:`~maury.report.figures`, :mod:`~maury.report.fit_figure`, :mod:`~maury.report.coverage_figure`,
  :mod:`~maury.report.emulator_figure`, :mod:`~maury.report.repeat_figure`, :mod:`~maury.report.history_figure`,
  :mod:`~maury.report.transfer_figure`, :mod:`~maury.report.crossmatch_figure` : each returns a matplotlib Figure
* :mod:`~maury.report.comparison_figure`, :mod:`~maury.report.comparison_text`, :mod:`~maury.report.comparison_page` : several
  systems on the same stars, as a Figure, as words and as one HTML page
"""

from maury.report.coverage_figure import coverage_figure
from maury.report.figures import (
    cross_validation_figure,
    kiel_diagram,
    pull_histogram,
    snr_error_figure,
    true_vs_recovered,
)
from maury.report.fit_figure import fit_example, fit_figure
from maury.report.style import save_figure

__all__ = [
    "coverage_figure",
    "cross_validation_figure",
    "fit_example",
    "fit_figure",
    "kiel_diagram",
    "pull_histogram",
    "save_figure",
    "snr_error_figure",
    "true_vs_recovered",
]
