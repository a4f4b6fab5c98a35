"""One process at a time in a work folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maury.errors import UsageError
from maury.files import written

LOCK = "lock"
"""Name of the file that is locked; whoever deletes the folder deletes it last."""


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """A lock on a folder that the system releases when the process ends, however it ends; ``what`` is done there, in a word.

    Raises
    ------
    UsageError
        If another process holds it, or just ended and takes the folder away, or the folder cannot be locked.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two processes with one output are the user's to avoid
        yield
        return
    file = folder / LOCK
    with written(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(folder, what) from None
        except OSError as failure:
            raise UsageError(
                f"expected a disk on which {file} can be locked, got {failure.strerror or failure}; choose an output on another"
            ) from failure
        if not _is_still(file, descriptor):  # its last owner deleted it between our two calls: a lock that nobody else sees
            raise _busy(folder, what)
        yield
    finally:
        os.close(descriptor)


def _busy(folder: Path, what: str) -> UsageError:
    return UsageError(f"expected {folder} to be free, got another {what} at work in it; wait for its end")


def _is_still(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False
