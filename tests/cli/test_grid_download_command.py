"""``maury grid download`` as typed, against an archive on 127.0.0.1."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from archive_server import ArchiveServer, serving

from maury.grids.download_plan import plan_phoenix
from maury.grids.phoenix import WAVE_PATH

RANGES = ("--teff", "4000", "4100", "--logg", "4.5", "5", "--mh", "-0.5", "0", "--wavelength", "8390", "8850")
ABSENT = "lte04100-5.00-0.5.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveServer]:
    """Eight nodes less one, 1000 pixels each."""
    from astropy.io import fits

    folder = tmp_path_factory.mktemp("archive")
    wavelength = np.linspace(8300.0, 9299.0, 1000)
    plan = plan_phoenix(teff=(4000, 4100), logg=(4.5, 5), m_h=(-0.5, 0), wavelength=(8390, 8850))
    files = {WAVE_PATH: wavelength} | {node.path: np.float32(1e15) * np.ones(1000, np.float32) for node in plan.nodes}
    for name, values in files.items():
        if not name.endswith(ABSENT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            fits.PrimaryHDU(values).writeto(folder / name)
    with serving(ArchiveServer(folder)) as running:
        yield running


def maury(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "maury", *map(str, words)], capture_output=True, text=True, check=False)


def download(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return maury("grid", "download", "phoenix", *words)


def test_the_command_says_what_it_fetches_fetches_it_and_names_the_holes(server: ArchiveServer, tmp_path: Path) -> None:
    done = download(*RANGES, "--archive", server.address, "-o", tmp_path / "grid.zarr")
    assert done.returncode == 0, done.stderr
    # 1000 double numbers and a header are four blocks of FITS, 11.5 kB; each spectrum is taken for half of that
    assert re.search(r"PHOENIX: 8 spectra and their wavelengths, 9 files, about 57\.6 kB, from http://127\.0\.0\.1", done.stdout)
    assert "to keep: 8390 to 8850 Å (vacuum) of each" in done.stdout
    assert f"7 spectra in {tmp_path / 'grid.zarr'}" in done.stdout
    assert f"1 hole:\n  {ABSENT}: not in the archive\n" in done.stdout
    again = download(*RANGES, "--archive", server.address, "-o", tmp_path / "grid.zarr")
    assert again.returncode == 0, again.stderr
    assert "is this grid already: nothing to fetch" in again.stdout


def test_a_dry_run_fetches_nothing(server: ArchiveServer, tmp_path: Path) -> None:
    server.asked.clear()
    done = download(*RANGES, "--archive", server.address, "-o", tmp_path / "grid.zarr", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "9 files" in done.stdout
    assert [method for method, _, _ in server.asked] == ["HEAD"]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_needs_no_archive_that_answers(tmp_path: Path) -> None:
    """8 x 6 MB and the wavelengths, twice that: the size of a real file, where the archive cannot be asked."""
    done = download(*RANGES, "--archive", "http://127.0.0.1:9", "-o", tmp_path / "grid.zarr", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "about 60 MB" in done.stdout
    assert "no connection" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--teff", "4500", "2300"), "expected --teff LOW HIGH with LOW <= HIGH, got 4500 2300; swap or correct them"),
        (("--logg", "7", "8"), "expected --logg to hold a node of the library"),
        (("--archive", "ftp://x/"), "expected an archive as http(s)://host/folder, got 'ftp://x/'; correct --archive"),
        (("--archive", "http://127.0.0.1:9"), "got no connection"),
        (("--wavelength", "5000", "6000"), "expected --wavelength within 8300 to 9299 Å"),
        (("--jobs", "0"), "expected at least one file at once, got --jobs 0"),
        (("-o", "FOLDER"), "which is no grid of this program"),
        (("-o", "FOLDER/grid.fits"), "expected an output ending in .zarr or .npz, got grid.fits; choose one of the two"),
        (("-o", "FOLDER/none/grid.zarr"), "expected an existing folder for"),
        (("-o", "/proc/grid.zarr"), "expected to write /proc/grid.zarr.download"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_sentence(
    server: ArchiveServer, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    defaults = ("--archive", server.address, "-o", str(tmp_path / "grid.zarr"))
    done = download(
        *RANGES, *defaults, *(word.replace("FOLDER", str(tmp_path)) for word in words)
    )  # the last of an option counts
    assert done.returncode == 2
    assert done.stderr.startswith("maury: expected ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_library_is_one_sentence(tmp_path: Path) -> None:
    done = maury("grid", "download", "btsettl", *RANGES, "-o", tmp_path / "grid.zarr")
    assert (done.returncode, done.stderr) == (
        2,
        "maury: expected one of the libraries phoenix, got 'btsettl'; name one of them\n",
    )
