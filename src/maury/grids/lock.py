"""One process at a time in a work folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maury.errors import UsageError


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """A lock on a folder that the system releases when the process ends, however it ends; ``what`` is done there, in a word.

    Raises
    ------
    UsageError
        If another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two processes with one output are the user's to avoid
        yield
        return
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(f"expected {folder} to be free, got another {what} at work in it; wait for its end") from None
    try:
        yield
    finally:
        os.close(descriptor)
