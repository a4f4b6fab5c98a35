"""``maury grid info`` and ``maury grid plot`` as typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from phoenix_files import lattice_nodes, phoenix_wavelength, write_phoenix

from maury.grids import open_grid, write_grid

NODES = lattice_nodes((4000, 4100, 4200), (4.5, 5.0), (-0.5, 0.0, 0.5))
ABSENT = (4, 17)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 18 nodes less two, the same as a zarr store, and a library at scattered points with its description."""
    folder = tmp_path_factory.mktemp("grid")
    nodes = [node for number, node in enumerate(NODES) if number not in ABSENT]
    write_phoenix(folder / "archive", nodes, phoenix_wavelength(8800.0, 8810.0, 0.05))
    write_grid(folder / "grid.zarr", open_grid(folder / "archive"))
    rng = np.random.default_rng(1)
    np.savez(
        folder / "points.npz",
        w=np.arange(5.0) + 5000,
        f=np.ones((9, 5)),
        teff=rng.uniform(4000, 5000, 9),
        logg=rng.uniform(1, 5, 9),
    )
    description = {"file": "points.npz", "wavelength": "w", "wavelength_unit": "Angstrom", "medium": "air", "flux": "f"}
    (folder / "points.toml").write_text("".join(f"{key} = '{value}'\n" for key, value in description.items()))
    return folder


def maury(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "maury", *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["archive", "grid.zarr"])
def test_info_says_what_a_grid_holds(folder: Path, name: str) -> None:
    done = maury("grid", "info", folder / name)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "(PHOENIX-ACES-AGSS-COND-2011 HiRes)",
        "16 at the 18 nodes of a lattice (3 x 2 x 3 x 1), 2 holes",
        "3 values, 4000 to 4200 K, step 100",
        "8800.00 to 8810.00 Å (vacuum), 201 pixels, step 0.05 Å",
        "R = 500000",
        "erg/s/cm^2/cm",
        "12.9 kB of flux in single precision",  # 16 x 201 x 4 bytes
        "holes\n  teff=4000 logg=5 m_h=0 alpha_m=0\n  teff=4200 logg=5 m_h=0.5 alpha_m=0\n",
    ):
        assert text in done.stdout


def test_info_lists_as_many_holes_as_asked(folder: Path) -> None:
    done = maury("grid", "info", folder / "grid.zarr", "--holes", "1")
    assert "and 1 more; --holes 2 lists them all" in done.stdout


def test_info_of_scattered_points(folder: Path) -> None:
    done = maury("grid", "info", folder / "points.toml")
    assert done.returncode == 0, done.stderr
    assert "9 at scattered points: no lattice, not interpolated" in done.stdout


@pytest.mark.parametrize("name", ["archive", "grid.zarr", "points.toml"])
def test_plot_draws_a_picture(folder: Path, tmp_path: Path, name: str) -> None:
    done = maury("grid", "plot", folder / name, "-o", tmp_path / "grid.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "grid.png" in done.stdout
    assert (tmp_path / "grid.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("info", "FOLDER/absent"), "expected a grid (.zarr, .npz, .toml, a folder of PHOENIX files), found nothing; check it"),
        (("info", "FOLDER/points.npz"), "points.npz: expected a grid that maury wrote, got another kind of file; describe it"),
        (("plot", "FOLDER/grid.zarr", "-o", "FOLDER/grid.jpeg"), "expected a figure name ending in .png, .pdf, .svg"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_sentence(folder: Path, words: tuple[str, ...], sentence: str) -> None:
    done = maury("grid", *(word.replace("FOLDER", str(folder)) for word in words))
    assert done.returncode == 2
    assert done.stderr.startswith("maury: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    done = maury("grid", "plot", tmp_path)
    assert done.returncode == 2
    assert "expected PHOENIX files like lte04000-4.50-0.0" in done.stderr
    assert "got none; check the path" in done.stderr
