"""Reading one file and reading many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from maury.errors import ReadError, UsageError
from maury.read._common import Options, with_tables
from maury.read._source import open_source
from maury.read.registry import Format, format_named, recognise
from maury.spectra import Frame, Medium, Spectra

PathLike = str | os.PathLike[str]
_CHUNK = 64
UNEXPECTED = "expected a well-formed file, got content that this reader cannot take"


@dataclass(frozen=True)
class ReadFailure:
    """A file that could not be read, and why, in one sentence."""

    file: str
    reason: str


@dataclass(frozen=True, eq=False)
class ReadResult:
    """What :func:`read_files` brings.

    Parameters
    ----------
    spectra : in the order of the files; a file of several grids gives several.
    failures : the files that could not be read, each with its reason.
    files : for each entry of ``spectra`` the path it came from, as it was given.
    """

    spectra: list[Spectra]
    failures: list[ReadFailure]
    files: list[str]


def read_file(
    path: PathLike,
    format: str | None = None,
    *,
    medium: Medium | None = None,
    snr: float | None = None,
    frame: Frame | None = None,
) -> list[Spectra]:
    """Read all spectra of one file.

    Parameters
    ----------
    path : the file; FITS (also .gz), CSV, ECSV or VOTable.
    format : a key of :data:`~maury.read.FORMATS`; by default it is recognised from the content.
    medium : "air" or "vacuum" for files that do not say which; where the file or its survey says it, that counts.
    snr : S/N per pixel to assume for files without errors.
    frame : "rest" or "observed" for files that do not say which ("observed" otherwise).

    Returns
    -------
    One Spectra per wavelength grid in the file.

    Raises
    ------
    ReadError
        If the file cannot be read; the sentence says what was expected, what came and what to do.
    UsageError
        If ``format``, ``medium``, ``snr`` or ``frame`` is not one that can be.
    """
    options = Options(medium, snr, frame)
    entry = format_named(format)
    try:
        return with_tables(_read(path, entry, options))
    except ReadError as error:
        raise ReadError(f"{Path(path).name or path}: {error}") from error


def read_files(
    paths: Sequence[PathLike],
    format: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    *,
    medium: Medium | None = None,
    snr: float | None = None,
    frame: Frame | None = None,
) -> ReadResult:
    """Read many files; one that cannot be read becomes a failure and stops no other.

    Parameters
    ----------
    paths : the files, no globs; spectra come back in this order.
    format, medium, snr, frame : as for :func:`read_file`, for all files.
    progress : called with (files done, files in all) after every file.
    workers : number of processes; None means one. More pay off from about a thousand files on (each process starts in
        about a second), and the calling script needs its ``if __name__ == "__main__":``.

    Returns
    -------
    ReadResult

    Raises
    ------
    UsageError
        If an option is not one that can be; never for a file.
    """
    options = Options(medium, snr, frame)
    entry = format_named(format)
    if workers is not None and workers < 1:
        raise UsageError(f"expected at least one worker, got {workers}; give a positive number or None")
    chunks = [list(paths[i : i + _CHUNK]) for i in range(0, len(paths), _CHUNK)]
    spectra: list[Spectra] = []
    failures: list[ReadFailure] = []
    files: list[str] = []
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(paths))

    for outcome in _outcomes(chunks, entry, options, workers or 1, step):
        for path, result in outcome:
            if isinstance(result, str):
                failures.append(ReadFailure(path, result))
            else:
                spectra.extend(result)
                files.extend([path] * len(result))
    return ReadResult(with_tables(spectra), failures, files)


Outcome = list[tuple[str, list[Spectra] | str]]


def _outcomes(
    chunks: list[list[PathLike]], entry: Format | None, options: Options, workers: int, step: Callable[[], None]
) -> Iterator[Outcome]:
    """What became of each chunk of files, in order."""
    if workers == 1 or len(chunks) < 2:
        yield from (_read_chunk(chunk, entry, options, step) for chunk in chunks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # spawn: a forked copy of a process that runs threads (torch, BLAS) may hang
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=multiprocessing.get_context("spawn")) as pool:
        for outcome in pool.map(partial(_read_chunk, entry=entry, options=options), chunks):
            for _ in outcome:
                step()
            yield outcome


def _read_chunk(chunk: list[PathLike], entry: Format | None, options: Options, step: Callable[[], None] | None = None) -> Outcome:
    outcome: Outcome = []
    for path in chunk:
        try:
            outcome.append((os.fspath(path), _read(path, entry, options)))
        except ReadError as error:
            outcome.append((os.fspath(path), str(error)))
        if step is not None:
            step()
    return outcome


def _read(path: PathLike, entry: Format | None, options: Options) -> list[Spectra]:
    try:
        source = open_source(path)
        chosen = recognise(source) if entry is None else entry
        return chosen.read(replace(source, format=chosen.name), options)
    except ReadError:
        raise
    except UsageError as error:
        raise ReadError(str(error)) from error
    except Exception as error:
        # The door: whatever a damaged file provokes must not stop a night's reduction. The hostile-input test holds
        # that this sentence is never needed.
        raise ReadError(f"{UNEXPECTED} ({type(error).__name__}: {error}); if the file is sound, report it") from error
