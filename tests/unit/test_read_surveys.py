"""What each survey's documentation says about masks, velocities, errors and labels, held on files in the survey's form."""

from __future__ import annotations

import gzip
from pathlib import Path

import file_makers as make
import numpy as np
import pytest
from astropy.io import fits

from maury.errors import ReadError, UsageError
from maury.flags import PixelFlag
from maury.read import read_file, read_files
from maury.read._common import translate_mask
from maury.read._masks import SPPIXMASK

C = 299_792.458  # km/s


def _set_card(path: Path, key: str, value: object) -> None:
    with fits.open(path, mode="update") as hdus:
        hdus[0].header[key] = value


# -- masks --------------------------------------------------------------------------------------------------------------


def test_mask_bits_by_name_and_unnamed_ones_as_other() -> None:
    # https://www.sdss4.org/dr17/algorithms/bitmasks/#SPPIXMASK: 23 BRIGHTSKY, 25 COMBINEREJ; 30 is not defined
    flags = translate_mask(np.array([0, 1 << 23, (1 << 25) | (1 << 23), 1 << 30]), SPPIXMASK)
    bright, combine, other = (int(f) for f in (PixelFlag.BRIGHT_SKY, PixelFlag.COMBINE_REJECT, PixelFlag.SURVEY_OTHER))
    assert flags.tolist() == [0, bright, combine | bright, other]


def test_masks_stored_as_floats() -> None:
    flags = translate_mask(np.array([0.0, float(1 << 22), np.nan, 1e30], np.float32), SPPIXMASK)
    assert flags.tolist() == [0, int(PixelFlag.NO_SKY), int(PixelFlag.SURVEY_OTHER), int(PixelFlag.SURVEY_OTHER)]


def test_lamost_takes_the_and_mask(tmp_path: Path) -> None:
    path = tmp_path / "l.fits"
    make.lamost_image(path)
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[3, 7] = 1  # and-mask
        hdus[0].data[4, 8] = 1  # or-mask: not taken
    mask = read_file(path)[0].mask
    assert mask is not None
    assert mask[0, 6:10].tolist() == [0, int(PixelFlag.BAD_PIXEL), 0, 0]


def test_unusable_pixels_are_flagged_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "l.fits"
    make.lamost_image(path)
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[0, 3] = np.nan
        hdus[0].data[1, 4] = -1.0
    spectra = read_file(path)[0]
    assert spectra.mask is not None
    assert spectra.mask[0, 3] & PixelFlag.NO_DATA
    assert spectra.mask[0, 4] == PixelFlag.BAD_ERROR
    assert spectra.ivar[0, 3:6].tolist() == [0.0, 0.0, pytest.approx(1 / 25.0)]


def test_desi_compressed_mask_and_line_spread_from_the_resolution_matrix(tmp_path: Path) -> None:
    path = tmp_path / "d.fits"
    make.desi_compressed(path)
    (spectra,) = read_file(path)
    assert spectra.mask is not None
    assert spectra.mask[0, 5] == PixelFlag.COSMIC_RAY
    assert np.count_nonzero(spectra.mask) == 1
    # sigma = 1 pixel of 0.8 Å: FWHM = 2.3548 * 0.8 Å; the matrix is cut at 5 sigma
    np.testing.assert_allclose(spectra.meta["fwhm"], 2.3548 * 0.8, atol=0.001)
    assert [str(i) for i in spectra.meta["star_id"]] == ["1", "2", "3"]


# -- velocities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [-9999.0, -9.0])
def test_missing_redshift_is_nan(tmp_path: Path, z: float) -> None:
    path = tmp_path / "l.fits"
    make.lamost_image(path)
    _set_card(path, "Z", z)
    assert np.isnan(read_file(path)[0].meta["rv"][0])


@pytest.mark.parametrize(
    ("maker", "key"),
    [
        (make.carmenes_table, "CARACAL BERV"),
        (make.caracal, "CARACAL BERV"),
        (make.harps_e2ds, "ESO DRS BERV"),
        (make.ap_visit, "BC"),
    ],
    ids=["carmenes table", "caracal", "e2ds", "apVisit"],
)
def test_barycentric_velocity_of_the_header_is_applied(tmp_path: Path, maker: make.Maker, key: str) -> None:
    path = tmp_path / "a.fits"
    low, _ = maker(path)
    _set_card(path, key if len(key) < 9 else f"HIERARCH {key}", 26.264)
    found = read_file(path)
    assert min(s.wavelength[0] for s in found) == pytest.approx(low * (1 + 26.264 / C), rel=1e-9)
    assert {str(s.meta["velocity_frame"][0]) for s in found} == {"barycentric"}


def test_serval_templates_have_logarithms_of_barycentric_wavelengths(tmp_path: Path) -> None:
    """SPEC, SIG and WAVE alone, as its readers expect them; the header's BERV is not applied again."""
    path = tmp_path / "t.fits"
    low, high = make.caracal(path)
    with fits.open(path, mode="update") as hdus:
        del hdus["CONT"]
        hdus["WAVE"].data = np.log(hdus["WAVE"].data)
        hdus[0].header["HIERARCH CARACAL BERV"] = 20.0
    found = read_file(path)
    assert (found[0].wavelength[0], found[-1].wavelength[-1]) == pytest.approx((low, high), rel=1e-9)
    assert {str(s.meta["velocity_frame"][0]) for s in found} == {"barycentric"}


def test_without_barycentric_velocity_the_frame_is_said_to_be_topocentric(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    low, _ = make.carmenes_table(path)
    with fits.open(path, mode="update") as hdus:
        del hdus[0].header["CARACAL BERV"]
    spectra = read_file(path)[0]
    assert spectra.wavelength[0] == low
    assert str(spectra.meta["velocity_frame"][0]) == "topocentric"


def test_ap_star_is_at_rest_and_ap_visit_is_not(tmp_path: Path) -> None:
    make.ap_star(tmp_path / "s.fits")
    make.ap_visit(tmp_path / "v.fits")
    star, visit = read_file(tmp_path / "s.fits")[0], read_file(tmp_path / "v.fits")[0]
    assert (star.frame, visit.frame) == ("rest", "observed")
    assert (float(star.meta["rv"][0]), float(visit.meta["rv"][0])) == (-12.0, 10.0)


# -- errors -------------------------------------------------------------------------------------------------------------


def test_carmenes_exchanged_columns_are_seen_by_the_signal_to_noise_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "c.fits"
    make.carmenes_exchanged(path)
    spectra = read_file(path)[0]
    assert "column CONT" in str(spectra.meta["error_source"][0])
    assert spectra.meta["snr"][0] == pytest.approx(20, rel=0.02)
    _set_card(path, "HIERARCH CARACAL FOX SNR 0", 200.0)
    with pytest.raises(ReadError, match="expected errors in column SIG, got the same number in every row"):
        read_file(path)


def test_hpf_unnamed_noise_is_told_by_the_documented_file_name_or_refused(tmp_path: Path) -> None:
    make.hpf(tmp_path / "spectrum.fits")
    with fits.open(tmp_path / "spectrum.fits", memmap=False) as hdus:
        for hdu in hdus[1:]:
            del hdu.header["EXTNAME"]
        for name in ("Slope-1.optimal.fits", "Goldilocks-1.spectra.fits", "unknown.fits"):
            hdus.writeto(tmp_path / name)
    # the images hold 25: a variance for one pipeline (S/N 100/5), an error for the other (100/25)
    assert read_file(tmp_path / "Slope-1.optimal.fits")[0].meta["snr"][0] == pytest.approx(20, rel=0.02)
    assert read_file(tmp_path / "Goldilocks-1.spectra.fits")[0].meta["snr"][0] == pytest.approx(4, rel=0.02)
    with pytest.raises(ReadError, match="'Sci Variance' or 'Sci Error'"):
        read_file(tmp_path / "unknown.fits")


def test_harps_errors_give_the_signal_to_noise_of_the_header(tmp_path: Path) -> None:
    make.harps_e2ds(tmp_path / "e.fits")
    for spectra in read_file(tmp_path / "e.fits"):
        assert spectra.meta["snr"][0] == pytest.approx(20.0, rel=1e-3)
        assert str(spectra.meta["error_source"][0]) == "photon noise, S/N of header"


def test_eso_products_without_errors_say_where_the_signal_to_noise_is_from(tmp_path: Path) -> None:
    make.eso_phase3(tmp_path / "ADP.fits")
    assert str(read_file(tmp_path / "ADP.fits")[0].meta["error_source"][0]) == "header S/N 20"
    assert str(read_file(tmp_path / "ADP.fits", snr=50)[0].meta["error_source"][0]) == "assumed S/N 50"


def test_image_without_errors_or_medium_asks_for_them(tmp_path: Path) -> None:
    header = fits.Header({"CRVAL1": 5000.0, "CDELT1": 0.1, "CRPIX1": 1.0, "CTYPE1": "Angstrom"})
    path = tmp_path / "plain.fits"
    fits.PrimaryHDU(make.spectrum(), header).writeto(path)
    with pytest.raises(ReadError, match=r"--snr"):
        read_file(path)
    with pytest.raises(ReadError, match=r"--medium"):
        read_file(path, snr=30)
    spectra = read_file(path, snr=30, medium="air", frame="rest")[0]
    assert (spectra.medium, spectra.frame) == ("air", "rest")
    assert spectra.meta["snr"][0] == pytest.approx(30, rel=0.02)


def test_a_stated_medium_is_not_overruled(tmp_path: Path) -> None:
    make.image_1d(tmp_path / "i.fits")
    assert read_file(tmp_path / "i.fits", medium="vacuum")[0].medium == "air"  # CTYPE1 = AWAV


# -- labels -------------------------------------------------------------------------------------------------------------


def test_aspcap_labels_are_read_and_missing_ones_are_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    make.aspcap_star(path)
    meta = read_file(path)[0].meta
    assert [float(meta[n][0]) for n in ("header_teff", "header_logg", "header_m_h")] == [4750.0, 2.5, -0.25]
    with fits.open(path, mode="update") as hdus:
        hdus[4].data["PARAM"][0, 0] = -9999.0
    assert np.isnan(read_file(path)[0].meta["header_teff"][0])


# -- refusals that need their own words ---------------------------------------------------------------------------------


def test_harps_calibrations_are_named(tmp_path: Path) -> None:
    make.harps_e2ds(tmp_path / "w.fits")
    _set_card(tmp_path / "w.fits", "HIERARCH ESO DPR TYPE", "WAVE,WAVE,THAR2")
    with pytest.raises(ReadError, match=r"got a HARPS calibration \(WAVE,WAVE,THAR2"):
        read_file(tmp_path / "w.fits")


def test_e2ds_without_wavelengths_asks_for_the_wave_file(tmp_path: Path) -> None:
    make.harps_e2ds_with_wave_file(tmp_path / "e.fits")
    (tmp_path / "lamp_wave_A.fits").unlink()
    with pytest.raises(ReadError, match=r"the file lamp_wave_A\.fits beside the spectrum"):
        read_file(tmp_path / "e.fits")


def test_lamost_medium_resolution_is_not_taken_for_low(tmp_path: Path) -> None:
    make.lamost_table(tmp_path / "m.fits")
    with fits.open(tmp_path / "m.fits", mode="update") as hdus:
        hdus[1].name = "COADD_B"
    with pytest.raises(ReadError, match="medium-resolution"):
        read_file(tmp_path / "m.fits")


def test_a_header_that_claims_terabytes_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "huge.fits"
    make.miles(path)
    content = path.read_bytes().replace(b"NAXIS1  =                  200", b"NAXIS1  =        1000000000000")
    path.write_bytes(content)
    with pytest.raises(ReadError, match="the file is truncated"):
        read_file(path)


def test_a_log_axis_that_lost_its_flag_is_not_read_as_three_angstrom(tmp_path: Path) -> None:
    path = tmp_path / "i.fits"
    make.image_iraf(path)
    with fits.open(path, mode="update") as hdus:
        del hdus[0].header["DC-FLAG"]
    with pytest.raises(ReadError, match="between 10 Å and 10 cm"):
        read_file(path)


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.fits.gz"
    with gzip.open(path, "wb", compresslevel=9) as stream:
        for _ in range(300):
            stream.write(bytes(1024**2))
    with pytest.raises(ReadError, match="MiB unpacked"):
        read_file(path)


def test_truncated_gzip(tmp_path: Path) -> None:
    make.miles(tmp_path / "m.fits")
    packed = gzip.compress((tmp_path / "m.fits").read_bytes())
    (tmp_path / "m.fits.gz").write_bytes(packed)
    assert read_file(tmp_path / "m.fits.gz")[0].ids.tolist() == ["m"]
    (tmp_path / "m.fits.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ReadError, match="gzip file, got a truncated"):
        read_file(tmp_path / "m.fits.gz")


def test_a_votable_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "t.vot"
    path.write_text('<?xml version="1.0"?><VOTABLE><STREAM href="http://example.org/x"/></VOTABLE>', encoding="utf-8")
    with pytest.raises(ReadError, match="points to another file"):
        read_file(path)


def test_options_that_cannot_be_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="expected a format among lamost"):
        read_file("x.fits", "nonsense")
    with pytest.raises(UsageError, match="positive signal-to-noise"):
        read_file("x.fits", snr=-1.0)
    with pytest.raises(UsageError, match="'air' or 'vacuum'"):
        read_file("x.fits", medium="water")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least one worker"):
        read_files([], workers=0)


# -- many files ---------------------------------------------------------------------------------------------------------


def test_processes_give_the_same_as_one(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.fits" for i in range(70)]  # more than one chunk
    for path in paths:
        make.miles(path)
    paths[5].write_bytes(b"not a spectrum")
    seen: list[tuple[int, int]] = []
    one = read_files(paths)
    two = read_files(paths, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (70, 70)
    assert one.files == two.files == [str(p) for i, p in enumerate(paths) if i != 5]
    assert [f.file for f in one.failures] == [f.file for f in two.failures] == [str(paths[5])]
    for a, b in zip(one.spectra, two.spectra, strict=True):
        np.testing.assert_array_equal(a.flux, b.flux)
        assert a.meta.colnames == b.meta.colnames
