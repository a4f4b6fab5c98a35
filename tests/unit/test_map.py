"""The tree shows the flow: a room imports only from rooms above it in the map of ``maury/__init__.py``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import maury

SOURCE = Path(maury.__file__).parent

VOCABULARY = ("errors", "constants", "flags", "labels", "spectra", "estimates", "protocols", "files", "threads")
FLOW = ("read", "grids", "prepare", "networks", "train", "emulate", "regress", "fit", "assess", "catalogue", "report")
ACROSS = ("model", "models", "store", "recipes", "demo", "cli")
RANK = dict.fromkeys(VOCABULARY, 0) | {room: i + 1 for i, room in enumerate(FLOW)} | dict.fromkeys(ACROSS, 99)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """Rooms of this package that a file imports, wherever in the file; type-checking imports do not run and do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("maury"):
            found.add(room_of(node.module))
        elif isinstance(node, ast.Import):
            found |= {room_of(alias.name) for alias in node.names if alias.name.startswith("maury.")}
    return found - {""}


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name not in ("__main__.py",) and path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_only_up_the_map(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} is not on the map: add it to maury/__init__.py and here"
    for other in imports(path) - {own}:
        if RANK[own] == 99:
            continue
        assert RANK[other] <= RANK[own], f"{own} imports {other}, which lies below it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_every_room_is_on_the_map() -> None:
    rooms = {p.name for p in SOURCE.iterdir() if (p / "__init__.py").is_file()}
    rooms |= {p.stem for p in SOURCE.glob("*.py") if not p.stem.startswith("__")}
    assert rooms == set(RANK)
    assert all(room in (maury.__doc__ or "") for room in rooms)


def test_public_names_exist_and_import_lazily() -> None:
    assert all(hasattr(maury, name) for name in maury.__all__)
    code = "import sys, maury; bad = {'numpy', 'astropy', 'torch', 'scipy'} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, maury.cli; bad = {'numpy', 'astropy', 'torch', 'scipy', 'pydantic'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'teff'"):
        maury.teff  # noqa: B018
