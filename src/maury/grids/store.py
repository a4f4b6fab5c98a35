"""Grids of model spectra on disk: a zarr store (version 3) or a numpy archive, whole or absent.

Both hold the same names, in the form of :mod:`maury.grids.training_set`, which a recipe of ``maury train`` reads as a library
too: ``wavelength`` (n_pixels,) Å, ``flux`` (n, n_pixels), ``labels`` (n, K), and as texts ``label_names``, ``label_units``,
``medium``, ``flux_unit``, ``format`` and ``provenance`` (JSON). A zarr store is cut into chunks of whole spectra, so that few are
read for few; of an archive the flux is memory-mapped. Nothing of time, place or machine is written: equal grids, equal bytes.
"""

from __future__ import annotations

import json
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError, UsageError
from maury.files import canonical_json, one_line, written
from maury.grids.grid import ArrayRows, FluxRows, Grid, IntArray
from maury.grids.training_set import LargeArray, TrainingSet, check_output, write_training_set
from maury.labels import make_label
from maury.spectra import Medium

FORMAT = "maury grid 1"
_FAMILY = "maury grid "
_NUMBERS = "fiu"  # kinds of numpy types that may be flux
_CHUNK_BYTES = 4_000_000  # of one chunk, uncompressed: few to open, and little read for one spectrum
# what zipfile, numpy, zarr and its decompressors raise for a damaged file
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def write_grid(output: Path, grid: Grid, scratch: Path | None = None) -> None:
    """Write a grid; an existing grid of that name is replaced.

    Memory holds a chunk of spectra at a time.

    Parameters
    ----------
    output : ends in ``.zarr`` or ``.npz``.
    scratch : a folder to be made on the same disk, where a zarr store is put together; by default beside the output, where a kill
        leaves it.

    Raises
    ------
    UsageError
        For another ending, a folder that is no zarr store, a disk that cannot be written, or if zarr is not installed.
    """
    check_output(output)
    per_chunk = max(1, _CHUNK_BYTES // (4 * grid.n_pixels))

    def blocks() -> Iterator[NDArray[Any]]:
        for start in range(0, grid.n_spectra, per_chunk):
            yield np.asarray(grid.flux(slice(start, start + per_chunk)), dtype=np.float32)

    resolution = {name: value for name in ("resolving_power", "fwhm") if (value := getattr(grid, name)) is not None}
    content = TrainingSet(
        large={"flux": LargeArray(grid.rows.shape, "<f4", blocks)},
        small={"wavelength": np.asarray(grid.wavelength), "labels": np.asarray(grid.values)},
        texts={
            "format": FORMAT,
            "medium": grid.medium,
            "flux_unit": grid.flux_unit,
            "label_names": list(grid.names),
            "label_units": [label.unit for label in grid.labels],
            "provenance": canonical_json({**grid.provenance, "resolution": resolution}, "the provenance of a grid"),
        },
        rows_per_block=per_chunk,
    )
    with _scratch(output, scratch) as folder:
        write_training_set(output, content, folder)


@contextmanager
def _scratch(output: Path, place: Path | None) -> Iterator[Path]:
    """A folder on the output's disk that is gone afterwards."""
    folder = place or output.resolve().parent / f".{output.stem[:80]}.{uuid.uuid4().hex[:12]}"
    try:
        with written(output):
            folder.mkdir(exist_ok=place is not None)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- reading ------------------------------------------------------------------------------------------------------------------


def is_stored_grid(path: Path) -> bool:
    """Whether it looks like what :func:`write_grid` writes, or another zarr store or archive."""
    return (path / "zarr.json").is_file() or (path.is_file() and zipfile.is_zipfile(path))


def read_grid(path: Path) -> Grid:
    """Open a grid; flux is read when it is wanted.

    Raises
    ------
    ReadError
        If it is no grid that :func:`write_grid` wrote, damaged, of a newer format, or zarr is needed and not installed.
    """
    small, flux = _open(path)
    try:
        provenance = json.loads(str(small["provenance"]))
        resolution = provenance.pop("resolution", {})
        units = [str(unit) for unit in small["label_units"]]
        return Grid(
            name=path.name,
            labels=tuple(make_label(str(name), unit) for name, unit in zip(small["label_names"], units, strict=True)),
            values=np.asarray(small["labels"], dtype=np.float64),
            wavelength=np.asarray(small["wavelength"], dtype=np.float64),
            medium=cast(Medium, str(small["medium"])),  # Grid refuses others
            rows=flux,
            flux_unit=str(small["flux_unit"]),
            resolving_power=resolution.get("resolving_power"),
            fwhm=resolution.get("fwhm"),
            provenance=provenance,
        )
    except UsageError as failure:  # says itself what is wrong, and mostly of which grid
        text = str(failure)
        raise ReadError(text if text.startswith(path.name) else f"{path.name}: {text}") from None
    except (KeyError, ValueError, TypeError, AttributeError) as failure:
        raise ReadError(f"{path.name}: expected a whole grid, got a damaged one ({one_line(failure)}); make it again") from None


def read_provenance(path: Path) -> dict[str, Any]:
    """Where a grid comes from, without looking at its spectra.

    Raises
    ------
    ReadError
        See :func:`read_grid`.
    """
    return dict(read_grid(path).provenance)


def _check_format(path: Path, small: dict[str, Any]) -> None:
    found = str(small.get("format", ""))
    if not found.startswith(_FAMILY):
        raise ReadError(
            f"{path.name}: expected a grid that maury wrote, got another kind of file; describe it in a TOML file (see "
            "maury.grids.GridDescription)"
        )
    if found != FORMAT:
        raise ReadError(f"{path.name}: expected the format {FORMAT!r}, got {found!r}; update maury")


def _open(path: Path) -> tuple[dict[str, Any], FluxRows]:
    """Everything but the flux by name, and the flux where it lies."""
    try:
        return _open_zarr(path) if path.is_dir() else _open_npz(path)
    except _DAMAGE as failure:
        raise ReadError(
            f"{path.name}: expected a grid as .zarr or .npz, got: {one_line(failure)[:200]}; check the path, or make it again"
        ) from None


def _open_npz(path: Path) -> tuple[dict[str, Any], FluxRows]:
    with np.load(path, allow_pickle=False) as archive:
        small = {name: archive[name] for name in archive.files if name != "flux"}
    _check_format(path, small)
    return small, ArrayRows(_mapped(path, "flux.npy"))


def _mapped(path: Path, entry: str) -> NDArray[Any]:
    """An uncompressed entry of an archive as a memory map: numpy itself would read it whole.

    Raises
    ------
    ValueError
        If it is compressed, or the file ends before it does.
    """
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(entry)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"a compressed {entry}")
        with archive.open(entry) as handle:
            version = np.lib.format.read_magic(handle)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read_header(handle)
            within = handle.tell()
    if fortran or dtype.kind not in _NUMBERS or len(shape) != 2:
        raise ValueError(f"{entry} of shape {shape} and type {dtype}")
    with open(path, "rb") as raw:  # the local header's name and extra field have their own lengths (APPNOTE 4.3.7)
        raw.seek(info.header_offset + 26)
        lengths = np.frombuffer(raw.read(4), dtype="<u2")
    offset = info.header_offset + 30 + int(lengths.sum()) + within
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


def _open_zarr(path: Path) -> tuple[dict[str, Any], FluxRows]:
    try:
        import zarr
    except ImportError:
        raise ReadError(f"{path.name}: expected zarr to be installed for it, got none; run pip install 'maury[grids]'") from None
    group = zarr.open_group(path, mode="r")
    small: dict[str, Any] = dict(group.attrs.asdict())
    _check_format(path, small)
    small |= {name: np.asarray(group[name][...]) for name in ("wavelength", "labels")}
    flux = group["flux"]
    if not isinstance(flux, zarr.Array) or flux.ndim != 2 or np.dtype(str(flux.dtype)).kind not in _NUMBERS:
        raise ValueError(f"flux that is no table of numbers: {flux}")
    return small, ZarrRows(path, flux)


@dataclass(frozen=True, eq=False)
class ZarrRows:
    """Flux in a zarr array that is cut into chunks of whole spectra.

    Parameters
    ----------
    path : of the store, for errors and its size.
    array : the zarr array (n, n_pixels).
    """

    path: Path
    array: Any

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.array.shape[0]), int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(str(self.array.dtype))

    @cached_property
    def n_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def read(self, rows: IntArray, pixels: slice) -> NDArray[Any]:
        """Chunk by chunk, each opened once.

        Raises
        ------
        ReadError
            If a chunk is damaged or missing.
        """
        start, stop, _ = pixels.indices(self.shape[1])
        out = np.empty((len(rows), max(stop - start, 0)), dtype=self.dtype)
        height = int(self.array.chunks[0])
        for number in np.unique(rows // height):
            mine = np.flatnonzero(rows // height == number)
            first = int(number) * height
            try:
                block = np.asarray(self.array[first : first + height, start:stop])
                if block.size and not np.nan_to_num(block).any() and not self._has_chunk(int(number)):
                    raise ValueError("its file is missing")  # zarr itself would give the fill value, NaN or 0
            except _DAMAGE as failure:
                raise ReadError(
                    f"{self.path.name}: expected whole spectra from {first} on, got a damaged chunk ({one_line(failure)[:120]}); "
                    "make the grid again"
                ) from None
            out[mine] = block[rows[mine] - first]
        return out[:, :: pixels.step or 1]

    def _has_chunk(self, number: int) -> bool:
        return (self.path / "flux" / "c" / str(number) / "0").is_file()
