"""Training sets on disk: labels, spectra and where they come from, as a zarr store (version 3) or a numpy archive.

Both hold the same names, in the form that a recipe of ``maury train`` reads as a library:

* ``wavelength`` (n_pixels,) Å; ``flux`` (n, n_pixels) float32; ``ivar`` likewise, where noise was added or any pixel is lost
  (spectra without noise count as of S/N 1000);
* ``labels`` (n, K) with ``label_names`` and ``label_units``; per spectrum ``row`` (its number among the samples), ``flag``,
  ``snr`` and ``delta_rv`` (NaN where nothing was drawn); of a sample of the grid's nodes also ``base``, the number of the grid's
  spectrum that each was made from: what a training recipe names as ``star_column``, so that folds never split the draws of one;
* ``left_out_labels``, ``left_out_flag``, ``left_out_reason``: the samples that could not be made;
* ``medium`` and ``provenance`` (JSON). In a zarr store texts are attributes.

Nothing of time, place or machine is written: the same recipe, grid and versions give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.files import replacing, written

_MARK = "left_out_labels"  # an array that nothing but a training set has

Blocks = Iterator[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class LargeArray:
    """An array that is written block by block.

    Parameters
    ----------
    shape, dtype : of the whole.
    blocks : gives consecutive rows, from the first to the last, each time it is called.
    """

    shape: tuple[int, int]
    dtype: str
    blocks: Callable[[], Blocks]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What is written.

    Parameters
    ----------
    large : the arrays with one row per spectrum and one column per pixel.
    small : all other arrays.
    texts : words and lists of words.
    rows_per_block : rows of one stored chunk.
    """

    large: Mapping[str, LargeArray]
    small: Mapping[str, NDArray[Any]]
    texts: Mapping[str, str | list[str]]
    rows_per_block: int


def check_output(output: Path) -> None:
    """Raise UsageError unless ``output`` is the name of a zarr store or numpy archive that may be written.

    An existing training set is replaced; a folder that is none is not.
    """
    if output.suffix not in (".zarr", ".npz"):
        raise UsageError(f"expected an output ending in .zarr or .npz, got {output.name}; choose one of the two")
    if not output.resolve().parent.is_dir():
        raise UsageError(f"expected an existing folder for {output}, got none; make the folder first")
    if output.suffix == ".zarr":
        _zarr()
    if output.is_dir() and not (output.suffix == ".zarr" and (output / "zarr.json").is_file()):
        raise UsageError(f"expected a new name, or a zarr store to replace, got the folder {output}; choose another name")


def check_replaceable(output: Path) -> None:
    """Raise UsageError if something is there that is no training set: above all the grid that one is made from."""
    if not os.path.lexists(output):
        return
    if output.is_dir():
        known = (output / _MARK / "zarr.json").is_file()
    else:
        known = output.suffix == ".npz" and zipfile.is_zipfile(output) and f"{_MARK}.npy" in zipfile.ZipFile(output).namelist()
    if not known:
        raise UsageError(f"expected a new name, or a training set to replace, got {output}, which is none; choose another name")


def write_training_set(output: Path, content: TrainingSet, scratch: Path) -> None:
    """Write a training set so that it is whole or absent.

    Parameters
    ----------
    output : ends in ``.zarr`` or ``.npz``.
    scratch : a folder on the same disk, where a zarr store is put together before it is moved.

    Raises
    ------
    UsageError
        If it cannot be written, or zarr is not installed.
    """
    if output.suffix == ".zarr":
        with written(output):
            _write_zarr(output, content, scratch)
        return
    with replacing(output, UsageError) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        _write_npz(archive, content)


# -- numpy archives -------------------------------------------------------------------------------------------------------------


def _write_npz(archive: zipfile.ZipFile, content: TrainingSet) -> None:
    small = {**content.small, **{name: np.array(text) for name, text in content.texts.items()}}
    for name, array in small.items():
        with _entry(archive, name) as handle:
            np.lib.format.write_array(handle, np.asarray(array, order="C"), allow_pickle=False)
    for name, large in content.large.items():
        with _entry(archive, name) as handle:
            header = {"descr": np.dtype(large.dtype).str, "fortran_order": False, "shape": large.shape}
            np.lib.format.write_array_header_2_0(handle, header)
            for block in large.blocks():
                handle.write(np.ascontiguousarray(block, dtype=large.dtype).tobytes())


def _entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """An uncompressed entry without a date, of any size."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), "w", force_zip64=True)


# -- zarr stores ----------------------------------------------------------------------------------------------------------------


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise UsageError("expected zarr to be installed for .zarr files, got none; run pip install 'maury[grids]'") from None
    return zarr


def _write_zarr(output: Path, content: TrainingSet, scratch: Path) -> None:
    zarr = _zarr()
    made, replaced = scratch / "made.zarr", scratch / "replaced.zarr"
    for folder in (made, replaced):
        shutil.rmtree(folder, ignore_errors=True)
    group = zarr.create_group(made, zarr_format=3, attributes=dict(content.texts))
    for name, array in content.small.items():
        group.create_array(name, data=np.ascontiguousarray(array), chunks=tuple(max(n, 1) for n in array.shape))
    # bytes of float32 sorted by significance: smooth spectra shrink by a third, and it costs less than the disk
    squeeze = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    for name, large in content.large.items():
        chunks = (min(content.rows_per_block, max(large.shape[0], 1)), large.shape[1])
        # a chunk that got lost reads as NaN, not as numbers
        array = group.create_array(
            name, shape=large.shape, dtype=large.dtype, chunks=chunks, compressors=squeeze, fill_value=np.nan
        )
        start = 0
        for block in regrouped(large.blocks(), chunks[0]):
            array[start : start + len(block)] = block
            start += len(block)
    if output.exists():
        os.replace(output, replaced)
    os.replace(made, output)


def regrouped(blocks: Blocks, rows: int) -> Blocks:
    """The same rows in blocks of ``rows`` (the last may be shorter): whole chunks of a store are written once."""
    waiting: list[NDArray[Any]] = []
    for block in blocks:
        waiting.append(block)
        while sum(map(len, waiting)) >= rows:
            joined = np.concatenate(waiting)
            yield joined[:rows]
            waiting = [joined[rows:]]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)
