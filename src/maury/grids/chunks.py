"""A long computation in chunks over processes that survives being killed: finished chunks are files, moved into place whole.

``OUTPUT.building/`` lies beside the output and holds ``plan.json`` (what is being made), ``labels.npy`` (a row for each item) and
``chunks/000012.npz``. A chunk depends on nothing but the plan and its own rows, so a run that is killed and started again ends
with the same chunks as one that was left alone, whatever the number of processes. One process at a time works in the folder.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.files import canonical_json, one_line, replacing, written
from maury.grids.lock import LOCK, alone_in

_CHUNKS, _PLAN = "chunks", "plan.json"
_MOST_NAMED = 4  # entries of a plan, in an error

Arrays = dict[str, NDArray[Any]]
Make = Callable[[int, NDArray[np.float64]], Arrays]
"""(number of the first row, (m, K) labels) -> arrays of the chunk."""


class Job(Protocol):
    """What is computed; pickled to every process (a frozen dataclass of settings, not of data)."""

    def open(self) -> Make:
        """Open files and the like, once per process."""
        ...


@dataclass(frozen=True)
class ChunkFolder:
    """The chunks of one build; made by :func:`chunk_folder`.

    Parameters
    ----------
    path : the work folder.
    n_rows : number of items in all.
    rows_per_chunk : number of items in each chunk but the last.
    """

    path: Path
    n_rows: int
    rows_per_chunk: int

    @property
    def n_chunks(self) -> int:
        return -(-self.n_rows // self.rows_per_chunk)

    def missing(self) -> list[int]:
        """Numbers of the chunks that are still to be made."""
        return [number for number in range(self.n_chunks) if not self._file(number).is_file()]

    def rows(self, number: int) -> slice:
        """Which items a chunk holds."""
        return slice(number * self.rows_per_chunk, min((number + 1) * self.rows_per_chunk, self.n_rows))

    def labels(self) -> NDArray[np.float64]:
        """(n_rows, K), read from disk as needed."""
        return np.asarray(np.load(self.path / "labels.npy", mmap_mode="r", allow_pickle=False))

    def make(self, number: int, make: Make) -> None:
        """Compute a chunk and put it in its place."""
        rows = self.rows(number)
        arrays: dict[str, Any] = make(rows.start, np.array(self.labels()[rows]))
        with replacing(self._file(number), UsageError) as temporary:
            np.savez(temporary, **arrays)

    def load(self, number: int, names: tuple[str, ...] | None = None) -> Arrays:
        """Some arrays of a chunk, or all.

        Raises
        ------
        UsageError
            If the file is damaged.
        """
        try:
            with np.load(self._file(number), allow_pickle=False) as stored:
                return {name: stored[name] for name in names or stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise UsageError(
                f"expected a whole chunk in {self._file(number)}, got a damaged file; delete it and repeat the command"
            ) from None

    def remove(self) -> None:
        """Delete the folder: its chunks are in the output.

        The plan goes after the chunks it vouches for, and the lock last: who comes then finds an empty folder, or none.
        """
        with suppress(OSError):
            for item in [item for item in self.path.iterdir() if item.name not in (_PLAN, LOCK)]:
                if item.is_dir():
                    shutil.rmtree(item)
                else:
                    item.unlink()
            for name in (_PLAN, LOCK):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()  # fails if another process has just begun in it, as it should

    def _file(self, number: int) -> Path:
        return self.path / _CHUNKS / f"{number:06d}.npz"


def chunk_path(output: Path) -> Path:
    """The work folder of an output, beside it."""
    return output.with_name(output.name + ".building")


@contextmanager
def chunk_folder(
    output: Path, plan: Mapping[str, Any], labels: NDArray[np.float64], rows_per_chunk: int
) -> Iterator[ChunkFolder]:
    """Open the work folder of an output, for this process alone.

    Parameters
    ----------
    plan : plain JSON of everything that the chunks depend on.
    labels : (n_rows, K), one row for each item.

    Raises
    ------
    UsageError
        If the folder cannot be written, is of another plan, or another process works in it.
    """
    folder = ChunkFolder(chunk_path(output), len(labels), rows_per_chunk)
    _make_folder(folder.path)
    with alone_in(folder.path, "build"):
        _make_folder(folder.path / _CHUNKS)
        _check_plan(folder.path / _PLAN, {**plan, "rows_per_chunk": rows_per_chunk})
        with replacing(folder.path / "labels.npy", UsageError) as temporary:
            np.save(temporary, labels)
        yield folder


def _make_folder(path: Path) -> None:
    with written(path):
        path.mkdir(exist_ok=True)


def _check_plan(file: Path, plan: Mapping[str, Any]) -> None:
    """Store the plan; chunks of another one raise UsageError, chunks without one go: nobody can say what they are of."""
    text = canonical_json(dict(plan), "the plan of a build")
    found = _text(file)
    chunks = list((file.parent / _CHUNKS).glob("[0-9]*.npz"))
    if found is None:
        for chunk in chunks:
            chunk.unlink(missing_ok=True)
    elif found != text and chunks:  # without any, nothing is lost by starting over
        raise UsageError(
            f"expected {file.parent} to belong to this build, got one that differs in {_difference(found, text)}; delete the "
            "folder, or repeat the command it was made by"
        )
    with replacing(file, UsageError) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as failure:
        raise UsageError(f"expected to read {file}, got {one_line(failure)}; delete its folder and repeat the command") from None


def _difference(found: str, text: str) -> str:
    """The entries in which two plans differ, in words: those of the recipe, and others only where those are equal."""
    try:
        differing = list(_differing(json.loads(found), json.loads(text)))
    except ValueError:
        return "form"
    of_recipe = [name.removeprefix("recipe.") for name in differing if name.startswith("recipe.")]
    names = of_recipe or differing
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _differing(one: object, other: object, place: str = "") -> Iterator[str]:
    """Dotted names of the entries in which two trees of dictionaries differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from _differing(one.get(key), other.get(key), f"{place}.{key}" if place else key)
    elif one != other:
        yield place or "form"


# -- over processes -----------------------------------------------------------------------------------------------------------


def make_chunks(folder: ChunkFolder, job: Job, processes: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
    """Make the chunks that are missing; ``progress`` is called with (items done, items in all).

    Each process has one thread of the matrix library to itself. Ctrl-C ends when the chunks under way are done; those stay.

    Raises
    ------
    MauryError
        What the job raises, or that a process ended by itself.
    """
    missing = folder.missing()
    done = folder.n_rows - sum(_length(folder.rows(number)) for number in missing)

    def made(number: int) -> None:
        nonlocal done
        done += _length(folder.rows(number))
        if progress is not None:
            progress(done, folder.n_rows)

    if progress is not None:
        progress(done, folder.n_rows)
    if processes > 1 and len(missing) > 1:
        _in_processes(folder, job, min(processes, len(missing)), missing, made)
        return
    with _one_thread():
        make = job.open() if missing else None
        for number in missing:
            assert make is not None
            folder.make(number, make)
            made(number)


def _one_thread() -> Any:
    """One thread of numpy's and scipy's matrix libraries, from now on or for a ``with``; they are two."""
    import scipy.linalg  # noqa: F401  what is loaded later would not be limited
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _in_processes(folder: ChunkFolder, job: Job, processes: int, missing: list[int], made: Callable[[int], None]) -> None:
    # spawn: forked processes share the locks of whatever threads (zarr's, torch's) the parent had at that moment
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(folder, job))
    try:
        with _interrupts_held():
            futures: dict[Future[None], int] = {pool.submit(_make, number): number for number in missing}
        for future in as_completed(futures):
            future.result()
            made(futures[future])
    except BrokenProcessPool:
        raise UsageError(
            "expected worker processes that finish, got one that ended by itself (out of memory?); repeat the command with fewer "
            "processes: it goes on where it was"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C (they inherit this); the parent sees it at the end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: dict[str, Callable[[int], None]] = {}
"""What a worker process keeps from one chunk to the next."""


def _start(folder: ChunkFolder, job: Job) -> None:
    """In every worker: one thread of the matrix libraries, no life without the parent, and the job's files open."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _one_thread()
    make = job.open()
    _worker["make"] = lambda number: folder.make(number, make)


def _end_with_parent() -> None:
    """A killed parent says nothing, and a worker waiting for work would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(number: int) -> None:
    _worker["make"](number)
