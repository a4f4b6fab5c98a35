"""Spectra: a batch of spectra on one wavelength grid, the noun that every room of the house speaks.

Ragged input (spectra of several grids) is ``list[Spectra]`` until a resampling step puts them on one grid.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError

if TYPE_CHECKING:
    from astropy.table import Table

Medium = Literal["vacuum", "air"]
Frame = Literal["rest", "observed"]

STANDARD_META = ("file", "instrument", "snr", "rv", "resolving_power", "fwhm")
"""Columns that every reader fills: file name, instrument, S/N per pixel, radial velocity (km/s, NaN unknown),
resolving power (NaN unknown) and line-spread FWHM in Å (NaN unknown; at most one of the last two is given)."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """A batch of spectra on one wavelength grid. Immutable: its arrays are read-only views.

    Parameters
    ----------
    wavelength : (n_pixels,) float64, Å, strictly increasing, positive.
    flux : (n_spectra, n_pixels), any flux unit (the same for all pixels of a spectrum); finite everywhere.
    ivar : (n_spectra, n_pixels), inverse variance of flux; 0 means "do not use". Never NaN, never negative.
    ids : (n_spectra,) names of the spectra.
    medium : "vacuum" or "air": what the wavelengths are measured in.
    frame : "rest" or "observed" (barycentric or topocentric with the star's velocity in it).
    meta : astropy Table with one row per spectrum; readers fill :data:`STANDARD_META`.
    mask : (n_spectra, n_pixels) uint32 of :class:`~maury.flags.PixelFlag`, or None where nothing is flagged.
    preparation : fingerprint of the preparation that made this batch, None for raw spectra.

    Raises
    ------
    UsageError
        If shapes disagree, wavelengths do not increase, or flux or ivar hold NaN or ivar negative values.
        (Use :meth:`from_arrays` to turn NaN pixels of your data into masked ones.)
    """

    wavelength: NDArray[np.float64]
    flux: NDArray[Any]
    ivar: NDArray[Any]
    ids: NDArray[np.str_]
    medium: Medium
    frame: Frame
    meta: Table
    mask: NDArray[np.uint32] | None = None
    preparation: str | None = None

    def __post_init__(self) -> None:
        n = _check_shapes(self.wavelength, self.flux, self.ivar, self.ids, self.mask)
        if len(self.meta) != n:
            raise UsageError(f"expected meta with one row for each of {n} spectra, got {len(self.meta)} rows; add or drop rows")
        if self.medium not in get_args(Medium):
            raise UsageError(f"expected medium 'vacuum' or 'air', got {self.medium!r}; say which the wavelengths are in")
        if self.frame not in get_args(Frame):
            raise UsageError(f"expected frame 'rest' or 'observed', got {self.frame!r}; say whether the velocity was removed")
        for name in ("wavelength", "flux", "ivar", "ids", "mask"):
            array = getattr(self, name)
            if array is not None:
                view = array.view()  # freeze a view: the caller's own array stays writable
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    @classmethod
    def from_arrays(
        cls,
        wavelength: ArrayLike,
        flux: ArrayLike,
        *,
        ivar: ArrayLike | None = None,
        error: ArrayLike | None = None,
        medium: Medium,
        frame: Frame,
        ids: Sequence[str] | None = None,
        meta: Table | None = None,
        mask: ArrayLike | None = None,
    ) -> Spectra:
        """Spectra from plain arrays; pixels with NaN flux or unusable errors become ivar = 0, flux = 0.

        Parameters
        ----------
        wavelength : (n_pixels,) in Å, or an astropy Quantity of any length unit. Plain numbers are Å: nothing is guessed.
        flux : (n_spectra, n_pixels) or (n_pixels,).
        ivar, error : give exactly one; error is the standard deviation.
        medium, frame : must be said; see :class:`Spectra`.

        Raises
        ------
        UsageError
            If both or none of ivar and error are given, or the shapes disagree.
        """
        if (ivar is None) == (error is None):
            raise UsageError("expected exactly one of ivar and error, got both or none; pass the one your file holds")
        angstrom = np.asarray(wavelength.to_value("AA") if hasattr(wavelength, "to_value") else wavelength, dtype=np.float64)
        f = np.atleast_2d(np.asarray(flux))
        if f.dtype.kind != "f":
            f = f.astype(np.float64)
        if ivar is not None:
            weight = np.atleast_2d(np.asarray(ivar, dtype=np.float64))
        else:
            sigma = np.atleast_2d(np.asarray(error, dtype=np.float64))
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                weight = np.where(sigma > 0, 1.0 / sigma**2, 0.0)
        if weight.shape != f.shape:
            raise UsageError(f"expected errors of the flux's shape {f.shape}, got {weight.shape}; give one error per pixel")
        good = np.isfinite(f) & np.isfinite(weight) & (weight > 0)
        return cls(
            angstrom,
            np.where(good, f, 0.0).astype(f.dtype, copy=False),
            np.where(good, weight, 0.0),
            np.array([str(i) for i in (ids if ids is not None else range(len(f)))], dtype=np.str_),
            medium,
            frame,
            meta if meta is not None else empty_meta(len(f)),
            None if mask is None else np.atleast_2d(np.asarray(mask)).astype(np.uint32),
        )

    # -- description --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.flux.shape[0])

    @property
    def n_spectra(self) -> int:
        return int(self.flux.shape[0])

    @property
    def n_pixels(self) -> int:
        return int(self.flux.shape[1])

    def __repr__(self) -> str:
        return (
            f"Spectra({self.n_spectra} x {self.n_pixels} pixels, {self.wavelength[0]:.1f}-{self.wavelength[-1]:.1f} Å "
            f"{self.medium}, {self.frame} frame)"
        )

    # -- derived batches ----------------------------------------------------------------------------------------

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[Any]) -> Spectra:
        """The same batch with only the given rows (slice, integer or boolean index)."""
        index = _row_index(rows, len(self))
        if isinstance(index, slice) and index == slice(0, len(self), 1):
            return self
        return _unchecked(
            self,
            flux=self.flux[index],
            ivar=self.ivar[index],
            ids=self.ids[index],
            meta=self.meta[index],
            mask=None if self.mask is None else self.mask[index],
        )

    def with_pixels(self, **changes: Any) -> Spectra:
        """A new batch with other flux, ivar, mask, wavelength, medium, frame, meta or preparation."""
        return replace(self, **changes)

    @staticmethod
    def stack(batches: Sequence[Spectra]) -> Spectra:
        """One batch from several that already share a grid.

        Raises
        ------
        UsageError
            If grids, media, frames or preparations differ: spectra of different grids become one batch only by resampling.
        """
        if not batches:
            raise UsageError("expected at least one batch of spectra, got none; read or select some first")
        first = batches[0]
        for other in batches[1:]:
            if not np.array_equal(first.wavelength, other.wavelength):
                raise UsageError(f"expected spectra on one wavelength grid, got {first!r} and {other!r}; resample them first")
            if (first.medium, first.frame, first.preparation) != (other.medium, other.frame, other.preparation):
                raise UsageError("expected spectra of one medium, frame and preparation, got a mixture; prepare them alike first")
        if len(batches) == 1:
            return first
        mask = None
        if any(b.mask is not None for b in batches):
            mask = np.concatenate([b.mask if b.mask is not None else np.zeros(b.flux.shape, np.uint32) for b in batches])
        return _unchecked(
            first,
            flux=np.concatenate([b.flux for b in batches]),
            ivar=np.concatenate([b.ivar for b in batches]),
            ids=np.concatenate([b.ids for b in batches]),
            meta=stack_tables([b.meta for b in batches]),
            mask=mask,
        )


def _unchecked(spectra: Spectra, **changes: Any) -> Spectra:
    """Like :meth:`Spectra.with_pixels`, for rows that come from checked batches: their pixels need no second look."""
    part = copy.copy(spectra)
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
        object.__setattr__(part, name, value)
    return part


def empty_meta(n_spectra: int) -> Table:
    """A meta table of ``n_spectra`` rows with :data:`STANDARD_META`, all unknown."""
    from astropy.table import Table

    nan = np.full(n_spectra, np.nan)
    return Table(
        {
            "file": np.full(n_spectra, "", dtype="U1"),
            "instrument": np.full(n_spectra, "", dtype="U1"),
            "snr": nan,
            "rv": nan,
            "resolving_power": nan,
            "fwhm": nan,
        },
        copy=True,
    )


def stack_tables(tables: Sequence[Table]) -> Table:
    """Tables under one another; columns that some of them lack are masked there.

    astropy's vstack takes half a millisecond per table. Where all tables have the same plain columns, numpy joins them.
    """
    from astropy.table import Column, MaskedColumn, Table, vstack

    first = tables[0]
    kinds = _column_kinds(first)
    plain = all(kind in (Column, MaskedColumn) and code in "biufUS" for _, kind, _, code, _ in kinds)
    if not plain or any(_column_kinds(table) != kinds for table in tables[1:]):
        return vstack(list(tables), join_type="outer", metadata_conflicts="silent")
    out = Table(meta={key: value for table in reversed(tables) for key, value in table.meta.items()})
    for name, kind, *_ in kinds:
        column = first.columns[name]
        join = np.ma.concatenate if kind is MaskedColumn else np.concatenate
        data = join([table.columns[name].data for table in tables])
        out.add_column(kind(data, name=name, unit=column.unit, description=column.description, format=column.format), copy=False)
    return out


def _column_kinds(table: Table) -> list[tuple[str, type, Any, str, tuple[int, ...]]]:
    return [(name, type(c), c.unit, c.dtype.kind, c.shape[1:]) for name, c in table.columns.items()]


def source_names(spectra: Spectra) -> list[set[str]]:
    """For each spectrum the names it answers to in settings that differ by source: its file format and its instrument."""
    columns = [spectra.meta[c] for c in ("format", "instrument") if c in spectra.meta.colnames]
    return [{str(column[row]) for column in columns} for row in range(len(spectra))]


def _row_index(rows: slice | Sequence[int] | NDArray[Any], n: int) -> slice | NDArray[Any]:
    """Rows as an index; neighbouring rows in order as a slice, which copies nothing."""
    if isinstance(rows, slice):
        return slice(*rows.indices(n)) if rows.step is None or rows.step > 0 else rows
    index = np.atleast_1d(np.asarray(rows))
    if index.dtype == bool:
        if index.shape != (n,):
            raise UsageError(f"expected a boolean index of {n} rows, got shape {index.shape}; one entry per spectrum")
        index = np.flatnonzero(index)
    if index.ndim == 1 and index.size and index[0] >= 0 and index[-1] < n and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1, 1)
    return index.astype(np.intp, copy=False) if index.size == 0 else index


def selected(spectra: Spectra, only: Sequence[str], skip: Sequence[str]) -> NDArray[np.bool_]:
    """(n_spectra,) which spectra a setting is for: those of ``only`` (all if it is empty) that are not of ``skip``."""
    wanted = [(not only or bool(names & set(only))) and not names & set(skip) for names in source_names(spectra)]
    return np.array(wanted, dtype=bool)


def _check_shapes(
    wavelength: NDArray[Any], flux: NDArray[Any], ivar: NDArray[Any], ids: NDArray[Any], mask: NDArray[Any] | None
) -> int:
    if wavelength.ndim != 1 or wavelength.size < 2:
        raise UsageError(
            f"expected a wavelength vector of at least 2 pixels, got shape {wavelength.shape}; pass one grid for all"
        )
    if flux.ndim != 2 or flux.shape[1] != wavelength.size:
        raise UsageError(f"expected flux of shape (n_spectra, {wavelength.size}), got {flux.shape}; one row per spectrum")
    if ivar.shape != flux.shape:
        raise UsageError(f"expected ivar of the flux's shape {flux.shape}, got {ivar.shape}; one inverse variance per pixel")
    if mask is not None and mask.shape != flux.shape:
        raise UsageError(f"expected mask of the flux's shape {flux.shape}, got {mask.shape}; one flag word per pixel")
    if ids.shape != (flux.shape[0],):
        raise UsageError(f"expected {flux.shape[0]} ids, got shape {ids.shape}; one id per spectrum")
    if not np.isfinite(wavelength).all() or wavelength[0] <= 0 or not (np.diff(wavelength) > 0).all():
        raise UsageError("expected strictly increasing positive wavelengths in Å, got others; sort them, drop repeats")
    if not np.isfinite(flux).all():
        raise UsageError("expected finite flux, got NaN or infinity; build with Spectra.from_arrays, which masks such pixels")
    if not np.isfinite(ivar).all() or (ivar < 0).any():
        raise UsageError("expected finite, non-negative ivar, got others; Spectra.from_arrays masks such pixels")
    return int(flux.shape[0])
