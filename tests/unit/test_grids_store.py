"""`maury.grids.store`: what is written comes back, lazily, whole or not at all."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maury.errors import MauryError, ReadError, UsageError
from maury.grids import ArrayRows, Grid, open_grid, write_grid
from maury.grids import store as store_module
from maury.grids.store import ZarrRows, read_provenance
from maury.labels import KNOWN_LABELS
from maury.read.library import read_library

FLUX = np.random.default_rng(5).uniform(0.2, 1.0, (12, 50)).astype(np.float32)
ENDINGS = [".zarr", ".npz"]


def make_grid(rows: Any = None, **changes: Any) -> Grid:
    values = np.array([[teff, logg] for teff in np.arange(4000.0, 4600, 100) for logg in (4.5, 5.0)])
    settings: dict[str, Any] = {
        "labels": (KNOWN_LABELS["teff"], KNOWN_LABELS["logg"]),
        "wavelength": np.linspace(8800.0, 8810.0, 50),
        "medium": "vacuum",
        "flux_unit": "erg/s/cm^2/cm",
        "resolving_power": 500_000.0,
        "provenance": {"library": "made up", "holes": {"b": "not there", "a": "damaged"}},
    }
    return Grid("g", values=values, rows=rows or ArrayRows(FLUX), **(settings | changes))


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize("ending", ENDINGS)
class TestBoth:
    def test_everything_comes_back(self, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "_CHUNK_BYTES", 5 * 4 * 50)  # five spectra: chunks of 5, 5, 2
        grid = make_grid()
        write_grid(tmp_path / f"g{ending}", grid)
        found = open_grid(tmp_path / f"g{ending}")
        assert found.fingerprint == grid.fingerprint
        assert (found.names, found.medium, found.flux_unit) == (grid.names, grid.medium, grid.flux_unit)
        assert (found.resolving_power, found.fwhm, dict(found.provenance)) == (500_000, None, grid.provenance)
        assert np.array_equal(found.flux([11, 0, 5, 4], slice(3, 9)), FLUX[[11, 0, 5, 4], 3:9])
        assert np.array_equal(found.flux(slice(None, None, 5), slice(None, None, 7)), FLUX[::5, ::7])
        assert read_provenance(tmp_path / f"g{ending}") == grid.provenance
        assert [path.name for path in tmp_path.iterdir()] == [f"g{ending}"]

    def test_equal_grids_have_equal_bytes_and_replace_others(self, tmp_path: Path, ending: str) -> None:
        one, two = tmp_path / f"one{ending}", tmp_path / f"two{ending}"
        write_grid(one, make_grid())
        write_grid(two, make_grid(ArrayRows(FLUX[::-1])))
        assert contents(one) != contents(two)
        write_grid(two, make_grid())
        assert contents(one) == contents(two)

    def test_what_cannot_be_read_leaves_the_old_grid_and_nothing_else(self, tmp_path: Path, ending: str) -> None:
        output = tmp_path / f"g{ending}"
        write_grid(output, make_grid())
        before = contents(output)
        with pytest.raises(ReadError, match="row 8"):
            write_grid(output, make_grid(FailingRows(FLUX)))
        assert contents(output) == before
        assert [path.name for path in tmp_path.iterdir()] == [output.name]

    def test_it_is_a_library_for_training_too(self, tmp_path: Path, ending: str) -> None:
        output = tmp_path / f"g{ending}"
        write_grid(output, make_grid())
        names = {"wavelength": "wavelength", "flux": "flux", "labels": "labels", "label_names": "label_names"}
        library = read_library(output, wavelength_unit="Angstrom", medium="vacuum", snr=100.0, resolving_power=5e5, **names)
        assert np.array_equal(library.spectra.flux, FLUX)
        assert library.labels.colnames == ["teff", "logg"]

    def test_a_folder_that_is_not_there(self, tmp_path: Path, ending: str) -> None:
        with pytest.raises(UsageError, match=r"expected an existing folder for .*got none; make the folder first"):
            write_grid(tmp_path / "none" / f"g{ending}", make_grid())


@dataclass(frozen=True, eq=False)
class FailingRows(ArrayRows):
    """The eighth spectrum cannot be read."""

    def read(self, rows: np.ndarray, pixels: slice) -> np.ndarray:
        raise ReadError("row 8: expected a whole file, got a truncated one; fetch it again")


class TestZarr:
    @pytest.fixture
    def path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(store_module, "_CHUNK_BYTES", 4 * 4 * 50)  # four spectra in a chunk
        write_grid(tmp_path / "g.zarr", make_grid())
        return tmp_path / "g.zarr"

    def test_only_the_chunks_of_the_rows_are_opened(self, path: Path) -> None:
        """Chunk 1 (spectra 4 to 7) is destroyed: the others still read."""
        (path / "flux" / "c" / "1" / "0").write_bytes(b"nonsense")
        grid = open_grid(path)
        assert np.array_equal(grid.flux([0, 3, 8, 11]), FLUX[[0, 3, 8, 11]])
        with pytest.raises(
            ReadError, match=r"g\.zarr: expected whole spectra from 4 on, got a damaged chunk .*make the grid again"
        ):
            grid.flux([5])

    def test_a_chunk_that_is_missing_is_not_taken_for_zeros(self, path: Path) -> None:
        """zarr itself gives its fill value, 0, for a chunk without a file."""
        (path / "flux" / "c" / "1" / "0").unlink()
        grid = open_grid(path)
        assert np.array_equal(grid.flux([3, 8]), FLUX[[3, 8]])
        with pytest.raises(
            ReadError, match=r"g\.zarr: expected whole spectra from 4 on, got a damaged chunk \(its file is missing\)"
        ):
            grid.flux([5])

    def test_zero_pixels_of_a_whole_chunk_are_flux(self, tmp_path: Path) -> None:
        flux = np.where(np.arange(50) < 10, 0.0, FLUX)
        write_grid(tmp_path / "z.zarr", make_grid(ArrayRows(flux)))
        assert not open_grid(tmp_path / "z.zarr").flux(pixels=slice(0, 10)).any()

    @pytest.mark.parametrize("name", ["labels/c/0/0", "wavelength/c/0"])
    @pytest.mark.parametrize("content", [b"nonsense", None])
    def test_damaged_labels_or_wavelengths(self, path: Path, name: str, content: bytes | None) -> None:
        (path / name).unlink()
        if content is not None:
            (path / name).write_bytes(content)
        with pytest.raises(ReadError, match=r"g\.zarr: expected .*got"):
            open_grid(path)

    def test_each_chunk_is_opened_once(self, path: Path) -> None:
        grid = open_grid(path)
        assert isinstance(grid.rows, ZarrRows)
        array = CountingArray(grid.rows.array)
        rows = ZarrRows(path, array).read(np.array([9, 1, 8, 0, 11, 2]), slice(None))
        assert np.array_equal(rows, FLUX[[9, 1, 8, 0, 11, 2]])
        assert array.starts == [0, 8]

    def test_without_zarr_one_sentence(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "zarr", None)
        sentence = r"expected zarr to be installed for .*, got none; run pip install 'maury\[grids\]'"
        with pytest.raises(ReadError, match=sentence):
            open_grid(path)
        with pytest.raises(UsageError, match=sentence):
            write_grid(path.with_name("h.zarr"), make_grid())


class CountingArray:
    """A zarr array that notes where it is read."""

    def __init__(self, array: Any) -> None:
        self._array, self.starts = array, []  # type: Any, list[int]
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        self.starts.append(key[0].start)
        return self._array[key]


class TestArchive:
    def test_the_flux_is_mapped_not_read(self, tmp_path: Path) -> None:
        write_grid(tmp_path / "g.npz", make_grid())
        rows = open_grid(tmp_path / "g.npz").rows
        assert isinstance(rows, ArrayRows)
        assert isinstance(rows.array, np.memmap)
        assert not rows.array.flags.writeable

    def test_other_archives_are_to_be_described(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "other.npz", flux=FLUX)
        with pytest.raises(
            ReadError, match=r"other\.npz: expected a grid that maury wrote, got another kind of file; describe it"
        ):
            open_grid(tmp_path / "other.npz")

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"medium": "water"}, r"expected medium 'vacuum' or 'air', got 'water'"),
            ({"flux": np.ones((12, 50), dtype="U3")}, r"expected a grid as .*flux\.npy of shape \(12, 50\) and type <U3"),
            ({"flux": np.ones(12)}, r"expected a grid as .*flux\.npy of shape \(12,\)"),
            ({"label_units": ["m", "dex"]}, r"expected label 'teff' in K, got 'm'"),
            ({"provenance": '{"resolution": 3}'}, r"expected a whole grid, got a damaged one"),
            ({"provenance": '{"resolution": {"fwhm": "wide"}}'}, r"expected fwhm as a positive number, got 'wide'"),
        ],
    )
    def test_contents_that_cannot_be_right(self, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
        write_grid(tmp_path / "g.npz", make_grid())
        with np.load(tmp_path / "g.npz") as archive:
            np.savez(tmp_path / "h.npz", **(dict(archive) | change))
        with pytest.raises(ReadError, match=rf"^h\.npz: {sentence}") as failure:
            open_grid(tmp_path / "h.npz")
        assert str(failure.value).count("expected") == 1

    def test_bits_that_are_lost_in_a_compressed_entry(self, tmp_path: Path) -> None:
        write_grid(tmp_path / "g.npz", make_grid())
        with np.load(tmp_path / "g.npz") as archive:
            np.savez_compressed(tmp_path / "h.npz", **archive)
        content = bytearray((tmp_path / "h.npz").read_bytes())
        with zipfile.ZipFile(tmp_path / "h.npz") as archive:
            start = archive.getinfo("labels.npy").header_offset + 60
        content[start : start + 15] = bytes(255 - byte for byte in content[start : start + 15])
        (tmp_path / "h.npz").write_bytes(content)
        with pytest.raises(ReadError, match=r"h\.npz: expected a grid as \.zarr or \.npz, got: "):
            open_grid(tmp_path / "h.npz")

    def test_a_newer_format(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "FORMAT", "maury grid 2")
        write_grid(tmp_path / "g.npz", make_grid())
        monkeypatch.undo()
        with pytest.raises(ReadError, match=r"expected the format 'maury grid 1', got 'maury grid 2'; update maury"):
            open_grid(tmp_path / "g.npz")


def truncations(tmp_path: Path) -> Iterator[Path]:
    """An archive cut at many places, and a store without each of its files."""
    write_grid(tmp_path / "whole.npz", make_grid())
    content = (tmp_path / "whole.npz").read_bytes()
    for number, length in enumerate(np.linspace(1, len(content) - 1, 15).astype(int)):
        path = tmp_path / f"cut{number}.npz"
        path.write_bytes(content[:length])
        yield path
    for name in ("zarr.json", "labels/zarr.json", "wavelength/zarr.json", "flux/zarr.json"):
        path = tmp_path / f"without-{name.replace('/', '-')}.zarr"
        write_grid(path, make_grid())
        (path / name).unlink()
        yield path


def test_damaged_grids_are_one_sentence_each(tmp_path: Path) -> None:
    paths = list(truncations(tmp_path))
    assert len(paths) == 19
    for path in paths:
        with pytest.raises(MauryError, match=r"expected a .*got") as failure:
            open_grid(path).flux()
        assert "\n" not in str(failure.value)
        assert path.name in str(failure.value)
