"""What a download has so far: one small file per spectrum beside the output, so that a kill costs at most the pieces under way.

``grid.zarr.download/`` holds ``request.json`` (what all rows share), ``rows/NAME.npz`` (a cropped spectrum with size and SHA-256
of its original) and ``parts/`` (originals that are not whole yet). A row is written to a temporary name and moved, so it is whole
or absent; one process at a time works in the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.files import canonical_json, replacing, written
from maury.grids.archive import Original
from maury.grids.lock import LOCK, alone_in

_REQUEST = "request.json"
_ROOMS = ("rows", "parts", "originals", "scratch")
_OURS = {_REQUEST, LOCK, *_ROOMS}  # a folder with anything else in it is not ours to delete


@dataclass(frozen=True, eq=False)
class Row:
    """One spectrum.

    Parameters
    ----------
    flux : (n_pixels,), cropped, as stored in the original.
    original : size and hash of the file it was cropped from.
    """

    flux: NDArray[np.float32]
    original: Original


@dataclass(frozen=True)
class WorkFolder:
    """Rows and parts of one download; made by :func:`work_folder`."""

    path: Path

    @property
    def scratch(self) -> Path:
        """Where the output may be put together."""
        return self.path / "scratch"

    def part(self, name: str) -> Path:
        """Where an original that is being fetched lies."""
        return self.path / "parts" / Path(name).name

    def load(self, name: str, n_pixels: int) -> Row | None:
        """The row of an original; None if it is not there, or is no row of so many pixels."""
        try:
            with np.load(self._row(name), allow_pickle=False) as stored:
                row = Row(stored["flux"], Original(int(stored["size"]), str(stored["sha256"])))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return row if row.flux.shape == (n_pixels,) else None

    def save(self, name: str, row: Row) -> None:
        """Keep a row.

        Raises
        ------
        UsageError
            If it cannot be written.
        """
        with replacing(self._row(name), UsageError) as temporary:
            np.savez(temporary, flux=row.flux, size=row.original.size, sha256=row.original.sha256)

    def remove(self) -> None:
        """Delete what is in the folder, for it is in the output; the folder itself goes when it is closed."""
        for room in _ROOMS:
            shutil.rmtree(self.path / room, ignore_errors=True)

    def close(self) -> None:
        """Delete the folder if nothing in it is to go on from: the lock last, so that who comes then finds no half of it."""
        if any(self.path.glob("rows/*")) or any(self.path.glob("parts/*")):
            return
        self.remove()
        with suppress(OSError):
            for file in (*self.path.glob(".request.*"), self.path / _REQUEST, self.path / LOCK):
                file.unlink(missing_ok=True)
            self.path.rmdir()  # fails if another process has just begun in it, as it should

    def _row(self, name: str) -> Path:
        return self.path / "rows" / f"{Path(name).name}.npz"


def work_path(output: Path) -> Path:
    """The work folder of an output, beside it."""
    return output.with_name(output.name + ".download")


@contextmanager
def work_folder(output: Path, request: Mapping[str, Any]) -> Iterator[WorkFolder]:
    """Open the work folder of an output, for this process alone.

    Parameters
    ----------
    output : the file or folder that is to be.
    request : plain JSON of what all rows share (archive, wavelength range); rows of another request are not taken for ours.

    Raises
    ------
    UsageError
        If the folder cannot be written, is of another request, holds what is not ours, or another process works in it.
    """
    folder = WorkFolder(work_path(output))
    if not os.path.exists(output.absolute().parent):
        raise UsageError(f"expected an existing folder for {output}, got none; make the folder first")
    with written(folder.path):
        strange = sorted(set(os.listdir(folder.path)) - _OURS) if os.path.isdir(folder.path) else []
        strange = [name for name in strange if not name.startswith(".request.")]  # what a kill left of writing the request
        if strange:
            raise UsageError(
                f"expected {folder.path} to be free for the work of this download, got a folder with {strange[0]!r} in it; "
                "move it or choose another output"
            )
        folder.path.mkdir(exist_ok=True)
    with alone_in(folder.path, "download"):
        with written(folder.path):
            for room in ("rows", "parts"):
                (folder.path / room).mkdir(exist_ok=True)
        _check_request(folder.path, request)
        try:
            yield folder
        finally:
            folder.close()


def _check_request(path: Path, request: Mapping[str, Any]) -> None:
    text = canonical_json(dict(request), "a download request")
    file = path / _REQUEST
    found = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    if found != text and (found or any(path.glob("rows/*"))):  # rows of an unknown request are not ours either
        changed = _difference(found, request)
        raise UsageError(
            f"expected {path} to belong to this download, got one of another {changed}; repeat that command or delete it"
        )
    with replacing(file, UsageError) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _difference(found: str, request: Mapping[str, Any]) -> str:
    """The entries in which two requests differ, in words."""
    try:
        other = json.loads(found)
        changed = [f"{key} ({other.get(key)})" for key in request if other.get(key) != request[key]]
    except (ValueError, AttributeError):
        changed = []
    return " and ".join(changed) or "form"
