"""The folder of a sweep: prepared spectra of each window on disk, finished networks, and what is under way.

``sweep.json`` says of which recipe and data the folder is. ``data/WINDOW/`` holds the prepared spectra as numpy arrays that
processes map into memory, ``runs/NAME.json`` what came out of a network and ``runs/NAME.safetensors`` the network, ``state/NAME``
the checkpoints of one under way. All is moved into place whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import MauryError, RecipeError, UsageError
from maury.files import canonical_json, replacing, written
from maury.grids.lock import LOCK, alone_in
from maury.recipes.data_schema import PartRecipe
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.recipes.grid_schema import NearIsochronesRecipe, load_build_recipe
from maury.recipes.schema import Recipe
from maury.recipes.sweep_schema import WHOLE, SweepRecipe, window_steps
from maury.regress.noise import with_noise
from maury.spectra import Frame, Medium, Spectra, empty_meta

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Progress = Callable[[str, int, int], None]

TRAIN, SCREENING, REPORT = 0, 1, 2
"""What a star is for."""

_PLAN = "sweep.json"
_ROOMS = ("data", "runs", "state")
_OURS = (_PLAN, LOCK, *_ROOMS, "runs.csv", "runs.ecsv", "runs.png", "ensemble.safetensors")
_END_BYTES = 1 << 20  # of a file of the data, at either end, that its fingerprint is of
_FORM = 1  # of the folder; counts up when it changes


@dataclass(frozen=True, eq=False)
class WindowData:
    """Prepared spectra of one or several windows.

    Parameters
    ----------
    wavelength : (n_pixels,) Å.
    flux, ivar : (n, n_pixels), float32; mapped from disk.
    values : (n, K) labels, label units.
    stars : (n,) names: all spectra of a star are for the same purpose.
    purpose : (n,) TRAIN, SCREENING or REPORT.
    snr : (n,) of the spectra, NaN where unknown.
    medium, frame : of the wavelengths.
    """

    wavelength: FloatArray
    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]
    values: FloatArray
    stars: NDArray[np.str_]
    purpose: IntArray
    snr: FloatArray
    medium: Medium
    frame: Frame

    def rows(self, purpose: int) -> IntArray:
        """Spectra that are for this."""
        return np.flatnonzero(self.purpose == purpose)

    def spectra(self, rows: IntArray, preparation: str | None = None) -> Spectra:
        """Some of them, with the fingerprint of a preparation."""
        meta = empty_meta(len(rows))
        meta["snr"] = self.snr[rows]
        flux, ivar, ids = self.flux[rows], self.ivar[rows], np.array([str(row) for row in rows], dtype=np.str_)
        return Spectra(self.wavelength, flux, ivar, ids, self.medium, self.frame, meta, None, preparation)

    def held_out(self, purpose: int, snr: tuple[float, float] | None, seed: int, preparation: str | None = None) -> Spectra:
        """Those of a purpose with white noise of these ratios, as :func:`~maury.regress.noise.with_noise`; the same each time."""
        own = int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
        return with_noise(self.spectra(self.rows(purpose), preparation), snr, own)

    def cut(self, pixels: slice) -> WindowData:
        """Some pixels of all spectra."""
        return self._with(self.wavelength[pixels], self.flux[:, pixels], self.ivar[:, pixels])

    def _with(self, wavelength: FloatArray, flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> WindowData:
        rest = (self.values, self.stars, self.purpose, self.snr, self.medium, self.frame)
        return WindowData(wavelength, flux, ivar, *rest)

    @staticmethod
    def joined(parts: Sequence[WindowData], keep: IntArray | None = None) -> WindowData:
        """The spectra that are in all windows, pixels of one window after those of another.

        Parameters
        ----------
        keep : of those that all windows share, the rows that are wanted; None: all.

        Raises
        ------
        RecipeError
            If there are none.
        """
        first = parts[0]
        if len(parts) == 1 and keep is None:
            return first
        keys = [_keys(part) for part in parts]
        common = [key for key in keys[0] if all(key in other for other in keys[1:])]
        if not common:
            raise RecipeError("expected spectra that all windows share, got none; check the data")
        wanted = common if keep is None else [common[row] for row in keep.tolist()]
        index = [np.array([key_rows[key] for key in wanted], dtype=np.int64) for key_rows in keys]

        def pixels(name: str) -> NDArray[np.float32]:
            return np.concatenate([getattr(part, name)[rows] for part, rows in zip(parts, index, strict=True)], axis=1)

        rows = index[0]
        own = (first.values[rows], first.stars[rows], first.purpose[rows], first.snr[rows], first.medium, first.frame)
        return WindowData(np.concatenate([part.wavelength for part in parts]), pixels("flux"), pixels("ivar"), *own)


def _keys(data: WindowData) -> dict[tuple[str, bytes, int], int]:
    """Row by star, labels, and which of those that are equal in both."""
    found: dict[tuple[str, bytes, int], int] = {}
    count: dict[tuple[str, bytes], int] = {}
    for row, (star, values) in enumerate(zip(data.stars.tolist(), data.values, strict=True)):
        key = (star, values.tobytes())
        count[key] = count.get(key, -1) + 1
        found[*key, count[key]] = row
    return found


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep; made by :func:`sweep_folder`."""

    path: Path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def state(self, name: str) -> Path:
        """Where the training of this name keeps its state."""
        return self.path / "state" / name

    def window(self, name: str) -> WindowData:
        """A window's spectra, mapped from disk.

        Raises
        ------
        UsageError
            If they are not there or damaged.
        """
        folder = self.path / "data" / name
        try:
            flux, ivar = (np.load(folder / f"{kind}.npy", mmap_mode="r", allow_pickle=False) for kind in ("flux", "ivar"))
            with np.load(folder / "rows.npz", allow_pickle=False) as rows:
                parts = (rows["values"], rows["stars"], rows["purpose"], rows["snr"], str(rows["medium"]), str(rows["frame"]))
                return WindowData(rows["wavelength"], flux, ivar, *parts)  # type: ignore[arg-type]  # Spectra checks the words
        except (OSError, ValueError, KeyError, EOFError) as failure:
            raise UsageError(
                f"expected prepared spectra in {folder}, got {type(failure).__name__}; delete it and repeat the command"
            ) from None

    def prepare(self, recipe: Recipe, sweep: SweepRecipe, names: Sequence[str], data: Path, progress: Progress | None) -> None:
        """Read and prepare the windows that are not there yet.

        Raises
        ------
        RecipeError
            If the data do not fit the recipe, or too few stars are held out.
        """
        for name in names:
            folder = self.path / "data" / name
            if folder.is_dir():
                continue
            own = recipe if name == WHOLE else window_recipe(recipe, sweep, [name])
            work = self.state("building") / name  # its own: what a kill leaves of it is of no other window
            self._keep(folder, load_training_set(own, data, progress, work), sweep)
            shutil.rmtree(work, ignore_errors=True)

    def _keep(self, folder: Path, training_set: TrainingSet, sweep: SweepRecipe) -> None:
        spectra, stars = training_set.spectra, star_names(training_set)
        purpose = purposes(stars, sweep)
        counts = np.bincount(purpose, minlength=3)
        if counts.min() < 2:
            raise RecipeError(
                f"expected at least 2 spectra each for training, screening and report, got {', '.join(map(str, counts))}; "
                "add spectra or enlarge sweep.screening and sweep.report"
            )
        making = folder.with_name(f".{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        with written(folder):
            making.mkdir(parents=True)
            np.save(making / "flux.npy", spectra.flux.astype(np.float32))
            np.save(making / "ivar.npy", spectra.ivar.astype(np.float32))
            np.savez(
                making / "rows.npz",
                wavelength=spectra.wavelength,
                values=training_set.values,
                stars=stars,
                purpose=purpose,
                snr=np.ma.filled(np.ma.asarray(spectra.meta["snr"], dtype=np.float64), np.nan),
                medium=spectra.medium,
                frame=spectra.frame,
            )
            os.replace(making, folder)


def star_names(training_set: TrainingSet) -> NDArray[np.str_]:
    """(n,) names of the stars; a spectrum that is a star of its own is named by its labels, which all windows share."""
    if training_set.stars is not None:
        return np.array(training_set.stars, dtype=np.str_)
    both = zip(training_set.part, training_set.values.tolist(), strict=True)
    return np.array([f"{part}:{' '.join(f'{value:.12g}' for value in values)}" for part, values in both], dtype=np.str_)


def purposes(stars: NDArray[np.str_], sweep: SweepRecipe) -> IntArray:
    """(n,) TRAIN, SCREENING or REPORT, by a hash of the star's name: a star has the same purpose in all windows."""
    named, index = np.unique(stars, return_inverse=True)
    digests = (hashlib.sha256(f"{sweep.seed} {name}".encode()).digest()[:8] for name in named.tolist())
    place = np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.float64) / 2.0**64
    purpose = np.where(place < sweep.report, REPORT, np.where(place < sweep.report + sweep.screening, SCREENING, TRAIN))
    return np.asarray(purpose[index], dtype=np.int64)


def window_recipe(recipe: Recipe, sweep: SweepRecipe, names: Sequence[str]) -> Recipe:
    """The recipe with some windows of its sweep as the pixels of all preparations; builds follow a single one, if they are to."""
    spans = [span for window, span in zip(sweep.window, sweep.spans(), strict=True) if window.name in names]

    def changed(part: PartRecipe) -> dict[str, Any]:
        window = spans[0] if sweep.rebuild and part.build is not None and len(spans) == 1 else part.build_window
        return {"prepare": window_steps(part.prepare, spans), "build_window": window}

    data = recipe.data
    parts = tuple(part.model_copy(update=changed(part)) for part in data.parts)
    data = data.model_copy(update={"parts": parts} if parts else changed(data))
    return recipe.model_copy(update={"data": data, "prepare": window_steps(recipe.prepare, spans)})


# -- whose folder it is -------------------------------------------------------------------------------------------------------


@contextmanager
def sweep_folder(
    path: Path, recipe: Recipe, sweep: SweepRecipe, data: Path | None, *, fresh: bool = False
) -> Iterator[SweepFolder]:
    """Open the folder of a sweep, for this process alone.

    Parameters
    ----------
    data : folder with the recipe's files; None: do not look whether they are those that the folder was made from.
    fresh : delete what is in it first.

    Raises
    ------
    UsageError
        If the folder is of another recipe or other data, holds what is not ours, or another process works in it.
    """
    if not path.absolute().parent.is_dir():
        raise UsageError(f"expected an existing folder for {path}, got none; make the folder first")
    with written(path):
        strange = sorted(set(os.listdir(path)) - set(_OURS)) if path.is_dir() else []
        strange = [name for name in strange if not name.startswith(".")]  # what a kill left of writing
        if strange and not (path / _PLAN).is_file():
            raise UsageError(f"expected a folder of a sweep, got {path} with {strange[0]!r} in it; choose another output")
        path.mkdir(exist_ok=True)
    with alone_in(path, "sweep"):
        _drop_leftovers(path)
        if fresh:
            _clear(path)
        _check_plan(path, recipe, sweep, data)
        with written(path):
            for room in _ROOMS:
                (path / room).mkdir(exist_ok=True)
        yield SweepFolder(path.absolute())


def _clear(path: Path) -> None:
    """Delete the sweep. Rooms vanish whole, and the plan last: after a kill, what is still there is still of that plan."""
    with written(path):
        for name in _ROOMS:
            if (path / name).exists():
                os.replace(path / name, path / f".{name}.old")
                shutil.rmtree(path / f".{name}.old")
        for name in (*(name for name in _OURS if name not in (LOCK, _PLAN, *_ROOMS)), _PLAN):
            (path / name).unlink(missing_ok=True)


def _drop_leftovers(path: Path) -> None:
    """Delete what a kill left in the middle of writing or deleting."""
    with written(path):
        for folder in (*path.glob(".*.old"), *(path / "data").glob(".*.making")):
            shutil.rmtree(folder)
        for file in (path / "runs").glob(".*"):
            file.unlink(missing_ok=True)


def _holds_work(path: Path) -> bool:
    """Whether there are prepared spectra or networks."""
    return any(any((path / room).glob("[!.]*")) for room in ("data", "runs"))


def _check_plan(path: Path, recipe: Recipe, sweep: SweepRecipe, data: Path | None) -> None:
    """Store what the folder's spectra and networks depend on; refuse one of something else."""
    file = path / _PLAN
    plan: dict[str, Any] = {
        "form": _FORM,
        **recipe.model_dump(mode="json", include={"data", "label", "prepare"}),
        "train": recipe.train.cnn.model_dump(mode="json"),
        "sweep": sweep.model_dump(mode="json", include={"screening", "report", "seed", "rebuild"}),
        "windows": dict(zip(sweep.window_names, sweep.spans(), strict=False)),
        "files": None if data is None else [_file_print(path, data) for path in _sources(recipe, data)],
        "builds": None if data is None else _builds(recipe, data),
    }
    found = _found_plan(file)
    if data is None:
        if not found:
            raise UsageError(f"expected a sweep in {path}, got none; run it without --table first")
        plan |= {key: found.get(key) for key in ("files", "builds")}
    text = canonical_json(plan, "the plan of a sweep")
    # a key that is not there is younger than the folder
    differing = [key for key, value in json.loads(text).items() if found.get(key, value) != value]
    if differing and not _holds_work(path):  # nothing was made by that plan; a build that it began is no use for this one
        shutil.rmtree(path / "state", ignore_errors=True)
    elif differing:
        raise UsageError(
            f"expected {path} to be of this recipe and data, got a sweep that differs in {', '.join(differing)}; choose another "
            "output, or --fresh to delete it and start again"
        )
    with replacing(file, UsageError) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _found_plan(file: Path) -> dict[str, Any]:
    """The plan that is stored; empty if there is none."""
    if not file.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"expected a plan in {file}, got a damaged file; use --fresh to start again") from None
    return found


def _builds(recipe: Recipe, data: Path) -> dict[str, Any]:
    """By part: the grid recipe that it is built by, and the files of its constraint; the grid's own are among the sources."""
    found: dict[str, Any] = {}
    for part in recipe.data.all_parts:
        if part.build is not None:
            build = load_build_recipe(part.build)
            isochrones = build.constraint if isinstance(build.constraint, NearIsochronesRecipe) else None
            files = [] if isochrones is None else sorted(data.glob(isochrones.files))
            found[part.name] = [build.model_dump(mode="json"), [_file_print(path, data) for path in files]]
    return found


def _sources(recipe: Recipe, data: Path) -> list[Path]:
    """The files of all parts."""
    found: set[Path] = set()
    for part in recipe.data.all_parts:
        named = [part.table, None if part.library is None else part.library.file]
        if part.build is not None:
            with suppress(MauryError):  # the build says what is wrong with it
                grid = load_build_recipe(part.build).grid
                named += [grid.file, None if grid.library is None else grid.library.file]
        found |= {data / name for name in named if name is not None}
        found |= {path for path in data.glob(part.spectra) if path.is_file()} if part.spectra else set()
    return sorted(found)


def _file_print(path: Path, data: Path) -> list[str]:
    """Name and fingerprint of a file, by its size and its ends; of a folder by its files' sizes. Names alone where it is not."""
    digest = hashlib.sha256()
    with suppress(OSError):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            digest.update("\n".join(f"{p.relative_to(path)} {p.stat().st_size}" for p in inside).encode())
        else:
            size = path.stat().st_size
            digest.update(str(size).encode())
            with open(path, "rb") as handle:
                digest.update(handle.read(_END_BYTES))
                handle.seek(max(size - _END_BYTES, 0))
                digest.update(handle.read(_END_BYTES))
    return [os.path.relpath(path, data), digest.hexdigest()[:32]]
