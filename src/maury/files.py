"""Writing a file so that a reader never meets half of it, and JSON of one form; for models, catalogues and figures alike."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import MauryError, UsageError


@contextmanager
def replacing(path: str | os.PathLike[str], error: type[MauryError], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; move it into place if the block succeeds, else remove it.

    The temporary name lies in the same folder (a move within one file system is atomic) and keeps the extension,
    by which astropy and matplotlib choose the format. A symbolic link is written through, not replaced.

    Parameters
    ----------
    path : where the file is to be.
    error : the :class:`~maury.errors.MauryError` to raise instead of an ``OSError``.
    overwrite : False refuses a path that exists.

    Raises
    ------
    MauryError
        Of type ``error``: the path is a folder, exists and may not be overwritten, or cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise error(f"expected the name of a file to write, got the folder {path}; add a file name")
    if not target.parent.is_dir():
        raise error(f"expected an existing folder for {path}, got none; make the folder first")
    if target.exists() and not overwrite:
        raise error(f"expected a new file, got {path}, which exists; choose another name or allow overwriting")
    temporary = target.parent / f".{target.stem[:80]}.{uuid.uuid4().hex[:12]}{target.suffix}"
    try:
        with written(path, error):
            yield temporary
            _flush_to_disk(temporary)
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written(path: str | os.PathLike[str], error: type[MauryError] = UsageError) -> Iterator[None]:
    """Whatever the system refuses inside becomes one sentence: ``path`` cannot be written, and why.

    Raises
    ------
    MauryError
        Of type ``error``, instead of an ``OSError``.
    """
    try:
        yield
    except OSError as failure:
        raise error(
            f"expected to write {path}, got {failure.strerror or failure}; check space and permissions there"
        ) from failure


def size_text(n_bytes: float) -> str:
    """``6.2 MB``: three digits and a unit of powers of 1000."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes:.0f} B"


def canonical_json(value: object, what: str) -> str:
    """JSON of one form only, so that equal contents have equal text: sorted keys, ASCII, no NaN (which is not JSON).

    numpy numbers and arrays become numbers and lists, paths become text.

    Raises
    ------
    UsageError
        If the value holds anything else, NaN or infinity; ``what`` names it in the sentence.
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as failure:
        raise UsageError(f"expected plain, finite JSON values in {what}, got {one_line(failure)}; convert them") from None


def one_line(failure: BaseException) -> str:
    """The text of another library's exception, fit to stand inside a sentence."""
    return " ".join(str(failure).split()) or type(failure).__name__


def _plain(value: object) -> object:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def _flush_to_disk(path: Path) -> None:
    """Without this a power cut may leave the new name pointing at an empty file."""
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


def part_of(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays of a model file whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
