"""Quality cuts: named limits that set flags; a star that a cut calls failed loses its labels but never its row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import ResultFlag


@dataclass(frozen=True)
class QualityCuts:
    """Limits beyond which a star is flagged.

    Parameters
    ----------
    min_snr : LOW_SNR below it; compared with the meta column ``snr_column``.
    snr_column : ``snr`` (median per pixel) or ``snr_sum`` (sum of the survey's u, g, r, i, z header values, Galgano 2020).
    max_chi2 : POOR_CHI2 above it (Galgano 2020: 5000).
    max_reduced_chi2 : POOR_CHI2 above it, with chi2/(n_pixels - K).
    """

    min_snr: float | None = None
    snr_column: str = "snr"
    max_chi2: float | None = None
    max_reduced_chi2: float | None = None

    def __post_init__(self) -> None:
        if self.snr_column not in ("snr", "snr_sum"):
            raise UsageError(f"expected snr_column 'snr' or 'snr_sum', got {self.snr_column!r}; correct the recipe")

    def apply(self, estimates: LabelEstimates) -> LabelEstimates:
        """Estimates with LOW_SNR, POOR_CHI2 and NEGATIVE_LABEL set where they hold."""
        out = estimates
        if self.min_snr is not None:
            snr = signal_to_noise(estimates, self.snr_column)
            with np.errstate(invalid="ignore"):
                out = out.add_flag(~(snr >= self.min_snr), int(ResultFlag.LOW_SNR))
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.max_chi2 is not None:
                out = out.add_flag(out.chi2 > self.max_chi2, int(ResultFlag.POOR_CHI2))
            if self.max_reduced_chi2 is not None:
                reduced = out.chi2 / np.maximum(out.n_pixels - len(out.labels), 1)
                out = out.add_flag(reduced > self.max_reduced_chi2, int(ResultFlag.POOR_CHI2))
            positive = np.array([label.positive for label in out.labels.labels])
            return out.add_label_flag((out.values < 0) & positive, int(ResultFlag.NEGATIVE_LABEL))

    def to_config(self) -> dict[str, Any]:
        """Plain values for a model file."""
        return asdict(self)


GALGANO2020_CUTS = QualityCuts(min_snr=50.0, snr_column="snr_sum", max_chi2=5000.0)
"""Galgano+2020: summed S/N of at least 50 (Sect. 3.3), chi-square below 5000 (Sect. 4.1). NaN or negative labels are failures
there; here they stay in the table with FAILED or NEGATIVE_LABEL."""


def signal_to_noise(estimates: LabelEstimates, column: str) -> NDArray[np.float64]:
    """(n,) a signal-to-noise column of the estimates' meta; NaN where it is missing.

    ``snr_sum`` is the sum of the survey's values for u, g, r, i and z (Galgano+2020, Sect. 2.1.2).
    """
    if column == "snr_sum" and column not in estimates.meta.colnames:
        return np.asarray(sum(_meta_numbers(estimates, f"snr_{band}") for band in "ugriz"), dtype=np.float64)
    return _meta_numbers(estimates, column)


def _meta_numbers(estimates: LabelEstimates, column: str) -> NDArray[np.float64]:
    if column not in estimates.meta.colnames:
        return np.full(len(estimates), np.nan)
    values = np.ma.MaskedArray(estimates.meta[column], dtype=np.float64)
    return np.asarray(values.filled(np.nan), dtype=np.float64)
