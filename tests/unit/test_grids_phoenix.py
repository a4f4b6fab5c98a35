"""`maury.grids.phoenix`: names, files and folders of PHOENIX-ACES HiRes, and the damage that downloads do to them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from phoenix_files import lattice_nodes, phoenix_flux, phoenix_wavelength, write_phoenix, write_spectrum, write_wave

from maury.errors import MauryError, ReadError
from maury.grids import open_grid
from maury.grids.phoenix import (
    WAVE_PATH,
    PhoenixNode,
    open_phoenix,
    parse_phoenix_name,
    phoenix_folder,
    phoenix_name,
    read_flux,
    read_wavelength,
)

NODES = lattice_nodes((4000, 4100), (4.5, 5.0), (-0.5, 0.0), (0.0, 0.2))
WAVELENGTH = phoenix_wavelength(8800.0, 8804.0, 0.02)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phoenix(tmp_path_factory.mktemp("archive"), NODES, WAVELENGTH)


@pytest.fixture
def copy(archive: Path, tmp_path: Path) -> Path:
    """An archive that a test may damage."""
    shutil.copytree(archive, tmp_path / "copy")
    return tmp_path / "copy"


class TestNames:
    @pytest.mark.parametrize(
        ("labels", "name", "folder"),
        [  # as in the public archive's listing (Husser et al. 2013)
            ((4000, 4.5, 0.0, 0.0), "lte04000-4.50-0.0", "Z-0.0"),
            ((12000, 6.0, 1.0, 0.0), "lte12000-6.00+1.0", "Z+1.0"),
            ((2300, 0.0, -0.5, 0.0), "lte02300-0.00-0.5", "Z-0.5"),
            ((5000, 4.5, 0.5, 0.2), "lte05000-4.50+0.5.Alpha=+0.20", "Z+0.5.Alpha=+0.20"),
            ((5000, 4.5, 0.0, -0.2), "lte05000-4.50-0.0.Alpha=-0.20", "Z-0.0.Alpha=-0.20"),
        ],
    )
    def test_as_in_the_archive_and_back(self, labels: tuple[float, ...], name: str, folder: str) -> None:
        whole = f"{name}.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits"
        assert phoenix_name(*labels) == whole
        assert phoenix_folder(*labels[2:]) == folder
        assert parse_phoenix_name(whole) == labels
        assert str(parse_phoenix_name(whole)).count("-0.0") == str(labels).count("-0.0")  # no negative zero
        assert PhoenixNode(*labels).path == f"HiResFITS/PHOENIX-ACES-AGSS-COND-2011/{folder}/{whole}"

    def test_labels_that_rounding_has_touched_keep_their_names(self) -> None:
        assert phoenix_name(4000.0, 4.5, 0.1 + 0.2 - 0.3, 3 * 0.2 - 0.6) == phoenix_name(4000, 4.5, 0, 0)

    @pytest.mark.parametrize("name", ["lte04000-4.50-0.0.fits", "lte4000-4.50-0.0.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits", ""])
    def test_other_names_are_refused(self, name: str) -> None:
        with pytest.raises(ReadError, match=r"expected a name like lte04000-4\.50-0\.0\.PHOENIX"):
            parse_phoenix_name(name)


class TestFolder:
    def test_a_folder_is_a_grid_with_the_bits_of_its_files(self, archive: Path) -> None:
        grid = open_grid(archive)
        assert grid.names == ("teff", "logg", "m_h", "alpha_m")
        assert (grid.medium, grid.flux_unit, grid.resolving_power) == ("vacuum", "erg/s/cm^2/cm", 500_000)
        assert grid.wavelength.tobytes() == WAVELENGTH.tobytes()
        nodes = [PhoenixNode(*values) for values in grid.values.tolist()]
        assert nodes == sorted(NODES)
        assert grid.flux().tobytes() == phoenix_flux(WAVELENGTH, nodes).tobytes()
        assert len(grid.lattice.holes) == 0

    def test_a_crop_reads_the_pixels_between_its_ends(self, archive: Path) -> None:
        grid = open_phoenix(archive).crop(8801.0, 8802.0)
        assert grid.n_pixels == 51
        kept = (WAVELENGTH >= 8801) & (WAVELENGTH <= 8802)
        assert np.array_equal(grid.flux([3])[0], phoenix_flux(WAVELENGTH, [PhoenixNode(*grid.values[3])])[0, kept])

    def test_the_wave_file_is_found_above_one_composition(self, archive: Path) -> None:
        grid = open_phoenix(archive / "HiResFITS" / "PHOENIX-ACES-AGSS-COND-2011" / "Z-0.5")
        assert grid.n_spectra == 4
        assert np.unique(grid.values[:, 2]).tolist() == [-0.5]

    def test_a_missing_file_is_a_hole(self, copy: Path) -> None:
        (copy / NODES[5].path).unlink()
        lattice = open_phoenix(copy).lattice
        assert lattice.holes.tolist() == [[4000.0, 5.0, -0.5, 0.2]]


def read(folder: Path, node: PhoenixNode | None) -> None:
    """Open a folder, and read one node or all."""
    grid = open_grid(folder)
    grid.flux([row for row, values in enumerate(grid.values) if node is None or node == PhoenixNode(*values)])


class TestDamage:
    """Every sentence names the file, and is one line."""

    def check(self, folder: Path, sentence: str, node: PhoenixNode | None = None) -> None:
        with pytest.raises(MauryError, match=sentence) as failure:
            read(folder, node)
        assert "\n" not in str(failure.value)
        if node is not None:
            assert Path(node.path).name in str(failure.value)

    def replaced(self, folder: Path, node: PhoenixNode, flux: np.ndarray, **options: str) -> None:
        (folder / node.path).unlink()
        write_spectrum(folder / node.path, node, flux, **options)

    def test_a_truncated_file(self, copy: Path) -> None:
        path = copy / NODES[0].path
        path.write_bytes(path.read_bytes()[:3000])
        self.check(copy, r"HiRes\.fits: expected 804 bytes in .* are missing: the file is truncated; fetch it again", NODES[0])

    def test_an_empty_file(self, copy: Path) -> None:
        (copy / NODES[0].path).write_bytes(b"")
        self.check(copy, r"HiRes\.fits: expected .* got .*", NODES[0])

    def test_a_web_page_instead_of_a_spectrum(self, copy: Path) -> None:
        (copy / NODES[0].path).write_text("<html><body>404 not found</body></html>\n")
        self.check(copy, r"HiRes\.fits: expected a FITS file", NODES[0])

    def test_flux_in_another_unit(self, copy: Path) -> None:
        self.replaced(copy, NODES[0], np.ones(WAVELENGTH.size), unit="erg/s/cm^2/A")
        self.check(copy, r"expected flux in erg/s/cm\^2/cm, got 'erg/s/cm\^2/A' in its header", NODES[0])

    def test_wavelengths_in_another_unit(self, copy: Path) -> None:
        (copy / WAVE_PATH).unlink()
        write_wave(copy / WAVE_PATH, WAVELENGTH / 10, unit="nm")
        self.check(copy, r"WAVE_.*: expected wavelengths in Angstrom, got 'nm' in its header; fetch PHOENIX's WAVE file")

    def test_a_wave_file_of_another_length(self, copy: Path) -> None:
        (copy / WAVE_PATH).unlink()
        write_wave(copy / WAVE_PATH, WAVELENGTH[:-1])
        self.check(copy, r"expected 200 pixels, as many as the WAVE file has, got shape \(201,\); fetch spectra and", NODES[0])

    def test_wavelengths_that_go_back(self, copy: Path) -> None:
        (copy / WAVE_PATH).unlink()
        write_wave(copy / WAVE_PATH, np.where(np.arange(201) == 100, 8800.0, WAVELENGTH))
        self.check(copy, r"WAVE_.*: expected wavelengths that only increase")

    def test_no_wave_file(self, copy: Path) -> None:
        (copy / WAVE_PATH).unlink()
        self.check(copy, r"expected WAVE_PHOENIX-ACES-AGSS-COND-2011\.fits beside the spectra or in a folder above, got none")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_flux_that_is_no_number(self, copy: Path, value: float) -> None:
        self.replaced(copy, NODES[0], np.where(np.arange(201) == 7, value, 1e15))
        self.check(
            copy, r"expected finite flux, got 1 pixels of NaN or infinity; fetch it again, or delete it for a hole", NODES[0]
        )

    def test_a_file_that_is_too_short_is_found_when_the_folder_is_opened(self, copy: Path) -> None:
        """Whichever it is, by its size alone: `maury grid info` reads no spectra but the first."""
        path = copy / NODES[-1].path
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(ReadError, match=r"lte04100-5\.00-0\.0\.Alpha.*: expected 804 bytes .*the file is truncated"):
            open_phoenix(copy)

    def test_the_same_node_twice(self, copy: Path) -> None:
        (copy / "more").mkdir()
        shutil.copy(copy / NODES[0].path, copy / "more")
        name = Path(NODES[0].path).name
        self.check(copy, rf"copy: expected each node once, got .*/Z-0\.5/{name} and .*/more/{name}; remove one of the two")

    def test_a_renamed_file(self, copy: Path) -> None:
        shutil.copy(copy / NODES[-1].path, copy / NODES[0].path)
        self.check(copy, r"expected PHXTEFF = 4000 as in its name, got 4100 \(teff\); rename it", NODES[0])

    def test_a_folder_with_nothing_in_it(self, tmp_path: Path) -> None:
        self.check(
            tmp_path, r"expected PHOENIX files like lte04000-4\.50-0\.0\.PHOENIX.* there or below, got none; check the path"
        )

    def test_nothing_there(self, tmp_path: Path) -> None:
        self.check(tmp_path / "absent", r"expected a grid \(.*\), found nothing; check it")


def test_a_file_without_units_is_taken_for_what_the_library_is(tmp_path: Path) -> None:
    """The unit is documented for the whole library; only a header that says another is refused."""
    from astropy.io import fits

    fits.PrimaryHDU(WAVELENGTH).writeto(tmp_path / "wave.fits")
    fits.PrimaryHDU(np.ones(201, np.float32)).writeto(tmp_path / "flux.fits")
    assert np.array_equal(read_wavelength(tmp_path / "wave.fits"), WAVELENGTH)
    assert read_flux(tmp_path / "flux.fits", 201).sum() == 201
