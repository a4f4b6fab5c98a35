"""A grid of model spectra: labels, one wavelength vector, and flux that is read row by row when it is wanted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError, UsageError
from maury.labels import Label
from maury.spectra import Medium

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SAME = 1e-6  # relative difference of two values of one axis: labels stored in single precision agree to 1e-7
_LEAST_FILLED = 0.02  # of a lattice's nodes; all of PHOENIX-ACES fills about a third, scattered points less than this
_MOST_NODES = 50_000_000
_HASH_BLOCK = 32_000_000  # bytes of flux in memory while it is hashed


class FluxRows(Protocol):
    """(n, n_pixels) flux, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def n_bytes(self) -> int:
        """Size where it is: in memory, or of the files."""
        ...

    def read(self, rows: IntArray, pixels: slice) -> NDArray[Any]:
        """(m, p) some rows, in the order asked for, and of each some pixels."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Flux in memory; ``array`` is (n, n_pixels)."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.array.shape[0]), int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def n_bytes(self) -> int:
        return self.array.nbytes

    def read(self, rows: IntArray, pixels: slice) -> NDArray[Any]:
        return np.asarray(self.array[:, pixels][rows])


@dataclass(frozen=True, eq=False)
class CroppedRows:
    """A part of the pixels of other rows, still on disk."""

    whole: FluxRows
    first: int
    n_pixels: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.whole.shape[0], self.n_pixels

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.whole.dtype

    @property
    def n_bytes(self) -> int:
        return self.whole.n_bytes

    def read(self, rows: IntArray, pixels: slice) -> NDArray[Any]:
        start, stop, step = pixels.indices(self.n_pixels)
        return self.whole.read(rows, slice(self.first + start, self.first + max(stop, start), step))


@dataclass(frozen=True, eq=False)
class Lattice:
    """A regular lattice and which of its nodes have a spectrum.

    Parameters
    ----------
    names : of the K labels.
    axes : K increasing vectors: the values along each label.
    rows : (n_1, ..., n_K) row of the grid at each node; -1 at a hole.
    """

    names: tuple[str, ...]
    axes: tuple[FloatArray, ...]
    rows: IntArray

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    @cached_property
    def holes(self) -> FloatArray:
        """(n_holes, K) labels of the nodes without a spectrum."""
        places = np.argwhere(self.rows < 0)
        return np.column_stack([axis[places[:, k]] for k, axis in enumerate(self.axes)])

    def inside(self, values: FloatArray) -> NDArray[np.bool_]:
        """(n,) whether (n, K) labels lie in the box of the axes, ends included; NaN does not."""
        within = [
            (column >= axis[0] - tolerance(axis)) & (column <= axis[-1] + tolerance(axis))
            for column, axis in zip(values.T, self.axes, strict=True)
        ]
        return np.asarray(np.logical_and.reduce(within))


def tolerance(axis: FloatArray) -> float:
    """How far a value may miss a node and still be that node."""
    return _SAME * max(float(np.abs(axis).max()), 1.0)


def words(names: tuple[str, ...], values: FloatArray) -> str:
    """Labels of one node as text."""
    return " ".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))


@dataclass(frozen=True, eq=False)
class Grid:
    """Model spectra at given labels.

    Parameters
    ----------
    name : of the file or folder; stands in errors.
    labels : the K labels, with their units.
    values : (n, K) labels of each spectrum, in these units; no row twice.
    wavelength : (n_pixels,) Å, increasing.
    medium : "vacuum" or "air".
    rows : (n, n_pixels) flux.
    flux_unit : of the flux, as in the original; "" for flux over continuum.
    resolving_power, fwhm : of the spectra as computed (R, or Å); neither where it is as good as infinite or unknown.
    provenance : plain JSON of where it comes from.

    Raises
    ------
    UsageError
        If shapes disagree, a label is not finite, the same labels come twice, or a resolution is no positive number.
    """

    name: str
    labels: tuple[Label, ...]
    values: FloatArray
    wavelength: FloatArray
    medium: Medium
    rows: FluxRows
    flux_unit: str = ""
    resolving_power: float | None = None
    fwhm: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, n_pixels = self.rows.shape
        if self.values.shape != (n, len(self.labels)) or n == 0:
            raise UsageError(
                f"{self.name}: expected labels of shape ({n}, {len(self.labels)}), a row for each spectrum and at least one, got "
                f"{self.values.shape}; check labels and spectra"
            )
        if self.wavelength.shape != (n_pixels,) or not (np.diff(self.wavelength) > 0).all():
            raise UsageError(
                f"{self.name}: expected {n_pixels} increasing wavelengths, one per pixel of the flux, got shape "
                f"{self.wavelength.shape}; check the wavelengths"
            )
        if self.medium not in get_args(Medium):
            raise UsageError(f"{self.name}: expected medium 'vacuum' or 'air', got {self.medium!r}; say which it is")
        if not np.isfinite(self.values).all():
            row = int(np.argmax(~np.isfinite(self.values).all(axis=1)))
            raise UsageError(f"{self.name}: expected finite labels, got NaN or infinity for spectrum {row}; leave it out")
        self._check_resolution()
        self._check_different()
        for array in ("values", "wavelength"):
            view = getattr(self, array).view()
            view.flags.writeable = False
            object.__setattr__(self, array, view)

    def _check_resolution(self) -> None:
        for name in ("resolving_power", "fwhm"):
            value = getattr(self, name)
            right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
            if value is not None and not right:
                raise UsageError(f"{self.name}: expected {name} as a positive number, got {value!r}; correct it or leave it out")
        if self.resolving_power is not None and self.fwhm is not None:
            raise UsageError(f"{self.name}: expected resolving_power or fwhm, got both; leave one out")

    def _check_different(self) -> None:
        different, first, count = np.unique(self.values, axis=0, return_index=True, return_counts=True)
        if len(different) < len(self.values):
            twice = int(np.argmax(count > 1))
            both = np.flatnonzero((self.values == different[twice]).all(axis=1))[:2]
            raise UsageError(
                f"{self.name}: expected each node once, got {words(self.names, self.values[first[twice]])} for spectra "
                f"{both[0]} and {both[1]}; remove one of the two"
            )

    # -- what it holds --------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def n_spectra(self) -> int:
        return len(self.values)

    @property
    def n_pixels(self) -> int:
        return int(self.wavelength.size)

    @property
    def is_normalised(self) -> bool:
        """Whether the flux is divided by its continuum."""
        return self.flux_unit == ""

    def __repr__(self) -> str:
        low, high = self.wavelength[[0, -1]]
        return f"Grid({self.name}: {self.n_spectra} x {self.n_pixels} pixels, {low:.1f}-{high:.1f} Å {self.medium})"

    def flux(self, rows: slice | IntArray | list[int] = slice(None), pixels: slice = slice(None)) -> NDArray[Any]:
        """(m, p) flux of some spectra, read now.

        Raises
        ------
        ReadError
            If a file cannot be read, or flux is NaN or infinite.
        """
        wanted = np.arange(self.n_spectra)[rows]
        flux = self.rows.read(wanted, pixels)
        finite = np.isfinite(flux).all(axis=1)
        if not finite.all():  # one such node would silently spoil every spectrum interpolated from it
            row = int(wanted[np.argmin(finite)])
            raise ReadError(
                f"{self.name}: expected finite flux, got NaN or infinity at {words(self.names, self.values[row])} "
                f"(spectrum {row}); leave this spectrum out, and it is a hole"
            )
        return flux

    def crop(self, start: float, stop: float) -> Grid:
        """The same spectra from ``start`` to ``stop`` Å, ends included; nothing is read.

        Raises
        ------
        UsageError
            If no pixel lies there.
        """
        first, last = np.searchsorted(self.wavelength, start), np.searchsorted(self.wavelength, stop, side="right")
        if last <= first:
            raise UsageError(
                f"{self.name}: expected a range within {self.wavelength[0]:g} to {self.wavelength[-1]:g} Å, got {start:g} to "
                f"{stop:g}; change it"
            )
        rows = CroppedRows(self.rows, int(first), int(last - first))
        return replace(self, wavelength=self.wavelength[first:last], rows=rows)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides an interpolated spectrum; reads all flux."""
        digest = hashlib.sha256(repr((self.names, self.medium, self.flux_unit)).encode())
        for array in (self.values, self.wavelength):
            digest.update(np.ascontiguousarray(array).tobytes())
        step = max(1, _HASH_BLOCK // max(1, self.rows.dtype.itemsize * self.n_pixels))
        for start in range(0, self.n_spectra, step):
            digest.update(np.ascontiguousarray(self.flux(slice(start, start + step))).tobytes())
        return digest.hexdigest()

    # -- as a lattice ---------------------------------------------------------------------------------------------------------

    @cached_property
    def is_lattice(self) -> bool:
        """Whether the nodes form a regular lattice, perhaps with holes, and not scattered points."""
        axes = self._axes()
        size = math.prod(len(axis) for axis in axes)
        varying = [axis for axis in axes if len(axis) > 1]
        scattered = len(varying) > 1 and self.n_spectra > 2 and all(len(axis) == self.n_spectra for axis in varying)
        return not scattered and size <= _MOST_NODES and self.n_spectra >= _LEAST_FILLED * size

    @cached_property
    def lattice(self) -> Lattice:
        """The axes, and which of their nodes have a spectrum.

        Raises
        ------
        UsageError
            If the nodes are scattered points.
        """
        axes = self._axes()
        if not self.is_lattice:
            raise UsageError(
                f"{self.name}: expected a regular lattice, got {self.n_spectra} points with "
                f"{' x '.join(str(len(axis)) for axis in axes)} different values of {', '.join(self.names)}; use its own spectra "
                'without interpolation (sample.kind = "nodes")'
            )
        places = tuple(_nearest(axis, column) for axis, column in zip(axes, self.values.T, strict=True))
        rows = np.full(tuple(len(axis) for axis in axes), -1, dtype=np.int64)
        rows[places] = np.arange(self.n_spectra)
        if np.count_nonzero(rows >= 0) < self.n_spectra:
            taken = rows[places]
            row = int(np.flatnonzero(taken != np.arange(self.n_spectra))[0])
            raise UsageError(
                f"{self.name}: expected each node once, got {words(self.names, self.values[row])} for spectra {row} and "
                f"{taken[row]}; remove one of the two"
            )
        return Lattice(self.names, axes, rows)

    def _axes(self) -> tuple[FloatArray, ...]:
        return tuple(_different(column) for column in self.values.T)


def _different(column: FloatArray) -> FloatArray:
    """The different values, increasing; those that only rounding keeps apart are one.

    Numbers that were stored in single precision are given back their decimals: 4.19999981 is 4.2, where a user will look for it.
    """
    sorted_values = np.unique(column)
    apart = np.diff(sorted_values) > tolerance(sorted_values)
    axis = sorted_values[np.concatenate([[True], apart])]
    decimals = np.array([float(f"{value:.7g}") for value in axis])
    single = axis.astype(np.float32) == axis
    return np.asarray(np.where(single & (decimals.astype(np.float32) == axis), decimals, axis))


def _nearest(axis: FloatArray, column: FloatArray) -> IntArray:
    """Place of each value on its axis, which holds it up to rounding."""
    return np.asarray(np.clip(np.searchsorted(axis, column + tolerance(axis)) - 1, 0, len(axis) - 1), dtype=np.int64)
