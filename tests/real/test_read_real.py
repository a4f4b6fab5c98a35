"""One real file of each kind: instrument, range, medium and S/N as its header and DATA.md have them; and every file is listed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from maury.read import describe, read_file, read_files

# instrument, wavelength range (Å), medium, median S/N per pixel (of the file's own statement where it has one)
KNOWN = [
    # grid CRVAL1 = 3540.5, CDELT1 = 0.9, 4300 px, air; S/N 100 is what we take (DATA.md)
    ("miles/spectra/MILES_res2.50_star_m0001V.fits", "MILES", (3540.5, 7409.6), "air", (99, 101)),
    # COEFF0 = 3.5682; SNRG..SNRZ of the header lie at 10 to 42
    ("lamost_dr1/spectra/spec-55862-B6212_sp06-068.fits", "LAMOST LRS", (3699.99, 9088.66), "vacuum", (15, 30)),
    # groups.csv: S/N g 94, r 119
    ("lamost_repeats/spectra/spec-55859-F5902_sp03-232.fits.gz", "LAMOST LRS", (3699.99, 9092.85), "vacuum", (85, 125)),
    # DATA.md: S/N about 475 and 23
    ("gaia_rvs/HD176650.csv", "Gaia RVS", (8460.0, 8700.0), "vacuum", (430, 500)),
    ("gaia_rvs/KOI-001.csv", "Gaia RVS", (8460.0, 8700.0), "vacuum", (19, 25)),
    ("sdss/spec-0618-52049-0372.fits", "SDSS", (3812.4, 9215.1), "vacuum", (40, 60)),
    ("sdss/spec-4068-55445-0924.fits", "BOSS", (3590.9, 10365.7), "vacuum", (15, 30)),
    ("apogee/apVisit-r13-5095-55844-128.fits", "APOGEE", (15143.3, 16955.4), "vacuum", (35, 50)),
    ("harps/HARPS.2010-09-18T23-42-36.178_s1d_A.fits", "HARPS", (3781.2, 6912.3), "air", (20, 60)),
    ("hpf/GJ_699__Slope-20181003T014556_R01.optimal.fits", "HPF", (8079.0, 12785.8), "vacuum", (300, 800)),
    ("carmenes/car-20160325T05h28m38s-sci-gtoc-nir_A_tell.fits", "CARMENES NIR", (9604.4, 17119.9), "vacuum", (100, 400)),
    ("desi/coadd-5-169-thru20210419.fits", "DESI", (3600.0, 9824.0), "vacuum", (0.1, 20)),
]


@pytest.mark.parametrize(("file", "instrument", "limits", "medium", "snr"), KNOWN, ids=[k[0] for k in KNOWN])
def test_what_the_file_is(
    data: Path, file: str, instrument: str, limits: tuple[float, float], medium: str, snr: tuple[float, float]
) -> None:
    about = describe(read_file(data / file))
    assert about["instrument"] == instrument
    assert about["wavelength_min"] == pytest.approx(limits[0], abs=0.1)
    assert about["wavelength_max"] == pytest.approx(limits[1], abs=0.1)
    assert about["medium"] == medium
    assert snr[0] <= about["snr"] <= snr[1]


def test_lamost_velocity_is_the_redshift_of_the_header(data: Path) -> None:
    from astropy.io import fits

    path = data / "lamost_dr1/spectra/spec-55862-B6212_sp06-068.fits"
    z = fits.getheader(path)["Z"]
    assert float(read_file(path)[0].meta["rv"][0]) == pytest.approx(299_792.458 * z)


def test_every_spectrum_file_is_listed(data: Path) -> None:
    files = sorted(p for p in data.rglob("*") if p.name.endswith((".fits", ".fits.gz")) or p.parent.name == "gaia_rvs")
    result = read_files(files)
    listed = {Path(f).name for f in result.files} | {Path(f.file).name for f in result.failures}
    assert listed == {p.name for p in files}
    # a wavelength file, a blaze file and a lamp file are no spectra; one archive spectrum has neither
    # errors nor a word on air or vacuum (it reads with --snr and --medium)
    assert {Path(f.file).name for f in result.failures} == {
        "gaia_rvs_wavelength.fits",
        "HARPS.2003-12-12T21-42-45.093_blaze_A.fits",
        "HARPS.2003-12-12T21-47-59.366_wave_A.fits",
        "HARPS_Gl643.fits",
    }
    assert len(read_file(data / "mdwarf_1d/HARPS_Gl643.fits", snr=50.0, medium="air")) == 1


def test_command_prints_json_for_machines(data: Path) -> None:
    words = ["read", "--json", str(data / "gaia_rvs/KOI-001.csv"), str(data / "harps/nothing.fits")]
    done = subprocess.run([sys.executable, "-m", "maury", *words], capture_output=True, text=True, timeout=120, check=False)
    rows = json.loads(done.stdout)
    assert done.returncode == 0  # one of them could be read
    assert rows[0]["instrument"] == "Gaia RVS"
    assert "error" in rows[1]
