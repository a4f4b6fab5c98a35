"""Synthetic libraries in one file: a wavelength vector, spectra as rows, labels as rows.

Unlike a survey's format, such a file has no documented form: the caller says what its arrays are called and measured in. An
``.npz`` archive holds them as arrays (read without pickle), an HDF5 file as datasets by path, a zarr store likewise with words as
attributes; a FITS file as images by extension name, and labels also as a table.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError, UsageError
from maury.read._common import assumed_errors, check_wavelength, snr_per_pixel
from maury.spectra import Medium, Spectra

if TYPE_CHECKING:
    from astropy.table import Table

Arrays = dict[str, Any]

_HDF5 = b"\x89HDF\r\n\x1a\n"  # HDF5 file format specification 3.0, II.A: the signature


@dataclass(frozen=True, eq=False)
class SyntheticLibrary:
    """What :func:`read_library` brings.

    Parameters
    ----------
    spectra : n spectra in the rest frame.
    labels : n rows, one column per label of the file and one per further array (n,), under the file's own names; units are the
        caller's to know.
    names : the columns that are labels; all where the file does not tell them from others.
    """

    spectra: Spectra
    labels: Table
    names: tuple[str, ...]


def read_library(
    path: str | Path,
    *,
    wavelength: str,
    wavelength_unit: str,
    flux: str,
    medium: Medium,
    snr: float | None = None,
    ivar: str | None = None,
    flux_scale: str | None = None,
    labels: str | None = None,
    label_names: str | tuple[str, ...] | None = None,
    resolving_power: float | None = None,
    fwhm: float | None = None,
    where: Mapping[str, str | float] | None = None,
) -> SyntheticLibrary:
    """Read a synthetic library.

    Parameters
    ----------
    wavelength, flux : names of the arrays (n_pixels,) and (n, n_pixels).
    wavelength_unit : as astropy writes it, e.g. "Angstrom" or "nm".
    flux_scale : name of a number, or of an array that broadcasts with the flux, by which the stored flux is multiplied.
    labels : name of an array (n, K), or of a FITS table; None if each label is an array (n,) of its own.
    label_names : names of the K columns, or the name of the array that holds them; not for a table.
    snr : signal-to-noise per pixel to assume; the error is the smooth flux level over it.
    ivar : name of the array (n, n_pixels) of inverse variances of the (scaled) flux instead; where it is 0 or no positive number,
        the pixel is masked. Exactly one of snr and ivar is given.
    resolving_power, fwhm : of the spectra (constant R, or Å); at most one.
    where : name of an array (n,) -> the value it must have; other spectra are left out.

    Raises
    ------
    ReadError
        If the file is none of these, an array is missing or of the wrong shape, or values are not finite.
    UsageError
        If the unit is no length, or both or none of snr and ivar are given.
    """
    from astropy.table import Table

    if (snr is None) == (ivar is None):
        raise UsageError("expected one of snr and ivar for a library, got both or none; say what the errors of its spectra are")
    file = Path(path)
    arrays = _open(file)
    wave, order = check_wavelength(_angstrom(_named(arrays, wavelength, file), wavelength_unit))
    stored = np.asarray(_named(arrays, flux, file))
    if stored.ndim != 2 or stored.shape[1] != wave.size or stored.dtype.kind not in "iuf":
        raise ReadError(f"{file.name}: expected {flux} as numbers (n, {wave.size}), got shape {stored.shape}; check the names")
    values = _scaled(stored, 1.0 if flux_scale is None else _named(arrays, flux_scale, file), file)[:, order]
    weight = None if ivar is None else _inverse_variance(arrays, ivar, values, file, order)
    table, names = _labels(arrays, labels, label_names, len(values), file)
    if where:
        kept = _selected(arrays, where, len(values), file)
        values, table, weight = values[kept], table[kept], None if weight is None else weight[kept]
    error = None if snr is None else np.array([assumed_errors(row, snr) for row in values])
    meta = Table({"file": np.full(len(values), file.name)})
    meta["format"], meta["instrument"], meta["rv"] = "library", "synthetic", 0.0
    meta["snr"] = snr if weight is None else snr_per_pixel(values, weight)
    meta["resolving_power"], meta["fwhm"] = resolving_power or np.nan, fwhm or np.nan
    spectra = Spectra.from_arrays(
        wave,
        values,
        ivar=weight,
        error=error,
        medium=medium,
        frame="rest",
        ids=[f"{file.stem}#{row}" for row in range(len(values))],
        meta=meta,
    )
    return SyntheticLibrary(spectra, table, names)


def _inverse_variance(
    arrays: Arrays, name: str, values: NDArray[Any], file: Path, order: NDArray[np.int64] | slice
) -> NDArray[np.float64]:
    """(n, n_pixels), 0 where there is no positive number."""
    stored = np.asarray(_named(arrays, name, file))
    if stored.shape != values.shape or stored.dtype.kind not in "iuf":
        raise ReadError(
            f"{file.name}: expected {name} as numbers of the flux's shape {values.shape}, got {stored.shape}; check its name"
        )
    weight = stored[:, order].astype(np.float64)
    return np.where(np.isfinite(weight) & (weight > 0), weight, 0.0)


def _scaled(stored: NDArray[Any], scale: Any, file: Path) -> NDArray[np.float32]:
    """Flux in its own unit; the stored numbers may be integers."""
    try:
        values = np.broadcast_to(stored * np.asarray(scale, dtype=np.float64), stored.shape).astype(np.float32)
    except (ValueError, TypeError):
        raise ReadError(
            f"{file.name}: expected flux_scale as a number or one per spectrum, got shape {np.shape(scale)}; check its name"
        ) from None
    if not np.isfinite(values).all():
        raise ReadError(f"{file.name}: expected finite flux, got NaN or infinity; leave such spectra out of the library")
    return values


def _open(file: Path) -> Arrays:
    """Arrays and tables of the file by name."""
    store = file.is_dir() and (file / "zarr.json").is_file()
    if not file.is_file() and not store:
        raise ReadError(f"{file}: expected a synthetic library, found no such file; check the path")
    try:
        if store:
            return _zarr_arrays(file)
        if zipfile.is_zipfile(file):
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        with open(file, "rb") as handle:
            is_hdf5 = handle.read(len(_HDF5)) == _HDF5
        return _hdf5_arrays(file) if is_hdf5 else _fits_arrays(file)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, UserWarning, zipfile.BadZipFile, zlib.error) as error:
        text = " ".join(str(error).split())[:200]
        raise ReadError(
            f"{file.name}: expected a library as .npz (no pickled objects), .zarr, HDF5 or FITS, got: {text}; check the file"
        ) from None


def _zarr_arrays(file: Path) -> Arrays:
    try:
        import zarr
    except ImportError:
        raise ReadError(f"{file.name}: expected zarr to be installed for it, got none; run pip install 'maury[grids]'") from None
    group = zarr.open_group(file, mode="r")
    words = {name: np.array(value) for name, value in group.attrs.asdict().items() if isinstance(value, (str, list))}
    return words | {name: np.asarray(array[...]) for name, array in group.arrays()}


def _hdf5_arrays(file: Path) -> Arrays:
    try:
        import h5py
    except ImportError:
        raise ReadError(f"{file.name}: expected h5py to be installed for it, got none; run pip install 'maury[grids]'") from None
    arrays: Arrays = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            is_text = h5py.check_string_dtype(item.dtype) is not None
            arrays[name] = np.asarray(item.asstr()[...], dtype=np.str_) if is_text else np.asarray(item[...])

    with h5py.File(file, "r") as root:
        root.visititems(keep)
    return arrays


def _fits_arrays(file: Path) -> Arrays:
    from astropy.io import fits
    from astropy.table import Table

    arrays: Arrays = {}
    with warnings.catch_warnings(), fits.open(file, memmap=False) as hdus:
        warnings.filterwarnings("error", message="File may have been truncated")
        for hdu in hdus:
            if hdu.data is not None:
                arrays[hdu.name] = Table(hdu.data) if isinstance(hdu, fits.BinTableHDU) else np.asarray(hdu.data)
    return arrays


def _named(arrays: Arrays, name: str, file: Path) -> Any:
    if name not in arrays:
        raise ReadError(f"{file.name}: expected an array {name!r}, got {', '.join(arrays) or 'none'}; name one of these")
    return arrays[name]


def _selected(arrays: Arrays, where: Mapping[str, str | float], n: int, file: Path) -> NDArray[np.bool_]:
    """(n,) which spectra have the wanted values; at least one does."""
    kept = np.ones(n, dtype=bool)
    for name, wanted in where.items():
        found = np.asarray(_named(arrays, name, file))
        if found.shape != (n,):
            raise ReadError(f"{file.name}: expected {name} of shape ({n},), a value per spectrum, got {found.shape}; check where")
        kept &= found == wanted
    if not kept.any():
        raise ReadError(f"{file.name}: expected spectra with {dict(where)}, got none; check where")
    return kept


def _angstrom(values: Any, unit: str) -> NDArray[np.float64]:
    import astropy.units as u

    try:
        return np.asarray(u.Quantity(np.asarray(values, dtype=np.float64), unit).to_value(u.AA))
    except (ValueError, TypeError):
        raise UsageError(f"expected a length as wavelength_unit, got {unit!r}; write 'Angstrom' or 'nm'") from None


def _labels(
    arrays: Arrays, labels: str | None, names: str | tuple[str, ...] | None, n: int, file: Path
) -> tuple[Table, tuple[str, ...]]:
    """The labels, and what else there is of each spectrum, as a table of n rows; and which of its columns are labels."""
    from astropy.table import Table

    columns = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray) and array.shape == (n,)}
    if labels is None:
        return Table(columns), tuple(columns)
    found = _named(arrays, labels, file)
    if not isinstance(found, Table):
        words = [str(w) for w in (_named(arrays, names, file) if isinstance(names, str) else names or ())]
        if np.shape(found) != (n, len(words)):
            raise ReadError(
                f"{file.name}: expected {labels} of shape ({n}, {len(words)}), one row per spectrum and one column per name, got "
                f"{np.shape(found)}; check labels and label_names"
            )
        return Table(columns | dict(zip(words, np.asarray(found).T, strict=True))), tuple(words)
    if len(found) != n:
        raise ReadError(f"{file.name}: expected {n} rows in {labels}, one per spectrum, got {len(found)}; check the file")
    return found, tuple(found.colnames)
