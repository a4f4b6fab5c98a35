"""Every ``maury`` command shown in README and docs runs as typed, in order, page by page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from archive_server import ArchiveServer, serving
from phoenix_files import LEVEL, lattice_nodes, phoenix_wavelength, write_spectrum, write_wave

from maury.grids.phoenix import WAVE_PATH

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """Lines starting with ``maury`` in the page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("maury")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A user's folder: ``data/`` and the small files that the how-to pages speak of."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "data").symlink_to(data)
    (folder / "my_velocities.csv").write_text("file,rv\nspec-55862-B6212_sp06-005.fits,12.5\n", encoding="utf-8")
    rows = "\n".join(f"{5000 + i},{1 + 0.01 * (i % 7)},0.05" for i in range(100))
    (folder / "my_table.csv").write_text(f"wavelength [Angstrom],flux,error\n{rows}\n", encoding="utf-8")
    (folder / "my_labels.csv").write_text("id,teff,logg\ncool,4800,2.6\nwarm,6100,4.2\n", encoding="utf-8")
    description = re.search(
        r"```toml\n(# synspec.toml\n.*?)```", (ROOT / "docs/how-to.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert description is not None
    (folder / "synspec.toml").write_text(description[1], encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a web archive with all nodes of the docs' download, in PHOENIX's names and form; the lines are made up."""
    folder = tmp_path_factory.mktemp("archive")
    wavelength = phoenix_wavelength(8380.0, 8860.0)
    write_wave(folder / WAVE_PATH, wavelength)
    lines = np.exp(-0.5 * ((wavelength - np.linspace(8382, 8858, 60)[:, None]) / 0.1) ** 2)
    for node in lattice_nodes(np.arange(2300, 4501, 100), np.arange(4, 5.6, 0.5), np.arange(-1, 0.6, 0.5)):
        depth = 0.2 + 0.1 * node.m_h * np.cos(np.arange(60)) + 0.1 * (node.teff / 4000 - 1) + 0.02 * node.logg
        write_spectrum(folder / node.path, node, LEVEL * (node.teff / 4000) ** 4 * (1 - depth @ lines))
    with serving(ArchiveServer(folder)) as server:
        yield server.address


@pytest.mark.timeout(1200)  # a page trains models; on a busy machine one took more than the usual limit of 300 s
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda p: p.name)
def test_commands_run_as_typed(page: Path, folder: Path, archive: str) -> None:
    environment = os.environ | {"MAURY_PHOENIX_ARCHIVE": archive}
    for command in commands(page):
        line = f"{shlex.quote(sys.executable)} -m {command}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}"


def test_there_are_commands_to_run() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 10
