"""PHOENIX spectra from their archive into one grid: only the files of the wanted nodes, cropped on the way.

A node that the archive lacks is a hole of the grid, with its name and reason, like one whose file is damaged there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import MauryError, UsageError
from maury.grids.archive import Archive, FetchError, MissingFileError, Original, Patience, StoppedError
from maury.grids.download_plan import DownloadPlan
from maury.grids.originals import DamagedError, Originals
from maury.grids.phoenix import WAVE_PATH, PhoenixNode, phoenix_grid, read_flux, read_wavelength
from maury.grids.store import is_stored_grid, read_provenance, write_grid
from maury.grids.training_set import check_output as check_name
from maury.grids.work_folder import Row, WorkFolder, work_folder, work_path

Progress = Callable[[int, int, int], None]
"""Told (spectra done, spectra in all, bytes fetched) as a download goes on; called from its threads, one at a time."""

_DOWNLOAD = "download"  # entry of a grid's provenance
_GIVE_UP = 8  # files in a row that could not be had: the archive, or the line to it, is down


@dataclass(frozen=True)
class Hole:
    """A node without a spectrum: its file in the archive and the reason.

    Parameters
    ----------
    file : name of the node's file.
    reason : a few words.
    again : whether another run may bring it: the archive did not say that it lacks the file.
    """

    file: str
    reason: str
    again: bool


@dataclass(frozen=True)
class DownloadResult:
    """What a download brought.

    Parameters
    ----------
    n_spectra : nodes with a spectrum.
    n_kept : those of them that an earlier, killed run had brought already.
    n_bytes : bytes fetched by this run.
    holes : the other nodes.
    """

    n_spectra: int
    n_kept: int
    n_bytes: int
    holes: tuple[Hole, ...]


@dataclass(eq=False)
class _Tally:
    """Counts what all threads do."""

    n_nodes: int
    progress: Progress | None
    done: int = 0
    n_bytes: int = 0
    _lock: Lock = field(default_factory=Lock)

    def count(self, n_bytes: int = 0, done: int = 0) -> None:
        with self._lock:
            self.done += done
            self.n_bytes += n_bytes
            if self.progress is not None:
                self.progress(self.done, self.n_nodes, self.n_bytes)


def download_phoenix(
    plan: DownloadPlan,
    output: Path,
    *,
    jobs: int = 4,
    keep: Path | None = None,
    overwrite: bool = False,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> DownloadResult:
    """Fetch the nodes of a plan and write them as a grid.

    A run that was killed goes on where it was when it is started again, and ends with the same grid as an undisturbed one. Where
    files could not be had for another reason than that the archive lacks them, the grid is written with these holes and the work
    folder stays: the same call tries them once more.

    Parameters
    ----------
    plan : what to fetch.
    output : the grid to write, ending in ``.zarr`` or ``.npz``; the work folder ``output.download`` lies beside it meanwhile.
    jobs : files at once.
    keep : folder in which the originals stay, laid out as the archive; those that are there already are not fetched again.
    overwrite : replace an output that is another grid.
    patience : how long to try.
    progress : called as it goes on.

    Returns
    -------
    DownloadResult, with all holes.

    Raises
    ------
    FetchError
        If the archive does not answer, or no longer.
    UsageError
        If the output is another grid or cannot be written, no pixel lies in the wavelength range, or no node has a spectrum.
    """
    if jobs < 1:
        raise UsageError(f"expected at least one file at once, got --jobs {jobs}; give 1 or more")
    found = check_output(plan, output, overwrite=overwrite)
    if found is not None:
        return found
    tally = _Tally(len(plan.nodes), progress)
    archive = Archive(plan.archive, patience or Patience())
    with work_folder(output, plan.request()) as work:
        originals = Originals(archive, work, keep, tally.count)
        wavelengths = _fetch_wavelength(originals, plan)
        kept, holes = _fetch_nodes(originals, wavelengths, plan.nodes, jobs, tally)
        n_spectra = len(plan.nodes) - len(holes)
        if not n_spectra:
            raise UsageError(
                f"expected spectra of {len(plan.nodes)} nodes in {plan.archive}, got none (the first: {holes[0].reason}); check "
                "the ranges and --archive"
            )
        _write(plan, output, work, wavelengths, holes)
        if not any(hole.again for hole in holes):
            work.remove()
    return DownloadResult(n_spectra, kept, tally.n_bytes, holes)


@dataclass(frozen=True, eq=False)
class _Wavelengths:
    """The wavelengths that are kept, which pixels they are of how many, and the file they come from."""

    wavelength: NDArray[np.float64]
    pixels: slice
    n_all: int
    original: Original


def _fetch_wavelength(originals: Originals, plan: DownloadPlan) -> _Wavelengths:
    keep = originals.keep or originals.work.path / "originals"  # needed again after a kill
    try:
        wavelength, original = replace(originals, keep=keep).read(WAVE_PATH, read_wavelength)
    except DamagedError as failure:
        raise FetchError(f"expected wavelengths from {plan.archive}, got: {failure}; check --archive") from None
    start, stop = plan.wavelength
    first, last = np.searchsorted(wavelength, start), np.searchsorted(wavelength, stop, side="right")
    if last <= first:
        raise UsageError(
            f"expected --wavelength within {wavelength[0]:g} to {wavelength[-1]:g} Å, those of the library, got {start:g} to "
            f"{stop:g}; change it"
        )
    return _Wavelengths(wavelength[first:last].copy(), slice(int(first), int(last)), len(wavelength), original)


def _fetch_nodes(
    originals: Originals, wavelengths: _Wavelengths, nodes: tuple[PhoenixNode, ...], jobs: int, tally: _Tally
) -> tuple[int, tuple[Hole, ...]]:
    """All nodes as rows in the work folder, several at once: how many were there already, and the holes in order."""
    missing = [node for node in nodes if originals.work.load(node.path, len(wavelengths.wavelength)) is None]
    kept = len(nodes) - len(missing)
    tally.count(done=kept)
    holes: dict[PhoenixNode, Hole] = {}
    in_a_row = 0
    with ThreadPoolExecutor(jobs, thread_name_prefix="download") as pool:
        futures = {pool.submit(_fetch_node, originals, wavelengths, node): node for node in missing}
        try:
            for future in as_completed(futures):
                hole = future.result()
                tally.count(done=1)
                if hole is None:
                    in_a_row = 0
                    continue
                holes[futures[future]] = hole
                in_a_row = in_a_row + 1 if hole.again else 0
                if in_a_row >= _GIVE_UP:
                    raise FetchError(f"{hole.reason}; {in_a_row} files in a row failed: start again to go on from here")
        except BaseException:
            originals.archive.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return kept, tuple(holes[node] for node in nodes if node in holes)


def _fetch_node(originals: Originals, wavelengths: _Wavelengths, node: PhoenixNode) -> Hole | None:
    """One node to the work folder, or why not."""
    name = node.path

    def read(path: Path) -> NDArray[np.float32]:
        return read_flux(path, wavelengths.n_all)[wavelengths.pixels]

    try:
        flux, original = originals.read(name, read)
    except MissingFileError:
        return Hole(Path(name).name, "not in the archive", again=False)
    except StoppedError:
        raise
    except DamagedError as failure:
        return Hole(Path(name).name, f"damaged in the archive: {failure}", again=True)
    except FetchError as failure:
        return Hole(Path(name).name, str(failure), again=True)
    originals.work.save(name, Row(flux, original))
    return None


def _write(plan: DownloadPlan, output: Path, work: WorkFolder, wavelengths: _Wavelengths, holes: tuple[Hole, ...]) -> None:
    """The grid of all rows, with where each came from; no date, so that the same files give the same bytes."""
    originals = {}
    for node in plan.nodes:
        row = work.load(node.path, len(wavelengths.wavelength))
        if row is not None:
            originals[node] = {"size": row.original.size, "sha256": row.original.sha256}
    provenance = {
        _DOWNLOAD: plan.identity(),
        "wavelength_file": {"file": WAVE_PATH, "size": wavelengths.original.size, "sha256": wavelengths.original.sha256},
        "originals": {node.path: original for node, original in originals.items()},
        "holes": {hole.file: hole.reason for hole in holes},
    }
    rows = _WorkRows(work, tuple(node.path for node in originals), len(wavelengths.wavelength))
    values = np.array([astuple(node) for node in originals])
    write_grid(output, phoenix_grid(values, wavelengths.wavelength, rows, output.name, **provenance), work.scratch)


@dataclass(frozen=True, eq=False)
class _WorkRows:
    """Flux as it lies in the work folder (see :class:`~maury.grids.grid.FluxRows`): no more in memory than is asked for."""

    work: WorkFolder
    names: tuple[str, ...]
    n_pixels: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.names), self.n_pixels

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def n_bytes(self) -> int:
        return 4 * self.n_pixels * len(self.names)

    def read(self, rows: NDArray[np.int64], pixels: slice) -> NDArray[Any]:
        found = [self.work.load(self.names[row], self.n_pixels) for row in rows]
        flux = [row.flux[pixels] for row in found if row is not None]
        assert len(flux) == len(rows)  # they were there a moment ago, and the folder is ours alone
        return np.array(flux)


def check_output(plan: DownloadPlan, output: Path, *, overwrite: bool = False) -> DownloadResult | None:
    """Whether a plan's output may be written, and the result of an earlier run if it is the same grid and whole.

    Raises
    ------
    UsageError
        If it is another grid and may not be overwritten, or no grid at all, which is never overwritten; if its name does not end
        in ``.zarr`` or ``.npz``, its folder is not there, or zarr is needed and not installed.
    """
    there = os.path.exists(output)  # Path.exists raises where the folder may not be looked into
    if not there or is_stored_grid(output):
        check_name(output)  # now, and not when thousands of files have been fetched
    if not there:
        return None
    try:
        provenance = read_provenance(output)
    except MauryError:
        raise UsageError(f"expected a new output, got {output}, which is no grid of this program; name another one") from None
    if overwrite:
        return None
    if provenance.get(_DOWNLOAD) != plan.identity():
        raise UsageError(f"expected a new output, got {output}, which is another grid; name another one or add --overwrite")
    if work_path(output).is_dir():
        return None  # an earlier run left holes that another may fill
    holes = tuple(Hole(file, reason, again=False) for file, reason in provenance["holes"].items())
    n_spectra = len(provenance["originals"])
    return DownloadResult(n_spectra, n_spectra, 0, holes)
