"""Which command, versions and time made a file."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from maury import __version__

_PACKAGES = ("numpy", "scipy", "astropy", "safetensors", "pyarrow", "torch")


def run_provenance(command: Sequence[str] | None = None, **entries: Any) -> dict[str, Any]:
    """Provenance of what is being made now; plain JSON values.

    Parameters
    ----------
    command : the command line as a list of words; default ``sys.argv``.
    **entries : further entries, for example ``recipe_fingerprint="1f3a..."``; None is left out.

    Returns
    -------
    A dict with ``command``, ``date`` (UTC, ISO 8601), ``versions`` and the entries given.
    """
    words = list(sys.argv if command is None else command)
    if command is None and words:
        words[0] = words[0].rsplit("/", 1)[-1]  # the folder of the program says nothing about the result
    return {
        "command": shlex.join(words),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "versions": package_versions(),
        **{name: value for name, value in entries.items() if value is not None},
    }


def package_versions() -> dict[str, str]:
    """Versions from the packages' metadata: none of them is imported for it."""
    found = {"maury": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
