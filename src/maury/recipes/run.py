"""Run a recipe: files -> training set -> cross-validation -> finished model with calibrated errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.assess.calibration import ErrorModel, galgano2020_error_model
from maury.assess.crossval import cross_validate
from maury.assess.learn_errors import fit_error_inflation, fit_snr_error_model
from maury.assess.metrics import LabelMetrics, label_metrics
from maury.assess.quality import QualityCuts, signal_to_noise
from maury.assess.region import TrainingRegion
from maury.emulate.cannon import CannonConfig, condition_number
from maury.errors import RecipeError
from maury.estimates import LabelEstimates
from maury.model import Model
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.recipes.schema import Recipe
from maury.recipes.training import Trainer, reported_stars
from maury.train.splits import k_folds

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """What a recipe produced.

    Parameters
    ----------
    model : trained on all stars of the training set.
    training_set : the prepared spectra and labels.
    held_out : cross-validated estimates of every training star with errors as the catalogue would carry them, or None.
    scores : bias, scatter, RMSE and pulls of ``held_out`` by label (all stars, then the range the recipe reports).
    condition_number : of the design matrix.
    """

    model: Model
    training_set: TrainingSet
    held_out: LabelEstimates | None
    scores: list[LabelMetrics]
    condition_number: float


def run_recipe(recipe: Recipe, folder: str | Path, progress: Progress | None = None) -> TrainingRun:
    """Train the model of ``recipe`` on the data below ``folder``.

    Parameters
    ----------
    progress : called with (stage, done, all); stages are read, prepare, validate, train.

    Raises
    ------
    RecipeError
        If the data do not fit the recipe; see :func:`maury.recipes.dataset.load_training_set`.
    """
    training_set = load_training_set(recipe, folder, progress)
    return train_on(recipe, training_set, progress)


def train_on(recipe: Recipe, training_set: TrainingSet, progress: Progress | None = None) -> TrainingRun:
    """Cross-validate, calibrate and train on a training set that is already prepared."""
    trainer = Trainer(recipe, training_set.spectra, training_set.values, training_set.errors)
    held_out = _held_out(recipe, training_set, trainer, progress)
    if progress is not None:
        progress("train", 0, 1)
    inferrer = trainer.train(np.arange(len(training_set)))
    if progress is not None:
        progress("train", 1, 1)
    error_model = _error_model(recipe, training_set, held_out)
    region = TrainingRegion.from_training(inferrer.labels, training_set.values)
    cuts = QualityCuts(**recipe.quality.model_dump())
    if held_out is not None:
        held_out = cuts.apply(region.flag(held_out))
        held_out = held_out if error_model is None else error_model.apply(held_out)
    scores = _scores(recipe, training_set, held_out)
    config = CannonConfig(recipe.train.order, recipe.train.terms)
    condition = condition_number(inferrer.labels, training_set.values, config.polynomial(inferrer.labels.names))
    provenance = _provenance(recipe, training_set, scores, condition)
    model = Model(recipe.preparation, inferrer, region, cuts, error_model, provenance)
    return TrainingRun(model, training_set, held_out, scores, condition)


def _held_out(recipe: Recipe, training_set: TrainingSet, trainer: Trainer, progress: Progress | None) -> LabelEstimates | None:
    if recipe.validation.folds == 0:
        if recipe.errors.model in ("held_out", "snr"):
            raise RecipeError(
                f"expected cross-validation for errors of model {recipe.errors.model!r}, got folds = 0; "
                "set folds or errors.model = 'formal'"
            )
        return None
    folds = k_folds(len(training_set), recipe.validation.folds, recipe.validation.seed, training_set.stars)
    report = None if progress is None else lambda done, total: progress("validate", done, total)
    return cross_validate(training_set.spectra, trainer.train, folds, report)


def _error_model(recipe: Recipe, training_set: TrainingSet, held_out: LabelEstimates | None) -> ErrorModel | None:
    kind = recipe.errors.model
    if kind == "formal":
        return None
    if kind.startswith("galgano2020"):
        return galgano2020_error_model("as_published" if kind.endswith("as_published") else "corrected")
    assert held_out is not None  # _held_out has refused the recipe otherwise
    # errors are learned where the model is meant to be used: stars far outside would set scale and floor for all
    used = reported_stars(recipe, training_set.values)
    residual = (held_out.values - training_set.values)[used]
    snr = signal_to_noise(held_out, recipe.errors.snr_column)[used]
    if kind == "snr":
        bins = max(4, round(len(residual) / recipe.errors.stars_per_bin))
        return fit_snr_error_model(residual, snr, held_out.labels, n_bins=bins, snr_column=recipe.errors.snr_column)
    return fit_error_inflation(residual, held_out.errors[used], held_out.labels)


def _scores(recipe: Recipe, training_set: TrainingSet, held_out: LabelEstimates | None) -> list[LabelMetrics]:
    if held_out is None:
        return []
    used = reported_stars(recipe, training_set.values)
    rows = []
    for selection, chosen in (("all", np.ones(len(used), dtype=bool)), (report_name(recipe), used)):
        part = label_metrics(
            training_set.values[chosen], held_out.values[chosen], held_out.errors[chosen], labels=held_out.labels
        )
        rows += [replace(row, selection=selection) for row in part]
        if used.all():
            break
    return rows


def report_name(recipe: Recipe) -> str:
    """The range of the recipe's scores in words, e.g. ``teff 4000-7000``."""
    return ", ".join(f"{name} {low:g}-{high:g}" for name, (low, high) in recipe.validation.report.items()) or "all"


def _provenance(recipe: Recipe, training_set: TrainingSet, scores: list[LabelMetrics], condition: float) -> dict[str, Any]:
    from maury.catalogue import run_provenance

    return run_provenance(
        recipe=recipe.model_dump(mode="json"),
        n_training_spectra=len(training_set),
        n_left_out=len(training_set.left_out),
        condition_number=condition,
        scores=[{k: v for k, v in asdict(row).items() if not isinstance(v, float) or np.isfinite(v)} for row in scores],
    )
