"""Run a recipe: files -> training set -> cross-validation -> finished model with calibrated errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.assess.calibration import ErrorModel, galgano2020_error_model
from maury.assess.crossval import cross_validate
from maury.assess.gap import SyntheticGap, stretches
from maury.assess.inflation_along import fit_inflation_along
from maury.assess.learn_errors import fit_error_inflation, fit_snr_error_model
from maury.assess.metrics import LabelMetrics, label_metrics
from maury.assess.quality import QualityCuts, signal_to_noise
from maury.assess.region import TrainingRegion
from maury.emulate.cannon import CannonConfig, condition_number
from maury.errors import RecipeError
from maury.estimates import LabelEstimates
from maury.fit.inferrer import FittedInferrer, ModelInferrer, own_labels
from maury.fit.starts import PhotometricStarts
from maury.grids.isochrones import read_isochrones
from maury.model import Model
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.recipes.schema import Recipe
from maury.recipes.training import Trainer, reported_stars
from maury.recipes.training_part import FluxError
from maury.regress.ensemble import EnsembleInferrer
from maury.regress.noise import residuals_of, with_noise, with_noise_of, with_residuals_of
from maury.spectra import Spectra
from maury.train.splits import k_folds

if TYPE_CHECKING:
    from maury.regress.latent_training import LatentTraining
    from maury.train.loop import History

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """What a recipe produced.

    Parameters
    ----------
    model : trained on all stars of the training set.
    training_set : the prepared spectra and labels.
    scored : those of its stars that cross-validation scores (all but those of parts that are not validated).
    held_out : cross-validated estimates of ``scored`` with errors as the catalogue would carry them, or None.
    scores : bias, scatter, RMSE and pulls of ``held_out`` by label (all stars, then the range the recipe reports).
    condition_number : of The Cannon's design matrix; None for a network.
    histories : losses of the final model's networks by epoch; none for The Cannon.
    flux_error : of the final emulator on spectra it did not train on, or None.
    transfer : autoencoders before and after they were carried over to observed spectra; None for other methods.
    """

    model: Model
    training_set: TrainingSet
    scored: TrainingSet
    held_out: LabelEstimates | None
    scores: list[LabelMetrics]
    condition_number: float | None
    histories: dict[str, History]
    flux_error: FluxError | None
    transfer: LatentTraining | None = None


def run_recipe(
    recipe: Recipe,
    folder: str | Path,
    progress: Progress | None = None,
    *,
    device: str = "cpu",
    checkpoints: Path | None = None,
) -> TrainingRun:
    """Train the model of ``recipe`` on the data below ``folder``.

    Parameters
    ----------
    progress : called with (stage, done, all); stages are read, prepare, validate, train.
    device : where networks are trained, "cpu" or "cuda".
    checkpoints : folder for the state of networks' trainings: a run that was killed goes on from there, to the same end.

    Raises
    ------
    RecipeError
        If the data do not fit the recipe; see :func:`maury.recipes.dataset.load_training_set`.
    """
    check_device(recipe, device)
    photometry = photometry_of(recipe, Path(folder))
    training_set = load_training_set(recipe, folder, progress, checkpoints)
    return train_on(recipe, training_set, progress, photometry=photometry, device=device, checkpoints=checkpoints)


def train_on(
    recipe: Recipe,
    training_set: TrainingSet,
    progress: Progress | None = None,
    *,
    photometry: PhotometricStarts | None = None,
    device: str = "cpu",
    checkpoints: Path | None = None,
) -> TrainingRun:
    """Cross-validate, calibrate and train on a training set that is already prepared (see :func:`run_recipe`)."""
    check_device(recipe, device)
    trainer = Trainer(recipe, training_set, photometry, device, checkpoints)
    held_out = _held_out(recipe, training_set, trainer, progress)
    report = None if progress is None else lambda done, total: progress("train", done, total)
    if report is not None:
        report(0, 1)
    trained = trainer.train_with_history(np.arange(len(training_set)), report if recipe.train.is_network else None)
    if report is not None and not recipe.train.is_network:
        report(1, 1)
    labels = own_labels(trained.inferrer)
    designed = all(part.build is not None for part in recipe.data.all_parts)  # labels fill a box: its hull says nothing more
    region = TrainingRegion.from_training(labels, training_set.values, hull=not designed)
    cuts = QualityCuts(**recipe.quality.model_dump())
    scored = training_set[_scored(recipe, training_set)]
    error_model = _error_model(recipe, scored, held_out)
    model = Model(recipe.preparation, trained.inferrer, region, cuts, error_model)
    held_out = None if held_out is None else model.judge(held_out)
    scores = _scores(recipe, scored, held_out)
    condition = None
    if recipe.train.method == "cannon":
        polynomial = CannonConfig(recipe.train.order, recipe.train.terms).polynomial(labels.names)
        condition = condition_number(labels, training_set.values, polynomial)
    about = provenance_of(recipe, training_set, scores, condition, trained.flux_error)
    model = replace(model, provenance=about, gap=training_gap(training_set.spectra, trained.inferrer))
    return TrainingRun(
        model, training_set, scored, held_out, scores, condition, trained.histories, trained.flux_error, trained.transfer
    )


def training_gap(spectra: Spectra, inferrer: ModelInferrer) -> SyntheticGap | None:
    """What tells how far a spectrum lies from the training spectra; None if there are too few of them.

    In the windows that an ensemble's networks look at, else on the whole grid. A fit that marginalises the continuum sees no gap
    in it.

    Parameters
    ----------
    spectra : prepared, on the inferrer's grid.
    """
    if isinstance(inferrer, EnsembleInferrer):
        seen = np.isin(inferrer.wavelength, np.concatenate([stack.wavelength for stack in inferrer.networks]))
        return SyntheticGap.from_training(spectra, stretches(inferrer.wavelength, seen))
    modes = None
    if isinstance(inferrer, FittedInferrer) and inferrer.fitter.continuum is not None:
        emulator = inferrer.emulator
        factors = inferrer.fitter.continuum.extend(emulator).model_covariance.factors
        modes = None if factors is None else factors[:, emulator.model_covariance.rank :].T
    return SyntheticGap.from_training(spectra, modes=modes)


def check_device(recipe: Recipe, device: str) -> None:
    """Say what to do where torch or the device is missing. For a network, torch is imported here, before folds have threads."""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or not (device == kind or number.isdigit()):
        raise RecipeError(f"expected the device cpu or cuda (or cuda:1, the second GPU), got {device!r}; correct it")
    if not recipe.train.is_network:
        return
    try:
        import torch
    except ImportError:
        raise RecipeError(
            "expected PyTorch for training a network, got none installed; run: python3 -m pip install 'maury[networks]'"
        ) from None
    if kind == "cuda" and torch.cuda.device_count() <= int(number or 0):
        raise RecipeError(f"expected a GPU for the device {device!r}, got none that PyTorch can use; leave --device out")


def photometry_of(recipe: Recipe, folder: Path) -> PhotometricStarts | None:
    """Starts of fits from the isochrones that the recipe names below ``folder``; None where it names none."""
    settings = recipe.fit.photometry
    if settings is None:
        return None
    paths = sorted(path for path in folder.glob(settings.isochrones) if path.is_file())
    if not paths:
        raise RecipeError(
            f"expected isochrones matching {settings.isochrones} in {folder}, got no file; check --data and the glob"
        )
    return PhotometricStarts.from_isochrones(read_isochrones(paths), settings.colour_scale, settings.magnitude_scale)


def _held_out(recipe: Recipe, training_set: TrainingSet, trainer: Trainer, progress: Progress | None) -> LabelEstimates | None:
    """Estimates of the validated stars from models that did not see them; stars of other parts are in every training set."""
    if recipe.validation.folds == 0:
        if recipe.errors.model in ("held_out", "snr"):
            raise RecipeError(
                f"expected cross-validation for errors of model {recipe.errors.model!r}, got folds = 0; "
                "set folds or errors.model = 'formal'"
            )
        return None
    folds = _folds(recipe, training_set)
    report = None if progress is None else lambda done, total: progress("validate", done, total)
    judged, stars = _judged(recipe, training_set), training_set.stars
    return cross_validate(judged, trainer.train, folds, report, groups=stars, side_by_side=not recipe.train.is_random)


def _judged(recipe: Recipe, training_set: TrainingSet) -> Spectra:
    """The spectra of cross-validation. Errors are for spectra like those of the training, which had noise added."""
    spectra, seed = training_set.spectra, recipe.validation.seed
    if recipe.train.method == "cnn":
        return with_noise(spectra, recipe.train.cnn.to_config().snr, seed)
    if recipe.train.method != "latent":
        return spectra
    noise, of_files = recipe.train.latent.to_config().noise, training_set.from_files  # those have noise of their own
    if isinstance(noise, str):
        like = training_set.observed or spectra[np.flatnonzero(of_files)]
        if noise == "residuals":
            residuals = residuals_of(like, spectra[np.flatnonzero(~of_files)])
            noisy = with_residuals_of(spectra, like, residuals, seed)
        else:
            noisy = with_noise_of(spectra, like, seed)
    else:
        noisy = with_noise(spectra, noise, seed)
    if not of_files.any():
        return noisy
    own, meta = of_files[:, None], noisy.meta.copy()
    meta["snr"] = np.where(of_files, np.asarray(spectra.meta["snr"], dtype=np.float64), meta["snr"])
    flux, ivar = np.where(own, spectra.flux, noisy.flux), np.where(own, spectra.ivar, noisy.ivar)
    return noisy.with_pixels(flux=flux, ivar=ivar, meta=meta)


def _folds(recipe: Recipe, training_set: TrainingSet) -> list[NDArray[np.int64]]:
    """The folds that are judged, of validated stars alone."""
    validation, scored = recipe.validation, np.flatnonzero(training_set.validated)
    stars = None if training_set.stars is None else [training_set.stars[i] for i in scored]
    folds = [scored[fold] for fold in k_folds(len(scored), validation.folds, validation.seed, stars)]
    return folds[: validation.judged]


def _scored(recipe: Recipe, training_set: TrainingSet) -> NDArray[np.int64]:
    """The stars that cross-validation scores, in the training set's order."""
    if recipe.validation.folds == 0:
        return np.flatnonzero(training_set.validated)
    return np.sort(np.concatenate(_folds(recipe, training_set)))


def _error_model(recipe: Recipe, scored: TrainingSet, held_out: LabelEstimates | None) -> ErrorModel | None:
    kind = recipe.errors.model
    if kind == "formal":
        return None
    if kind.startswith("galgano2020"):
        return galgano2020_error_model("as_published" if kind.endswith("as_published") else "corrected")
    assert held_out is not None  # _held_out has refused the recipe otherwise
    held_out = held_out.only([label.name for label in recipe.label])
    if kind == "held_out" and recipe.errors.along is not None:
        residual = held_out.values - scored.values
        by, size = recipe.errors.along, recipe.errors.stars_per_bin
        return fit_inflation_along(residual, held_out.errors, held_out.values, held_out.labels, by=by, stars_per_bin=size)
    # errors are learned where the model is meant to be used: stars far outside would set scale and floor for all
    used = reported_stars(recipe, scored.values)
    residual = (held_out.values - scored.values)[used]
    snr = signal_to_noise(held_out, recipe.errors.snr_column)[used]
    if kind == "snr":
        bins = max(4, round(len(residual) / recipe.errors.stars_per_bin))
        return fit_snr_error_model(residual, snr, held_out.labels, n_bins=bins, snr_column=recipe.errors.snr_column)
    return fit_error_inflation(residual, held_out.errors[used], held_out.labels)


def _scores(recipe: Recipe, scored: TrainingSet, held_out: LabelEstimates | None) -> list[LabelMetrics]:
    if held_out is None:
        return []
    known = held_out.only([label.name for label in recipe.label])
    used = reported_stars(recipe, scored.values)
    rows = []
    for selection, chosen in (("all", np.ones(len(used), dtype=bool)), (report_name(recipe), used)):
        part = label_metrics(scored.values[chosen], known.values[chosen], known.errors[chosen], labels=known.labels)
        rows += [replace(row, selection=selection) for row in part]
        if used.all():
            break
    return rows


def report_name(recipe: Recipe) -> str:
    """The range of the recipe's scores in words, e.g. ``teff 4000-7000``."""
    return ", ".join(f"{name} {low:g}-{high:g}" for name, (low, high) in recipe.validation.report.items()) or "all"


def provenance_of(
    recipe: Recipe,
    training_set: TrainingSet,
    scores: Sequence[LabelMetrics] = (),
    condition: float | None = None,
    flux_error: FluxError | None = None,
) -> dict[str, Any]:
    """What a model file tells of its training."""
    from maury.catalogue import run_provenance

    return run_provenance(
        recipe=recipe.model_dump(mode="json"),
        medium=training_set.spectra.medium,
        n_training_spectra=len(training_set),
        n_left_out=len(training_set.left_out),
        condition_number=condition,
        flux_error=None if flux_error is None else asdict(flux_error),
        scores=[{k: v for k, v in asdict(row).items() if not isinstance(v, float) or np.isfinite(v)} for row in scores],
    )
