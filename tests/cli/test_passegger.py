"""The passegger2020 recipe as typed: PHOENIX's files and CARMENES' files to Tables 3 and 4 of Passegger+2020, small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from archive_server import ArchiveServer, serving
from astropy.table import Table
from carmenes_files import write_carmenes_vis, write_dwarf_archive
from phoenix_files import phoenix_wavelength

from maury.catalogue import read_catalogue
from maury.flags import ResultFlag
from maury.grids.download_plan import plan_phoenix

LABELS = ("teff", "logg", "m_h", "vsini")
WINDOWS = ("8485-8530", "8800-8835")
N_NETWORKS = 7  # of the recipe's [quick]: one for each set of labels, so that three know each label
# (Teff K, log g, [M/H]), velocity km/s, v sin i km/s: between PHOENIX's nodes, and velocities of halo stars
STARS = (((3400.0, 4.9, 0.1), -110.5, 3.0), ((3050.0, 5.1, -0.3), 20.0, 10.0), ((3800.0, 4.7, 0.2), 78.3, 20.0))
# The networks know no noise (as in the paper) and are small: at S/N 150 their Teff scatters by 60 K, at 500 by a third of that
SNR = 500.0
# K, dex, dex, km/s: a step of PHOENIX in Teff, half a one in log g and [M/H], two of the lattice in v sin i. The worst of three
# stars and three seeds of the sweep were off by 44 K, 0.21, 0.11 and 5.6 km/s
LIMITS = (100.0, 0.25, 0.25, 10.0)


def maury(words: str, folder: Path, archive: str = "") -> str:
    """What a command prints; warnings are errors."""
    command = [sys.executable, "-W", "error", "-m", "maury", *words.split()]
    environment = os.environ | {"MAURY_PHOENIX_ARCHIVE": archive, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def download(folder: Path, archive: Path) -> None:
    """M0 to M6 alone, which are half of the files: label sets beyond are left out."""
    axes = {"teff": (3000.0, 4000.0), "logg": (4.0, 5.5), "m_h": (-1.0, 1.0)}
    plan = plan_phoenix(**axes, wavelength=(8475.0, 8845.0))
    write_dwarf_archive(archive, plan.nodes, phoenix_wavelength(8470, 8850))
    with serving(ArchiveServer(archive)) as server:
        ranges = "--teff 3000 4000 --logg 4 5.5 --mh -1 1 --wavelength 8475 8845"
        printed = maury(f"grid download phoenix {ranges} -o phoenix.zarr", folder, server.address)
    assert "220 spectra in phoenix.zarr" in printed


def table_3(printed: str) -> dict[tuple[str, str], list[float]]:
    """Threshold, networks trained, accepted networks, their architectures and windows, by label and reading."""
    _, _, after = printed.partition("accepted networks (as Passegger+2020, Table 3; the ensemble takes the reading 'mean'):\n")
    head, *lines = after.split("\n\n")[0].splitlines()
    assert head.split() == ["label", "unit", "error", "below", "trained", "models", "architectures", "windows"]
    cells = [re.fullmatch(r"(\w+) +\S+ +(mean|worst tenth)((?: +[\d.]+){5})", line) for line in lines]
    return {(cell[1], cell[2]): [float(number) for number in cell[3].split()] for cell in cells if cell is not None}


def check_sweep(folder: Path, printed: str) -> None:
    assert f"{N_NETWORKS} networks, 0 failed" in printed
    runs = Table.read(folder / "sweep" / "runs.ecsv")
    assert len(runs) == N_NETWORKS
    assert set(runs["status"]) == {"done"}
    assert {window for windows in runs["windows"] for window in windows.split("+")} == set(WINDOWS)
    assert {"A", "B", "C"} == set(runs["approach"])
    table = table_3(printed)
    assert list(table) == [(label, reading) for label in LABELS for reading in ("mean", "worst tenth")]
    for label, threshold in zip(LABELS, (100, 0.2, 0.2, 3), strict=True):
        known = np.array([label in labels.split("+") for labels in runs["labels"]])
        good = known & np.asarray(runs[f"accepted_{label}"])
        assert (good == known & (np.asarray(runs[f"mae_{label}"]) < threshold)).all()
        kinds = [len(set(runs[name][good])) for name in ("architecture", "windows")]
        assert table[label, "mean"] == [threshold, 3, good.sum(), *kinds]
        assert table[label, "worst tenth"][2] <= good.sum()
        assert good.any()
    assert re.search(r"model [0-9a-f]{12} of 4 labels written", printed)


def check_velocities(folder: Path, files: list[Path]) -> None:
    """To a quarter of a pixel (1.2 km/s)."""
    found = Table.read(folder / "rv.csv")
    assert found["file"].tolist() == [file.name for file in files]
    np.testing.assert_allclose(found["rv"], [rv for _, rv, _ in STARS], atol=0.3)


def check_stars(folder: Path, files: list[Path], printed: str) -> None:
    """Table 4 is printed as it stands in the catalogue, and the labels are right."""
    stars = read_catalogue(folder / "stars.fits")
    assert [str(name) for name in stars["file"]] == [file.name for file in files]
    assert (np.asarray(stars["flag"]) & int(ResultFlag.SYNTHETIC_GAP | ResultFlag.UNREADABLE) == 0).all()
    true = np.array([[*labels, vsini] for labels, _, vsini in STARS])
    found = np.column_stack([np.asarray(stars[label]) for label in LABELS])
    assert (np.abs(found - true) < LIMITS).all(), found - true
    for star in stars:
        cells = [
            f"{star[label]:.{n}f} +{star[f'e_{label}_up']:.{n}f} -{star[f'e_{label}_lo']:.{n}f}"
            for label, n in zip(LABELS, (0, 2, 2, 1), strict=True)
        ]
        assert re.search(r"\s+".join(map(re.escape, (star["id"], *cells))), printed), printed


def check_votes(folder: Path, files: list[Path]) -> None:
    """Every accepted network has voted on every star."""
    votes, runs = Table.read(folder / "votes.fits"), Table.read(folder / "sweep" / "runs.ecsv")
    assert len(votes) == len(files)
    for label in LABELS:
        own = np.asarray(votes[f"vote_{label}"]).reshape(len(files), -1)
        assert own.shape[1] == np.sum(runs[f"accepted_{label}"])
        assert np.isfinite(own).all()


def test_from_the_archives_to_tables_3_and_4(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    download(folder, tmp_path / "archive")
    check_sweep(folder, maury("sweep passegger2020 --quick --processes 1", folder))
    files = [
        write_carmenes_vis(folder / f"car-{number}-sci-vis_A.fits", labels, rv, SNR, number, vsini=vsini, berv=-7.0 * number)
        for number, (labels, rv, vsini) in enumerate(STARS)
    ]
    names = " ".join(file.name for file in files)
    maury(f"rv {names} --template phoenix.zarr -o rv.csv", folder)
    check_velocities(folder, files)
    ensemble = "sweep/ensemble.safetensors"
    printed = maury(f"infer {ensemble} {names} --velocities rv.csv -o stars.fits --votes votes.fits", folder)
    check_stars(folder, files, printed)
    check_votes(folder, files)
    printed = maury(f"assess {ensemble} {names} --velocities rv.csv --gap", folder)
    used = {window for windows in Table.read(folder / "sweep" / "runs.ecsv")["windows"] for window in windows.split("+")}
    assert len(re.findall(r"^\d+\.\d\d-\d+\.\d\d Å +3 ", printed, re.MULTILINE)) == len(used)
