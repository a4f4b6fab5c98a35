"""`maury.grids.grid`: what a grid refuses, its lattice and holes; and describing any file as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maury.errors import MauryError, ReadError, RecipeError, UsageError
from maury.grids import ArrayRows, Grid, GridDescription, open_described, open_grid
from maury.grids.describe import describe_grid
from maury.labels import KNOWN_LABELS

LABELS = tuple(KNOWN_LABELS[name] for name in ("teff", "logg"))
VALUES = np.array([[teff, logg] for teff in (4000.0, 4100.0, 4200.0) for logg in (4.5, 5.0)])
WAVELENGTH = np.arange(5000.0, 5004.0)


def make_grid(values: np.ndarray = VALUES, **changes: Any) -> Grid:
    flux = np.arange(values.shape[0] * 4.0).reshape(-1, 4)
    settings = {"wavelength": WAVELENGTH, "medium": "air", "rows": ArrayRows(flux)} | changes
    return Grid(name="test", labels=LABELS, values=values, **settings)


class TestGrid:
    def test_rows_and_pixels_are_those_asked_for(self) -> None:
        grid = make_grid()
        assert grid.flux([4, 0], slice(1, 3)).tolist() == [[17.0, 18.0], [1.0, 2.0]]
        assert grid.flux().shape == (6, 4)

    def test_a_crop_keeps_both_ends_and_reads_the_same_pixels(self) -> None:
        grid = make_grid().crop(5001.0, 5002.0)
        assert grid.wavelength.tolist() == [5001.0, 5002.0]
        assert grid.flux([1]).tolist() == [[5.0, 6.0]]
        assert grid.flux([1], slice(1, None)).tolist() == [[6.0]]
        with pytest.raises(UsageError, match=r"expected a range within 5001 to 5002 Å, got 6000 to 6001; change it"):
            grid.crop(6000, 6001)

    def test_flux_that_is_no_number_is_never_handed_on(self) -> None:
        """Else every spectrum interpolated from that node would be NaN without a flag."""
        flux = np.ones((6, 4))
        flux[3, 2] = np.nan
        grid = make_grid(rows=ArrayRows(flux))
        assert grid.flux([0, 4]).all()
        with pytest.raises(
            ReadError, match=r"test: expected finite flux, got NaN or infinity at teff=4100 logg=5 \(spectrum 3\)"
        ):
            grid.flux([4, 3])

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"fwhm": -1.0}, r"expected fwhm as a positive number, got -1\.0"),
            ({"resolving_power": np.inf}, r"expected resolving_power as a positive number, got inf"),
            ({"resolving_power": 5e4, "fwhm": 0.1}, r"expected resolving_power or fwhm, got both"),
        ],
    )
    def test_resolutions_that_cannot_be(self, change: dict[str, Any], sentence: str) -> None:
        with pytest.raises(UsageError, match=sentence):
            make_grid(**change)

    def test_the_callers_arrays_stay_writable_and_the_grids_do_not_change(self) -> None:
        values = VALUES.copy()
        grid = make_grid(values)
        values[0, 0] = 1.0  # the caller's own
        with pytest.raises(ValueError, match="read-only"):
            grid.values[0, 0] = 2.0

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"values": VALUES[:, :1]}, r"expected labels of shape \(6, 2\), .*got \(6, 1\)"),
            ({"wavelength": WAVELENGTH[:3]}, r"expected 4 increasing wavelengths, .*got shape \(3,\)"),
            ({"wavelength": WAVELENGTH[::-1]}, r"expected 4 increasing wavelengths"),
            ({"medium": "water"}, r"expected medium 'vacuum' or 'air', got 'water'"),
            ({"values": np.where(VALUES == 4100, np.nan, VALUES)}, r"expected finite labels, got NaN or infinity for spectrum 2"),
            ({"values": VALUES[[0, 1, 2, 3, 1, 5]]}, r"each node once, got teff=4000 logg=5 for spectra 1 and 4; remove one"),
        ],
    )
    def test_what_cannot_be_a_grid(self, change: dict[str, Any], sentence: str) -> None:
        values = change.pop("values", VALUES)
        with pytest.raises(UsageError, match=sentence):
            make_grid(values, rows=ArrayRows(np.ones((6, 4))), **change)

    def test_the_fingerprint_tells_flux_and_wavelengths_apart(self) -> None:
        prints = {make_grid().fingerprint, make_grid(wavelength=WAVELENGTH + 1).fingerprint}
        prints.add(make_grid(rows=ArrayRows(np.zeros((6, 4)))).fingerprint)
        assert len(prints) == 3
        assert make_grid().fingerprint in prints


class TestLattice:
    def test_axes_and_named_holes(self) -> None:
        lattice = make_grid(VALUES[[0, 1, 2, 4, 5]]).lattice
        assert [axis.tolist() for axis in lattice.axes] == [[4000.0, 4100.0, 4200.0], [4.5, 5.0]]
        assert lattice.holes.tolist() == [[4100.0, 5.0]]
        assert lattice.rows.tolist() == [[0, 1], [2, -1], [3, 4]]

    def test_order_of_the_spectra_does_not_matter(self) -> None:
        order = np.array([3, 0, 5, 1, 4, 2])
        lattice = make_grid(VALUES[order]).lattice
        assert np.array_equal(order[lattice.rows.ravel()], np.arange(6))

    def test_labels_in_single_precision_have_their_decimals_back(self) -> None:
        """4.2 is 4.19999981 in single precision; a user asks for 4.2."""
        values = np.array([[4000.0, logg] for logg in np.float32([4.1, 4.2, 4.3])])
        assert make_grid(values).lattice.axes[1].tolist() == [4.1, 4.2, 4.3]

    def test_values_that_only_rounding_keeps_apart_are_one(self) -> None:
        values = VALUES.copy()
        values[1, 0] += 1e-9
        assert make_grid(values).lattice.shape == (3, 2)

    def test_nodes_that_only_rounding_keeps_apart_are_the_same_node(self) -> None:
        values = VALUES.copy()
        values[1] = values[0] + [1e-9, 0]
        with pytest.raises(UsageError, match=r"each node once, got teff=4000 logg=4.5 for spectra 0 and 1"):
            assert make_grid(values).lattice

    def test_inside_holds_the_ends_and_no_nan(self) -> None:
        lattice = make_grid().lattice
        values = np.array([[4000.0, 4.5], [4200.0, 5.0], [4200.1, 5.0], [4100.0, 4.4], [np.nan, 4.5]])
        assert lattice.inside(values).tolist() == [True, True, False, False, False]

    def test_scattered_points_are_no_lattice(self) -> None:
        values = np.random.default_rng(1).uniform([4000, 4], [5000, 5], (40, 2))
        grid = make_grid(values)
        assert not grid.is_lattice
        with pytest.raises(UsageError, match=r"expected a regular lattice, got 40 points with 40 x 40 different values"):
            assert grid.lattice


class TestDescribe:
    def test_the_words_hold_every_number(self) -> None:
        text = describe_grid(make_grid(VALUES[[0, 1, 2, 4, 5]], fwhm=0.2))
        assert "5 at the 6 nodes of a lattice (3 x 2), 1 hole" in text
        assert "3 values, 4000 to 4200 K, step 100" in text
        assert "5000.00 to 5003.00 Å (air), 4 pixels, step 1 Å" in text
        assert "FWHM = 0.2 Å" in text
        assert "holes\n  teff=4100 logg=5" in text

    def test_many_holes_are_counted(self) -> None:
        values = np.array([[4000.0 + 100 * i, 4.0 + 0.5 * j] for i in range(6) for j in range(6) if i == 0 or j == 0])
        text = describe_grid(make_grid(values), most_holes=3)
        assert text.count("\n  teff=") == 3
        assert "and 22 more; --holes 25 lists them all" in text


# -- any file, described -----------------------------------------------------------------------------------------------------

ARRAYS = {
    "wave": WAVELENGTH / 10,
    "spectra": (1000 * np.linspace(0.1, 1, 24).reshape(6, 4)).astype(np.uint16),
    "scale": np.array(1e-3),
    "labels": VALUES,
    "kind": np.array(["lattice"] * 5 + ["test"]),
}
DESCRIPTION: dict[str, Any] = {
    "file": "library.npz",
    "wavelength": "wave",
    "wavelength_unit": "nm",
    "medium": "air",
    "flux": "spectra",
    "flux_scale": "scale",
    "labels": "labels",
    "label_names": ["teff", "logg"],
    "fwhm": 0.1,
}


def write_library(folder: Path, ending: str) -> Path:
    """The same arrays in each kind of file."""
    path = folder / f"library{ending}"
    if ending == ".npz":
        np.savez(path, **ARRAYS)
    elif ending == ".fits":
        from astropy.io import fits

        images = [fits.ImageHDU(ARRAYS[name], name=name) for name in ("wave", "spectra", "labels")]
        fits.HDUList([fits.PrimaryHDU(), *images, fits.ImageHDU(np.array([1e-3]), name="scale")]).writeto(path)
    elif ending == ".h5":
        import h5py

        with h5py.File(path, "w") as root:
            for name, array in ARRAYS.items():
                root[name] = array.astype("S") if name == "kind" else array
    else:
        import zarr

        group = zarr.create_group(path, zarr_format=3, attributes={"kind": ARRAYS["kind"].tolist()})
        for name in ("wave", "spectra", "scale", "labels"):
            group.create_array(name, data=np.atleast_1d(ARRAYS[name]))
    return path


class TestDescription:
    @pytest.mark.parametrize("ending", [".npz", ".fits", ".h5", ".zarr"])
    def test_every_kind_of_file_gives_the_same_grid(self, tmp_path: Path, ending: str) -> None:
        path = write_library(tmp_path, ending)
        names = {name: name.upper() if ending == ".fits" else name for name in ("wave", "spectra", "scale", "labels")}
        settings = DESCRIPTION | {"file": str(path), "wavelength": names["wave"], "flux": names["spectra"]}
        grid = open_described(GridDescription.from_dict(settings | {"flux_scale": names["scale"], "labels": names["labels"]}))
        assert np.allclose(grid.wavelength, WAVELENGTH, rtol=1e-12)
        assert np.allclose(grid.flux(), ARRAYS["spectra"] * 1e-3, rtol=1e-6)  # single precision
        assert grid.names == ("teff", "logg")
        assert [label.unit for label in grid.labels] == ["K", "dex"]
        assert (grid.medium, grid.fwhm, grid.is_normalised) == ("air", 0.1, True)

    @pytest.mark.parametrize("ending", [".npz", ".h5", ".zarr"])
    def test_where_leaves_other_spectra_out(self, tmp_path: Path, ending: str) -> None:
        settings = DESCRIPTION | {"file": str(write_library(tmp_path, ending)), "where": {"kind": "lattice"}}
        grid = open_described(GridDescription.from_dict(settings))
        assert np.array_equal(grid.values, VALUES[:5])
        assert np.allclose(grid.flux(), ARRAYS["spectra"][:5] * 1e-3, rtol=1e-6)

    def test_as_toml_the_file_lies_beside_it(self, tmp_path: Path) -> None:
        write_library(tmp_path, ".npz")
        lines = [
            f"{key} = {str(value) if isinstance(value, (list, float)) else repr(value)}" for key, value in DESCRIPTION.items()
        ]
        (tmp_path / "grid.toml").write_text("\n".join([*lines, "columns = { logg = 'logg', teff = 'teff' }"]))
        grid = open_grid(tmp_path / "grid.toml")
        assert grid.names == ("logg", "teff")
        assert np.array_equal(grid.values, VALUES[:, ::-1])

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"wavelenght": "x"}, r"expected a known key, got 'wavelenght'; known are file, wavelength"),
            ({"wavelength_unit": "K"}, r"expected a length as wavelength_unit, got 'K'"),
            ({"flux": "flux"}, r"expected an array 'flux', got wave, spectra, scale, labels, kind; name one of these"),
            ({"where": {"kind": "sobol"}}, r"expected spectra with \{'kind': 'sobol'\}, got none"),
            ({"where": {"wave": 1}}, r"expected wave of shape \(6,\), a value per spectrum, got \(4,\)"),
            ({"label_names": ["teff", "colour"]}, r"expected label_units beside the label 'colour'.*got none; units are never"),
            ({"label_units": ["K"]}, r"expected 2 label_units, one for each of teff, logg, got 1"),
            ({"label_units": ["Angstrom", "dex"]}, r"expected label 'teff' in K, got 'Angstrom'"),
            ({"columns": {"teff": "Teff"}}, r"expected a label 'Teff', got teff, logg; correct columns"),
            ({"flux_scale": 0.5}, r"expected flux_scale as text, got 0\.5; put it in quotes"),
            ({"label_names": 5}, r"expected label_names as a list of texts, got 5; write"),
            ({"label_units": ["K", 1]}, r"expected label_units as text, got 1"),
            ({"columns": ["teff"]}, r"expected columns as \{ name = \.\.\. \}, got"),
            ({"columns": {"teff": 1}}, r"expected columns\.teff as text, got 1"),
            ({"where": "lattice"}, r"expected where as \{ name = \.\.\. \}, got 'lattice'"),
            ({"where": {"kind": ["lattice"]}}, r"expected where\.kind as a text or number, got"),
            ({"fwhm": "narrow"}, r"expected fwhm as a positive number, got 'narrow'"),
            ({"file": "absent.npz"}, r"expected a synthetic library, found no such file"),
        ],
    )
    def test_what_a_user_can_get_wrong_is_one_sentence(self, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
        write_library(tmp_path, ".npz")
        settings = DESCRIPTION | change
        settings["file"] = str(tmp_path / settings["file"])
        with pytest.raises(MauryError, match=sentence) as failure:
            open_described(GridDescription.from_dict(settings))
        assert "\n" not in str(failure.value)

    def test_units_and_medium_are_never_guessed(self) -> None:
        with pytest.raises(RecipeError, match=r"expected a value for medium, got none; add it, units are never guessed"):
            GridDescription.from_dict({key: value for key, value in DESCRIPTION.items() if key != "medium"})

    @pytest.mark.parametrize("ending", [".h5", ".fits", ".npz"])
    def test_a_truncated_file_is_one_sentence(self, tmp_path: Path, ending: str) -> None:
        path = write_library(tmp_path, ending)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ReadError, match=r"library\.\w+: expected a library as \.npz .*HDF5 or FITS, got: .*check the file"):
            open_described(GridDescription.from_dict(DESCRIPTION | {"file": str(path)}))

    def test_nan_flux_is_one_sentence(self, tmp_path: Path) -> None:
        spectra = ARRAYS["spectra"] * 1.0
        spectra[2, 1] = np.nan
        np.savez(tmp_path / "library.npz", **(ARRAYS | {"spectra": spectra}))
        with pytest.raises(ReadError, match=r"expected finite flux, got NaN or infinity; leave such spectra out"):
            open_described(GridDescription.from_dict(DESCRIPTION | {"file": str(tmp_path / "library.npz")}))
