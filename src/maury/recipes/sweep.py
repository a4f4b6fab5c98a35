"""Run the sweep of a recipe: many networks, screened, the accepted ones as one model (Passegger+2020; METHODS 1)."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from maury.errors import RecipeError, UsageError
from maury.files import replacing
from maury.prepare import Preparation
from maury.recipes.run import check_device
from maury.recipes.schema import Recipe
from maury.recipes.sweep_data import SweepFolder, sweep_folder
from maury.recipes.sweep_ensemble import SweepEnsemble, build_ensemble
from maury.recipes.sweep_plan import FixedPlanner, OptunaPlanner, Planner, Task, fixed_plan, places, stacked
from maury.recipes.sweep_schema import SweepRecipe, check_apart
from maury.recipes.sweep_screening import runs_table
from maury.recipes.sweep_trial import Row, Training, label_names, read_row, read_rows, write_failure
from maury.store import save_model
from maury.train.sweep import Failure, Sweep, Workers

if TYPE_CHECKING:
    from astropy.table import Table

Progress = Callable[[str, int, int], None]

MODEL_FILE = "ensemble.safetensors"


@dataclass(frozen=True)
class SweepOptions:
    """What a run of a sweep may be told, beside its recipe.

    Parameters
    ----------
    device : where networks are trained, "cpu" or "cuda"; there, those of one topology on the same pixels side by side.
    windows : names of those that networks see; none: all.
    fresh : delete the folder's sweep first.
    retry : train again what failed before.
    """

    device: str = "cpu"
    windows: tuple[str, ...] = ()
    fresh: bool = False
    retry: bool = False


@dataclass(frozen=True)
class SweepState:
    """How far a sweep is.

    Parameters
    ----------
    done, total : networks that are finished, failed ones among them, and all.
    failed : how many failed.
    best : smallest mean error so far, by label, label units.
    """

    done: int
    total: int
    failed: int
    best: dict[str, float]


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep gives.

    Parameters
    ----------
    rows : of all networks in the folder.
    table : the same for people, as it lies in the folder.
    ensemble : the model of the accepted networks; None where there are none.
    model_id : of its file.
    """

    rows: list[Row]
    table: Table
    ensemble: SweepEnsemble | None
    model_id: str | None


def sweep_of(recipe: Recipe) -> SweepRecipe:
    """The recipe's sweep.

    Raises
    ------
    RecipeError
        If it has none, or a part's own steps reach from one window into another.
    """
    if recipe.sweep is None:
        raise RecipeError(f"expected a recipe with a table [sweep], got {recipe.name!r} without; use `maury train`")
    for part in recipe.data.parts if len(recipe.sweep.window) > 1 else ():
        check_apart(Preparation.from_config([dict(step) for step in part.prepare]).steps)
    return recipe.sweep


def run_sweep(
    recipe: Recipe,
    data: Path | None,
    output: Path,
    workers: Workers | None = None,
    options: SweepOptions | None = None,
    *,
    progress: Progress | None = None,
    watch: Callable[[SweepState], None] | None = None,
) -> SweepResult:
    """Train what of the recipe's sweep is not in the folder yet, and build the ensemble of all that is there.

    Parameters
    ----------
    data : folder below which the recipe's files lie; None: train nothing.
    output : folder of the sweep.
    workers : who trains; this process by default.
    options : of this run.
    progress : called with (stage, done, all) while spectra are read and prepared.
    watch : called after each network.

    Raises
    ------
    MauryError
        If the data do not fit the recipe, or the folder is of another sweep.
    """
    sweep, options = sweep_of(recipe), options or SweepOptions()
    places(sweep, options.windows)  # a name that is wrong is said with --table, too
    who = _with_device(workers or Workers(), recipe, options.device, output)
    if data is not None and options.fresh:
        who.check()  # before anything is deleted
    with sweep_folder(output, recipe, sweep, data, fresh=options.fresh) as folder:
        if data is not None:
            planner, names = _planner(recipe, folder, options)
            if planner.n_left:
                who = replace(who, processes=min(who.processes, planner.n_left), folder=folder.path)
                who.check()  # before hours go into the data
                folder.prepare(recipe, sweep, names, data, progress)
                _train(planner, Training(recipe, folder, options.device), who, watch)
        return _result(recipe, sweep, folder)


def _with_device(workers: Workers, recipe: Recipe, device: str, output: Path) -> Workers:
    """The workers, sure of the device; those of a scheduler look themselves, here networks are only read."""
    if workers.scheduler is None:
        check_device(recipe, device)
        return workers
    return replace(workers, folder=output.absolute().parent, ready=partial(check_device, recipe, device))


def _result(recipe: Recipe, sweep: SweepRecipe, folder: SweepFolder) -> SweepResult:
    """Table and ensemble of all that is in the folder, written there."""
    rows = read_rows(folder)
    table = runs_table(rows, recipe.labels, sweep)
    _write_table(table, folder)
    ensemble = build_ensemble(recipe, sweep, folder, rows)
    file = folder.path / MODEL_FILE
    if ensemble is None:
        file.unlink(missing_ok=True)  # that of looser thresholds
        return SweepResult(rows, table, None, None)
    return SweepResult(rows, table, ensemble, save_model(ensemble.model, file))


def _planner(recipe: Recipe, folder: SweepFolder, options: SweepOptions) -> tuple[Planner, list[str]]:
    """What is still to be trained, and the windows that it needs."""
    sweep = sweep_of(recipe)
    if options.retry:
        for row in read_rows(folder):
            if not row.is_done:
                (folder.runs / f"{row.trial.name}.json").unlink(missing_ok=True)
    if sweep.sampler == "optuna":
        names = {name for some, _ in places(sweep, options.windows) for name in some}
        return OptunaPlanner(recipe, sweep, read_rows(folder), options.windows), sorted(names)
    left = [one for one in fixed_plan(recipe, sweep, options.windows) if read_row(folder, one.trial) is None]
    tasks: list[Task] = stacked(left) if options.device != "cpu" else [(one,) for one in left]
    return FixedPlanner(tasks), sorted({name for one in left for name in one.trial.windows})


class _Watch:
    """Counts what is done, for whoever watches."""

    def __init__(self, training: Training, n_left: int, watch: Callable[[SweepState], None] | None) -> None:
        self.watch, self.names = watch, label_names(training.recipe)
        before = read_rows(training.folder)
        self.done, self.failed, self.best = len(before), sum(not row.is_done for row in before), dict[str, float]()
        self.total = self.done + n_left
        for row in before:
            self._note(row)
        self._report()

    def add(self, row: Row) -> None:
        self.done += 1
        self.failed += not row.is_done
        self._note(row)
        self._report()

    def _note(self, row: Row) -> None:
        for name, score in row.all_scores.items():
            self.best[name] = min(score.mae, self.best.get(name, score.mae))

    def _report(self) -> None:
        if self.watch is not None:
            best = {name: self.best[name] for name in self.names if name in self.best}
            self.watch(SweepState(self.done, self.total, self.failed, best))


def _train(planner: Planner, training: Training, workers: Workers, watch: Callable[[SweepState], None] | None) -> None:
    watcher = _Watch(training, planner.n_left, watch)

    def done(task: Task, result: tuple[Row, ...] | Failure) -> None:
        if isinstance(result, Failure):  # the worker could not write rows, or died after some of them
            rows = tuple(write_failure(training.folder, one, result.reason) for one in task)
        else:
            rows = result
        for row in rows:
            planner.tell(row)
            watcher.add(row)

    Sweep(planner.next_task, training, done).run(workers)


def _write_table(table: Table, folder: SweepFolder) -> None:
    """``runs.ecsv``, with units, and ``runs.csv`` for everything else."""
    with replacing(folder.path / "runs.ecsv", UsageError) as temporary:
        table.write(temporary, format="ascii.ecsv")
    with replacing(folder.path / "runs.csv", UsageError) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(table.colnames)
        writer.writerows(table.as_array().tolist())
