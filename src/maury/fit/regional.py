"""A model of several regions along one label: a global model finds the region, regional ones refine the labels.

One polynomial from M giants to A dwarfs leaves a misfit of some tens of kelvin that waves along Teff. A polynomial
trained with weights that fall off from a centre has less to describe. The first pass is global, so no star has to be put
into a region beforehand; between two centres the two regional solutions are blended linearly in the label's coordinate, so
labels do not jump at a border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.fit.fitter import ChiSquareFitter
from maury.flags import FitStatus
from maury.labels import LabelSet
from maury.protocols import Emulator
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RegionalInferrer:
    """First a global emulator, then the regional ones nearest to what it found.

    Parameters
    ----------
    emulator : the global model.
    fitter : fits it with several starts.
    label : the label along which regions lie.
    centres : (R,) values of that label in its unit, increasing.
    regions : R emulators of the same labels and grid.
    """

    emulator: Emulator
    fitter: ChiSquareFitter
    label: str
    centres: tuple[float, ...]
    regions: tuple[Emulator, ...]

    def __post_init__(self) -> None:
        if len(self.centres) != len(self.regions) or len(self.centres) < 2:
            raise UsageError(f"expected one emulator for each of at least 2 centres, got {len(self.regions)}")
        if list(self.centres) != sorted(set(self.centres)):
            raise UsageError(f"expected increasing centres of the regions, got {self.centres}; sort them")

    @property
    def labels(self) -> LabelSet:
        return self.fitter.labels_of(self.emulator.labels)

    def infer(self, spectra: Spectra, progress: Callable[[int, int], None] | None = None) -> LabelEstimates:
        """Labels of prepared spectra on the emulators' grid (see :meth:`ChiSquareFitter.fit`)."""
        first = self.fitter.fit(spectra, self.emulator, progress)
        share = blend_weights(self.labels, self.label, self.centres, first.values)
        total = _Blend(first)
        for emulator, weight in zip(self.regions, share.T, strict=True):
            rows = np.flatnonzero(weight > 0)
            if rows.size:
                total.add(rows, weight[rows], self.fitter.fit(spectra[rows], emulator, start=first.values[rows]))
        return total.result()


def blend_weights(labels: LabelSet, label: str, centres: tuple[float, ...], values: FloatArray) -> FloatArray:
    """(n, R) shares of the regions, linear between neighbouring centres in the label's coordinate; 0 for NaN labels."""
    k = labels.index(label)
    position = _coordinate(labels, k, values[:, k])
    nodes = _coordinate(labels, k, np.array(centres))
    order = np.argsort(nodes)
    share = np.zeros((len(values), len(centres)))
    for unit, region in zip(np.eye(len(centres)), order, strict=True):
        share[:, region] = np.interp(position, nodes[order], unit)
    return np.where(np.isfinite(position)[:, None], share, 0.0)


def kernel_weights(labels: LabelSet, label: str, centres: tuple[float, ...], width: float, values: FloatArray) -> FloatArray:
    """(n, R) training weights: Gaussians about the centres, ``width`` in units of the mean distance between centres."""
    k = labels.index(label)
    nodes = _coordinate(labels, k, np.array(centres))
    spacing = np.abs(np.diff(nodes)).mean()
    offset = (_coordinate(labels, k, values[:, k])[:, None] - nodes) / (width * spacing)
    return np.asarray(np.exp(-0.5 * offset**2))


def _coordinate(labels: LabelSet, k: int, values: FloatArray) -> FloatArray:
    full = np.tile(np.array(labels.upper), (len(values), 1))
    full[:, k] = values
    return labels.scale(full)[:, k]


class _Blend:
    """Weighted sum of regional estimates on top of the global ones, which stay where no region took part."""

    def __init__(self, first: LabelEstimates) -> None:
        n = len(first)
        self.first = first
        self.weight = np.zeros(n)
        self.values = np.zeros(first.values.shape)
        self.second = np.zeros(first.covariance.shape)  # of covariance plus squared values, for the spread between regions
        self.chi2 = np.zeros(n)
        self.flag = np.zeros(n, np.int64)
        self.label_flags = np.zeros(first.label_flags.shape, np.int64)
        self.status = list(first.status)

    def add(self, rows: NDArray[np.int64], weight: FloatArray, part: LabelEstimates) -> None:
        good = np.isfinite(part.values).all(axis=1) & np.isfinite(part.covariance).all(axis=(1, 2))
        rows, weight, part = rows[good], weight[good], part[np.flatnonzero(good)]
        offset = part.values - self.first.values[rows]  # relative to the first pass: squares of kelvin lose no digits
        self.weight[rows] += weight
        self.values[rows] += weight[:, None] * offset
        self.second[rows] += weight[:, None, None] * (part.covariance + offset[:, :, None] * offset[:, None, :])
        self.chi2[rows] += weight * part.chi2
        self.flag[rows] |= part.flag
        self.label_flags[rows] |= part.label_flags
        for row, status in zip(rows, part.status, strict=True):
            if status is not FitStatus.CONVERGED:
                self.status[row] = status

    def result(self) -> LabelEstimates:
        used = self.weight > 1e-6
        weight = np.where(used, self.weight, 1.0)
        offset = self.values / weight[:, None]
        covariance = self.second / weight[:, None, None] - offset[:, :, None] * offset[:, None, :]
        first = self.first
        return first.with_(
            values=np.where(used[:, None], first.values + offset, first.values),
            covariance=np.where(used[:, None, None], covariance, first.covariance),
            chi2=np.where(used, self.chi2 / weight, first.chi2),
            flag=np.where(used, first.flag | self.flag, first.flag),
            label_flags=np.where(used[:, None], self.label_flags, first.label_flags),
            status=tuple(self.status),
        )
