"""Every reader: recognised by content, the right range in Å, medium said, meta complete, garbage refused; one line each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from file_makers import MAKERS

from maury.errors import ReadError
from maury.read import FORMATS, describe, read_file, read_files
from maury.spectra import STANDARD_META

NAMES = list(MAKERS)


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, tuple[float, float], str, str]:
    maker, file, format_name, medium = MAKERS[request.param]
    return tmp_path / file, maker(tmp_path / file), format_name, medium


def test_recognised_by_content_and_not_by_name(made: tuple[Path, tuple[float, float], str, str]) -> None:
    path, (low, high), format_name, medium = made
    other = path.with_name("renamed" + path.suffix)
    shutil.copy(path, other)
    found = read_file(other)
    assert {str(s.meta["format"][0]) for s in found} == {format_name}
    assert {s.medium for s in found} == {medium}
    assert min(s.wavelength[0] for s in found) == pytest.approx(low, abs=1e-3)
    assert max(s.wavelength[-1] for s in found) == pytest.approx(high, abs=1e-3)


def test_meta_and_signal_to_noise(made: tuple[Path, tuple[float, float], str, str]) -> None:
    path, _, format_name, _ = made
    for spectra in read_file(path):
        assert set(STANDARD_META) <= set(spectra.meta.colnames)
        expected = 100.0 if format_name == "miles" else 20.0  # flux 100, error 5; MILES: assumed
        np.testing.assert_allclose(np.asarray(spectra.meta["snr"], dtype=float), expected, rtol=0.02)
        assert [str(f) for f in spectra.meta["file"]] == [path.name] * len(spectra)


def test_forced_format_gives_the_same(made: tuple[Path, tuple[float, float], str, str]) -> None:
    path, _, format_name, _ = made
    for free, forced in zip(read_file(path), read_file(path, format_name), strict=True):
        np.testing.assert_array_equal(free.flux, forced.flux)


def test_description_is_plain(made: tuple[Path, tuple[float, float], str, str]) -> None:
    import json

    path, _, _, medium = made
    about = json.loads(json.dumps(describe(read_file(path)), allow_nan=False))
    assert about["medium"] == medium
    assert about["n_spectra"] >= 1


def test_truncated_is_said_in_one_sentence(made: tuple[Path, tuple[float, float], str, str]) -> None:
    path = made[0]
    if path.suffix != ".fits":
        pytest.skip("text tables have no length to be short of")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ReadError, match=r"truncated|missing|no primary|not a FITS|expected") as error:
        read_file(path)
    assert "\n" not in str(error.value)


def test_every_format_has_a_maker() -> None:
    assert {entry[2] for entry in MAKERS.values()} == set(FORMATS)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("empty.fits", b"", "empty"),
        ("words.txt", b"these are words, not numbers\n", "expected"),
        ("no_unit.csv", b"wavelength,flux,error\n5000,1,0.1\n5001,1,0.1\n", "unit"),
        ("no_error.csv", b"wavelength_vac [Angstrom],flux\n5000,1\n5001,1\n", "error"),
        ("nan.csv", b"wavelength_vac [Angstrom],flux,error\n5000,nan,0.1\n5001,nan,0.1\n", "NaN|finite|usable"),
        ("medium.csv", b"wavelength [Angstrom],flux,error\n5000,1,0.1\n5001,1,0.1\n", "air or in vacuum"),
        (
            "falling_and_rising.csv",
            b"wavelength_vac [nm],flux,error\n500,1,0.1\n501,1,0.1\n500.5,1,0.1\n",
            "increas|monoton|order",
        ),
    ],
)
def test_each_fault_has_its_own_sentence(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ReadError, match=text) as error:
        read_file(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="found none of that name"):
        read_file(tmp_path / "nothing.fits")
    with pytest.raises(ReadError, match=r"folder|directory"):
        read_file(tmp_path)


def test_one_bad_file_stops_no_other(tmp_path: Path) -> None:
    maker, name, _, _ = MAKERS["lamost image"]
    maker(tmp_path / name)
    (tmp_path / "bad.fits").write_bytes(b"SIMPLE")
    result = read_files([tmp_path / "bad.fits", tmp_path / name])
    assert [Path(f).name for f in result.files] == [name]
    assert [Path(f.file).name for f in result.failures] == ["bad.fits"]


def test_descending_wavelengths_are_turned_round(tmp_path: Path) -> None:
    path = tmp_path / "down.csv"
    path.write_text("wavelength_vac [nm],flux,error\n502,3,0.1\n501,2,0.1\n500,1,0.2\n", encoding="utf-8")
    (spectra,) = read_file(path)
    np.testing.assert_allclose(spectra.wavelength, [5000.0, 5010.0, 5020.0])
    np.testing.assert_allclose(spectra.flux[0], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(spectra.ivar[0], [25.0, 100.0, 100.0])


def test_lamost_takes_its_wavelengths_from_the_header_never_from_row_two(tmp_path: Path) -> None:
    from astropy.io import fits

    maker, name, _, _ = MAKERS["lamost image"]
    low, _ = maker(tmp_path / name)
    with fits.open(tmp_path / name, mode="update") as hdus:
        hdus[0].data[2] = np.linspace(1.0, 2.0, hdus[0].data.shape[1])
    assert read_file(tmp_path / name)[0].wavelength[0] == pytest.approx(low)
