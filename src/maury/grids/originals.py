"""Files of an archive, read once they are whole, and then kept or deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from maury.errors import ReadError, UsageError
from maury.files import replacing
from maury.grids.archive import Archive, Count, FetchError, Original, original_of
from maury.grids.work_folder import WorkFolder

_T = TypeVar("_T")
_WHOLE_TRIES = 3  # times that a file is fetched which arrives whole but cannot be read


class DamagedError(FetchError):
    """The archive's file arrives whole and cannot be read."""


@dataclass(frozen=True)
class Originals:
    """Originals of one archive, read when they are whole and kept or deleted then."""

    archive: Archive
    work: WorkFolder
    keep: Path | None
    count: Count

    def read(self, name: str, read: Callable[[Path], _T]) -> tuple[_T, Original]:
        """Fetch the file ``name`` and read it; a file that cannot be read is fetched again while its bytes change.

        Raises
        ------
        FetchError
            If it cannot be had; :class:`DamagedError` if it can, but not be read.
        """
        kept = None if self.keep is None else self.keep / name
        if kept is not None and kept.is_file():
            try:
                return read(kept), original_of(kept)
            except ReadError:
                pass  # fetched anew and replaced
        part, seen, reason = self.work.part(name), "", ""
        for _ in range(_WHOLE_TRIES):
            original = self.archive.fetch(name, part, self.count)
            try:
                value = read(part)
            except ReadError as failure:
                part.unlink()
                reason = str(failure)
                if original.sha256 == seen:
                    break  # twice the same bytes: so it is in the archive
                seen = original.sha256
                continue
            if kept is not None:
                _copy(part, kept)
            part.unlink()
            return value, original
        raise DamagedError(reason)


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        reason = failure.strerror or failure
        raise UsageError(f"expected to write {target.parent}, got {reason}; name another --keep") from failure
    with replacing(target, UsageError) as temporary:
        shutil.copyfile(source, temporary)
