"""One glossary, docs/reference/glossary.md, and this test that holds the code to it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import maury
from maury.flags import FitStatus, PixelFlag, ResultFlag
from maury.labels import KNOWN_LABELS
from maury.prepare import STEPS
from maury.spectra import STANDARD_META

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs/reference/glossary.md").read_text(encoding="utf-8")

NOT_OURS = {
    "wave": "wavelength",
    "wav": "wavelength",
    "lam": "wavelength",
    "loglam": "wavelength",
    "flam": "flux",
    "metallicity": "fe_h or m_h",
    "feh": "fe_h",
    "mh": "m_h",
    "log_g": "logg",
    "t_eff": "teff",
    "temperature": "teff",
    "vmicro": "v_micro",
    "xi": "v_micro",
    "v_sin_i": "vsini",
    "s_n": "snr",
    "sn": "snr",
    "velocity_km_s": "rv",
    "resolution": "resolving_power or fwhm",
}
"""Other people's names for our things: they may stand in strings (column names of surveys), never as our identifiers."""


def identifiers() -> dict[str, str]:
    """Names of arguments, fields and functions of the package, each with a file it stands in."""
    found: dict[str, str] = {}
    for path in Path(maury.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg):
                found[node.arg] = path.name
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = path.name
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = path.name
    return found


def test_no_argument_or_field_has_a_foreign_name() -> None:
    wrong = {name: (file, NOT_OURS[name]) for name, file in identifiers().items() if name.lower() in NOT_OURS}
    assert not wrong


def test_every_public_word_is_in_the_glossary() -> None:
    words = [*KNOWN_LABELS, *STANDARD_META, *STEPS, *(s.value for s in FitStatus)]
    words += [bit.name or "" for bit in (*ResultFlag, *PixelFlag)]
    words += [name for name in maury.__all__ if not name.startswith("__")]
    missing = [word for word in words if not re.search(rf"`{re.escape(word)}`", GLOSSARY)]
    assert not missing
