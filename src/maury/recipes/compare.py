"""Several recipes on one data set with one split (``maury compare``): every star judged by models that have not seen its
labels.

Test stars are split into folds. A recipe whose training set holds some of them is trained once for each fold, without that
fold's stars; one whose training set holds none is trained once. All training is
:func:`maury.recipes.run.train_on`. Spectra without labels that a transfer learns from (``[[data.observed]]``) may be of test
stars, as they may be of the stars that a user wants labels of.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from maury import __version__
from maury.assess.domain import set_gap
from maury.errors import MauryError, ModelFileError, RecipeError, UsageError
from maury.estimates import LabelEstimates
from maury.files import one_line, replacing, written
from maury.flags import ResultFlag
from maury.grids.lock import alone_in
from maury.model import Model
from maury.recipes.compare_data import (
    Repeats,
    SharedLabel,
    TestSet,
    load_repeats,
    load_test_set,
    pairs_of,
    shared_labels,
    shared_test,
    unseen_rows,
    without_scores,
)
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.recipes.run import check_device, photometry_of, train_on
from maury.recipes.schema import Recipe
from maury.spectra import Spectra
from maury.store import load_model, save_model
from maury.train.checkpoint import fingerprint_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MODELS = "models"
"""Folder of the trained models in the output folder; what is in it is not trained again."""
_CHECKPOINTS = ".training"


class Report(Protocol):
    """Told how far a stage is, and a few words beside it."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


@dataclass(frozen=True, eq=False)
class SystemRun:
    """What one recipe made of the test set.

    Parameters
    ----------
    recipe : as it was trained.
    estimates : of the judged test stars, in their order, its own labels; None if it failed.
    fold : (n,) number of the model that judged each star.
    repeats : estimates of the repeat visits by the first model, or None.
    repeats_seen : (m,) visits of stars that model was trained on.
    n_training : training spectra of each model.
    train_seconds : of each model.
    infer_seconds, n_inferred : preparation and inference of the test stars.
    auc, auc_error : how well a classifier tells the first model's test stars from its training spectra (0.5: not at all), in the
        window where it does best; NaN for fewer than 20 stars, or a model that knows no gap.
    model_ids : of each model.
    fingerprint : of recipe and data.
    reason : why it failed; "".
    """

    recipe: Recipe
    estimates: LabelEstimates | None = None
    fold: IntArray | None = None
    repeats: LabelEstimates | None = None
    repeats_seen: NDArray[np.bool_] | None = None
    n_training: tuple[int, ...] = ()
    train_seconds: tuple[float, ...] = ()
    infer_seconds: float = np.nan
    n_inferred: int = 0
    auc: float = np.nan
    auc_error: float = np.nan
    model_ids: tuple[str, ...] = ()
    fingerprint: str = ""
    reason: str = ""

    @property
    def name(self) -> str:
        return self.recipe.name


@dataclass(frozen=True, eq=False)
class Comparison:
    """Test set, labels that are compared, and the systems in the order they were named.

    Parameters
    ----------
    repeats : repeat visits, or None.
    """

    test: TestSet
    labels: tuple[SharedLabel, ...]
    repeats: Repeats | None
    systems: tuple[SystemRun, ...]

    def truth(self, system: int) -> FloatArray:
        """(n judged, K) true labels as a system calls them."""
        return np.column_stack([self.test.truth[label.own[system]][self.test.judged] for label in self.labels])

    def own(self, system: int, estimates: LabelEstimates) -> LabelEstimates:
        """Estimates of a system with the labels that are compared alone."""
        return estimates.only([label.own[system] for label in self.labels])


def check_comparison(recipes: Sequence[Recipe], device: str = "cpu") -> None:
    """Raise MauryError if recipes cannot be compared: the same name twice, no or another [test], no label in common."""
    names = [file_name(recipe.name) for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"expected recipes of different names, got {twice!r} twice; change the name in one of them")
    labels = shared_labels(recipes)
    test = shared_test(recipes)
    unknown = [name for name in test.report if all(name not in label.own for label in labels)]
    if unknown:
        raise RecipeError(f"expected labels that are compared in test.report, got {unknown[0]!r}; correct the recipes")
    for recipe in recipes:
        check_device(recipe, device)


def run_comparison(
    recipes: Sequence[Recipe], data: Path, output: Path, progress: Report | None = None, *, device: str = "cpu"
) -> Comparison:
    """Train each recipe without the stars that judge it, and judge it.

    Parameters
    ----------
    data : folder below which the recipes' files lie.
    output : folder; models and the state of trainings are kept in it, and taken over by the next call.
    progress : called with (stage, done, all, note).

    Raises
    ------
    MauryError
        If the recipes cannot be compared (:func:`check_comparison`) or the test set cannot be read. What one recipe fails at is
        kept as its reason.
    """
    check_comparison(recipes, device)
    labels = shared_labels(recipes)
    work = output / _CHECKPOINTS
    with written(work):
        work.mkdir(parents=True, exist_ok=True)
    with alone_in(work, "comparison"):
        try:
            test = load_test_set(recipes, labels, data, progress, _work_folder(output, "test", shared_test(recipes)))
            repeats = load_repeats(recipes[0], data, progress)
        except MauryError:
            shutil.rmtree(work, ignore_errors=True)  # nothing has begun
            raise
        systems = []
        for number, recipe in enumerate(recipes):
            if progress is not None:
                progress("compare", number, len(recipes), recipe.name)
            systems.append(_System(without_scores(recipe), data, output, progress, device).run(test, repeats))
        if progress is not None:
            progress("compare", len(recipes), len(recipes))
        shutil.rmtree(work, ignore_errors=True)
    return Comparison(test, labels, repeats, tuple(systems))


def file_name(name: str) -> str:
    """A recipe's name as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", name) or "recipe"


def _work_folder(output: Path, name: str, settings: BaseModel) -> Path:
    """Where what belongs to these settings is half done; with others (--quick, say) it would be in the way."""
    return output / _CHECKPOINTS / f"{file_name(name)}-{fingerprint_of(settings.model_dump(mode='json'), {})[:8]}"


@dataclass(frozen=True, eq=False)
class _Judge:
    """One model, the test stars that it judges, and what its training cost."""

    model: Model
    stars: IntArray
    n_training: int
    seconds: float
    trained: IntArray


@dataclass(frozen=True, eq=False)
class _System:
    """One recipe at work."""

    recipe: Recipe
    data: Path
    output: Path
    progress: Report | None
    device: str

    @property
    def _work(self) -> Path:
        """Folder of its own, for a build on the way and the state of its trainings."""
        return _work_folder(self.output, self.recipe.name, self.recipe)

    def run(self, test: TestSet, repeats: Repeats | None) -> SystemRun:
        """Train and judge; whatever goes wrong is a reason, and stops no other system."""
        try:
            return self._run(test, repeats)
        except MauryError as error:
            return SystemRun(self.recipe, reason=str(error))
        except Exception as error:  # a defect of ours: the other systems' hours are not lost for it
            return SystemRun(self.recipe, reason=f"{type(error).__name__}: {one_line(error)}")

    def _run(self, test: TestSet, repeats: Repeats | None) -> SystemRun:
        photometry = photometry_of(self.recipe, self.data)
        training = load_training_set(self.recipe, self.data, self.progress, self._work)
        fingerprint = self._fingerprint(training)
        pairs = pairs_of(training, test.sources, test.spectra)
        known = bool(np.isin(pairs[1], test.judged).any())
        folds = list(test.folds) if known else [test.judged]
        judges = []
        for number, stars in enumerate(folds):
            rows = unseen_rows(training, pairs, stars) if known else np.arange(len(training))
            judges.append(self._judge(training, rows, stars, fingerprint, number, photometry))
        parts, seconds = [], 0.0
        prepared: list[Spectra] = []
        for judge in judges:
            before = time.perf_counter()
            parts.append(judge.model.infer(test.rows(judge.stars), self.progress, prepared.append))
            seconds += time.perf_counter() - before
        order = np.argsort(np.concatenate([judge.stars for judge in judges]), kind="stable")
        estimates = LabelEstimates.concatenate(parts)[order]
        if not np.isfinite(estimates.values).any():
            raise UsageError(f"expected labels of some test star, got none; the first, {estimates.ids[0]}: {estimates.reason[0]}")
        visits, seen = self._repeats(judges[0], training, repeats)
        auc, auc_error = _classified(judges[0].model, parts[0], prepared[0]) if prepared else (np.nan, np.nan)
        return SystemRun(
            self.recipe,
            estimates,
            np.repeat(np.arange(len(judges)), [len(judge.stars) for judge in judges])[order],
            visits,
            seen,
            tuple(judge.n_training for judge in judges),
            tuple(judge.seconds for judge in judges),
            seconds,
            len(estimates),
            auc,
            auc_error,
            tuple(judge.model.model_id for judge in judges),
            fingerprint,
        )

    def _fingerprint(self, training: TrainingSet) -> str:
        arrays: dict[str, NDArray[Any]] = {
            "flux": training.spectra.flux,
            "ivar": training.spectra.ivar,
            "values": training.values,
        }
        for name in ("errors", "weights"):
            if getattr(training, name) is not None:
                arrays[name] = getattr(training, name)
        if training.observed is not None:
            arrays |= {"observed.flux": training.observed.flux, "observed.ivar": training.observed.ivar}
        settings = self.recipe.model_dump(mode="json", exclude={"test", "quick", "sweep", "description", "source"})
        return fingerprint_of({**settings, "maury": __version__}, arrays)

    def _judge(
        self, training: TrainingSet, rows: IntArray, stars: IntArray, fingerprint: str, number: int, photometry: Any
    ) -> _Judge:
        """The model trained on these rows: the one in the folder if it is that, else a new one."""
        if not rows.size:
            raise RecipeError(f"expected training spectra of {self.recipe.name} of other stars than the test's, got none")
        own = fingerprint_of({"data": fingerprint}, {"rows": rows})
        file = self.output / MODELS / f"{file_name(self.recipe.name)}.{number + 1}.safetensors"
        known = _finished(file, own)
        if known is not None:
            return _Judge(known[0], stars, len(rows), known[1], rows)
        spent = _Clock(file.with_suffix(".json"), own)
        with spent:
            run = train_on(
                self.recipe,
                training[rows],
                self.progress,
                photometry=photometry,
                device=self.device,
                checkpoints=self._work,
            )
        spent.finish(save_model(run.model, file))
        return _Judge(run.model, stars, len(rows), spent.seconds, rows)

    def _repeats(
        self, judge: _Judge, training: TrainingSet, repeats: Repeats | None
    ) -> tuple[LabelEstimates | None, NDArray[np.bool_] | None]:
        """Estimates of repeat visits, and which of them are of stars that the model has seen."""
        if repeats is None:
            return None, None
        found = judge.model.infer(repeats.spectra, self.progress)
        pairs = pairs_of(training[judge.trained], repeats.sources, repeats.spectra)
        known = {repeats.groups[row] for row in pairs[1]}
        return found, np.array([group in known for group in repeats.groups])


def _classified(model: Model, found: LabelEstimates, prepared: Spectra) -> tuple[float, float]:
    """Area under the classifier's ROC curve and its error, in the window where it is largest."""
    if model.gap is None:
        return np.nan, np.nan
    mine = found[np.flatnonzero(found.flag & int(ResultFlag.UNREADABLE) == 0)]
    windows = set_gap(model.gap, prepared, model.gap_ratios(prepared, mine), model.left_velocity(mine))
    known = [window for window in windows if np.isfinite(window.auc)]
    if not known:
        return np.nan, np.nan
    best = max(known, key=lambda window: window.auc)
    return best.auc, best.auc_error


# -- what is finished ---------------------------------------------------------------------------------------------------------


def _finished(file: Path, fingerprint: str) -> tuple[Model, float] | None:
    """The model of an earlier run of this very training, and its seconds; None where there is none that is whole."""
    about = _about(file.with_suffix(".json"))
    if about.get("fingerprint") != fingerprint or "model_id" not in about:
        return None
    try:
        model = load_model(file)
    except ModelFileError:
        return None
    return (model, float(about["seconds"])) if model.model_id == about["model_id"] else None


def _about(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class _Clock:
    """Seconds of one training, over all its interruptions that Python sees; kept in a file beside the model."""

    def __init__(self, file: Path, fingerprint: str) -> None:
        before = _about(file)
        self.file, self.fingerprint = file, fingerprint
        going_on = before.get("fingerprint") == fingerprint and "model_id" not in before
        self.seconds = float(before.get("seconds", 0.0)) if going_on else 0.0
        self._start = 0.0

    def __enter__(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._start
        self._write({})

    def finish(self, model_id: str) -> None:
        self._write({"model_id": model_id})

    def _write(self, more: dict[str, str]) -> None:
        content = {"fingerprint": self.fingerprint, "seconds": self.seconds, **more}
        with replacing(self.file, UsageError) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
