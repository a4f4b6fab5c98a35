"""LabelEstimates: what every inferrer returns, and all that assessment, catalogue and report ever see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.flags import FitStatus
from maury.labels import LabelSet
from maury.spectra import stack_tables

if TYPE_CHECKING:
    from astropy.table import Table

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelEstimates:
    """Labels of a batch of stars with full covariance, goodness of fit, status and flags.

    Parameters
    ----------
    labels : the label set; every label axis has its order.
    ids : (n,) names.
    values : (n, K) label units; NaN where a star has no estimate.
    covariance : (n, K, K) label units squared; the errors that go into the catalogue.
    chi2 : (n,) chi-square of the fit at ``values`` (NaN where there is none).
    n_pixels : (n,) number of pixels used.
    status : (n,) of :class:`~maury.flags.FitStatus`.
    flag : (n,) int64 of :class:`~maury.flags.ResultFlag`.
    label_flags : (n, K) int64, flags of one label each (``flag_<label>``).
    reason : (n,) a sentence for the stars without estimate, else "".
    raw_values, raw_covariance : before calibration; None where nothing was calibrated.
    meta : one row per star, carried to the catalogue.
    interval_errors : (n, K, 2) lower and upper error, label units, both >= 0; None where all errors are symmetric. ``covariance``
        has the symmetric ones beside them.
    """

    labels: LabelSet
    ids: NDArray[np.str_]
    values: FloatArray
    covariance: FloatArray
    chi2: FloatArray
    n_pixels: NDArray[np.int64]
    status: tuple[FitStatus, ...]
    flag: NDArray[np.int64]
    label_flags: NDArray[np.int64]
    reason: tuple[str, ...]
    meta: Table
    raw_values: FloatArray | None = None
    raw_covariance: FloatArray | None = None
    interval_errors: FloatArray | None = None

    def __post_init__(self) -> None:
        n, k = len(self.ids), len(self.labels)
        shapes = {
            "values": (n, k),
            "covariance": (n, k, k),
            "chi2": (n,),
            "n_pixels": (n,),
            "flag": (n,),
            "label_flags": (n, k),
        }
        if self.interval_errors is not None:
            shapes["interval_errors"] = (n, k, 2)
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise UsageError(f"expected {name} of shape {shape}, got {getattr(self, name).shape}; one row per star")
        if not (len(self.status) == len(self.reason) == len(self.meta) == n):
            raise UsageError(f"expected status, reason and meta for each of {n} stars; one entry per star")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def errors(self) -> FloatArray:
        """(n, K) standard deviations, label units."""
        return np.asarray(np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2)))

    @property
    def both_errors(self) -> FloatArray:
        """(n, K, 2) lower and upper errors, label units: ``interval_errors`` or, where that is None, the symmetric ones twice."""
        return np.repeat(self.errors[:, :, None], 2, axis=2) if self.interval_errors is None else self.interval_errors

    @property
    def correlation(self) -> FloatArray:
        """(n, K, K) correlation coefficients; NaN where an error is 0 or unknown."""
        sigma = self.errors
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.covariance / (sigma[:, :, None] * sigma[:, None, :]))

    def with_(self, **changes: Any) -> LabelEstimates:
        """A new object with some fields replaced."""
        return replace(self, **changes)

    def add_flag(self, where: NDArray[np.bool_], bit: int) -> LabelEstimates:
        """A new object with ``bit`` set in ``flag`` for the stars where ``where`` (n,) is true."""
        return replace(self, flag=np.where(where, self.flag | bit, self.flag))

    def add_label_flag(self, where: NDArray[np.bool_], bit: int) -> LabelEstimates:
        """A new object with ``bit`` set in ``label_flags`` where ``where`` (n, K), and in the star's ``flag`` too."""
        return replace(
            self,
            label_flags=np.where(where, self.label_flags | bit, self.label_flags),
            flag=np.where(where.any(axis=1), self.flag | bit, self.flag),
        )

    def only(self, names: Sequence[str]) -> LabelEstimates:
        """The same stars with some of the labels, in the order given (what a region or an error model knows of)."""
        if tuple(names) == self.labels.names:
            return self
        index = [self.labels.index(name) for name in names]
        changes: dict[str, Any] = {"labels": self.labels.only(names)}
        for name in ("values", "label_flags", "raw_values", "interval_errors"):
            array = getattr(self, name)
            changes[name] = None if array is None else array[:, index]
        for name in ("covariance", "raw_covariance"):
            array = getattr(self, name)
            changes[name] = None if array is None else array[:, index][:, :, index]
        return replace(self, **changes)

    def merged(self, part: LabelEstimates) -> LabelEstimates:
        """These estimates with the values, errors and flags of ``part``, which are :meth:`only` some labels of the same stars.

        Correlations between those labels and the others stay as they were.
        """
        if part.labels.names == self.labels.names:
            return part
        index = np.array([self.labels.index(name) for name in part.labels.names])
        values, label_flags = self.values.copy(), self.label_flags.copy()
        values[:, index], label_flags[:, index] = part.values, part.label_flags
        ratio = np.ones(self.values.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio[:, index] = np.nan_to_num(part.errors / self.errors[:, index], nan=1.0, posinf=1.0)
        covariance = self.covariance * ratio[:, :, None] * ratio[:, None, :]
        covariance[:, index[:, None], index] = part.covariance
        raw_values, raw_covariance = self.raw_values, self.raw_covariance
        if part.raw_values is not None:
            raw_values = (self.values if raw_values is None else raw_values).copy()
            raw_values[:, index] = part.raw_values
        if part.raw_covariance is not None:
            raw_covariance = (self.covariance if raw_covariance is None else raw_covariance).copy()
            raw_covariance[:, index[:, None], index] = part.raw_covariance
        intervals = None
        if self.interval_errors is not None or part.interval_errors is not None:
            intervals = self.both_errors.copy()
            intervals[:, index] = part.both_errors
        return replace(
            self,
            values=values,
            covariance=covariance,
            flag=part.flag,
            label_flags=label_flags,
            meta=part.meta,
            raw_values=raw_values,
            raw_covariance=raw_covariance,
            interval_errors=intervals,
        )

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[Any]) -> LabelEstimates:
        """The same estimates with only the given rows."""
        positions = np.arange(len(self))[rows if isinstance(rows, slice) else np.atleast_1d(np.asarray(rows))]
        changes: dict[str, Any] = {
            name: getattr(self, name)[positions]
            for name in ("ids", "values", "covariance", "chi2", "n_pixels", "flag", "label_flags", "meta")
        }
        for name in ("status", "reason"):
            changes[name] = tuple(getattr(self, name)[i] for i in positions)
        for name in ("raw_values", "raw_covariance", "interval_errors"):
            array = getattr(self, name)
            changes[name] = None if array is None else array[positions]
        return replace(self, **changes)

    @staticmethod
    def missing(labels: LabelSet, ids: Sequence[str], reason: Sequence[str], meta: Table, flag: int) -> LabelEstimates:
        """Rows for stars that never reached a fit: NaN, ``NOT_FITTED``, the reason and the flag."""
        n, k = len(ids), len(labels)
        return LabelEstimates(
            labels,
            np.array(list(ids), dtype=np.str_),
            np.full((n, k), np.nan),
            np.full((n, k, k), np.nan),
            np.full(n, np.nan),
            np.zeros(n, np.int64),
            (FitStatus.NOT_FITTED,) * n,
            np.full(n, flag, np.int64),
            np.zeros((n, k), np.int64),
            tuple(reason),
            meta,
        )

    @staticmethod
    def concatenate(parts: Sequence[LabelEstimates]) -> LabelEstimates:
        """One object from several of the same label set."""
        if not parts:
            raise UsageError("expected at least one set of estimates, got none")
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        if any(part.labels.names != first.labels.names for part in parts):
            raise UsageError("expected estimates of one label set, got several; infer with one model")

        def join(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        def join_or(name: str, otherwise: str) -> Any:
            """A field that may be None, ``otherwise`` of the parts where it is; None if it is in all."""
            if all(getattr(part, name) is None for part in parts):
                return None
            return np.concatenate([getattr(p, otherwise if getattr(p, name) is None else name) for p in parts])

        return LabelEstimates(
            first.labels,
            join("ids"),
            join("values"),
            join("covariance"),
            join("chi2"),
            join("n_pixels"),
            tuple(s for part in parts for s in part.status),
            join("flag"),
            join("label_flags"),
            tuple(r for part in parts for r in part.reason),
            stack_tables([part.meta for part in parts]),
            join_or("raw_values", "values"),
            join_or("raw_covariance", "covariance"),
            join_or("interval_errors", "both_errors"),
        )
