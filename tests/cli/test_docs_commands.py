"""Every ``maury`` command shown in README and docs runs as typed, in order, page by page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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
    return folder


@pytest.mark.timeout(1200)  # a page trains models; on a busy machine one took more than the usual limit of 300 s
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda p: p.name)
def test_commands_run_as_typed(page: Path, folder: Path) -> None:
    for command in commands(page):
        line = f"{shlex.quote(sys.executable)} -m {command}"
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}"


def test_there_are_commands_to_run() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 10
