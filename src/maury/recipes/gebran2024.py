"""The experiment of Gebran (2024), end to end: generator, a smaller one, and the checker whose errors are the paper's Table 5.

The paper asks whether labels are recovered from generated spectra as well as from computed ones. One checker (principal
components and networks) is trained on computed spectra alone, then applied to what no training has seen: a tenth of the *base*
spectra with all their draws (METHODS 3; the paper's split is not by base spectrum), and to spectra generated at those very
labels, so that the two columns differ by the generator alone (the paper generates other labels than it tests).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.assess.emulation import SpectrumMetrics, spectrum_metrics
from maury.assess.region import TrainingRegion
from maury.emulate.payne import PayneEmulator
from maury.fit.inferrer import EmulatorInferrer
from maury.model import Model
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.recipes.learn_networks import GeneratorLearner
from maury.recipes.run import check_device, provenance_of
from maury.recipes.schema import Recipe
from maury.recipes.training import Trainer
from maury.recipes.training_part import FluxError, TrainingPart
from maury.regress.pca_mlp import PcaMlpInferrer
from maury.spectra import Spectra
from maury.train.splits import k_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Progress = Callable[[str, int, int], None]

COLUMNS = ("train", "validation", "test", "generated", "generated, small")
"""Spectra that a checker is applied to; the last two are generated at the labels of the test spectra."""

PAPER_TABLE5 = {
    "teff": (70.0, 110.0, 120.0, 119.0),
    "logg": (0.02, 0.03, 0.03, 0.05),
    "vsini": (5.0, 6.0, 6.5, 7.0),
    "m_h": (0.04, 0.08, 0.15, 0.15),
    "v_micro": (0.15, 0.17, 0.17, 0.20),
}
"""The paper's Table 5, first four columns of :data:`COLUMNS`; called MSE there, but in label units: read as RMSE (METHODS 3)."""

_MOST = 4000  # spectra of a column: RMSE is then known to 1 %


@dataclass(frozen=True, eq=False)
class CheckerTable:
    """RMSE of one checker's labels.

    Parameters
    ----------
    checker : what it is.
    labels, units : K names.
    rmse : (K, 5) in label units, columns as :data:`COLUMNS`.
    n : spectra of each column.
    """

    checker: str
    labels: tuple[str, ...]
    units: tuple[str, ...]
    rmse: FloatArray
    n: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class GeneratorScore:
    """How well spectra of labels, or of themselves, are made: on test spectra.

    Parameters
    ----------
    name : of the network.
    n_parameters : that were trained.
    metrics : the paper's numbers and the depths of the calcium triplet.
    flux_error : median and 99th percentile of the absolute error.
    """

    name: str
    n_parameters: int
    metrics: SpectrumMetrics
    flux_error: FluxError


@dataclass(frozen=True, eq=False)
class Experiment:
    """What the experiment gives.

    Parameters
    ----------
    model : the generator with a fitter; it has not seen the test spectra.
    generator : the model's emulator.
    small : the smaller generator's emulator.
    n_spectra, n_base, n_test : draws in all, base spectra in all, draws of the test set.
    scores : of autoencoder, generator and smaller generator.
    tables : of the published checker and of ours.
    remarks : of the trainings: dead latent units.
    test : the test spectra and ``test_values`` (n_test, K) their labels, for figures.
    """

    model: Model
    generator: PayneEmulator
    small: PayneEmulator
    n_spectra: int
    n_base: int
    n_test: int
    scores: tuple[GeneratorScore, ...]
    tables: tuple[CheckerTable, ...]
    remarks: tuple[str, ...]
    test: Spectra
    test_values: FloatArray


def run_gebran2024(
    recipe: Recipe,
    folder: str | Path,
    progress: Progress | None = None,
    *,
    device: str = "cpu",
    checkpoints: Path | None = None,
) -> Experiment:
    """Run the experiment on the data below ``folder``.

    Parameters
    ----------
    progress : called with (stage, done, all).
    device : where networks are trained, "cpu" or "cuda".
    checkpoints : folder for the state of trainings: a run that was killed goes on from there, to the same end.

    Raises
    ------
    RecipeError
        If the data do not fit the recipe.
    """
    check_device(recipe, device)
    training_set = load_training_set(recipe, folder, progress, checkpoints)
    rest, test = _split(recipe, training_set)
    part = TrainingPart.of(recipe, training_set, rest)
    learner = GeneratorLearner(part, device, checkpoints, _stage(progress, "generator"))
    generator = learner.training.emulator
    train = partial(_trained, part, device, checkpoints, progress)
    small = train("small generator")
    spectra, values = training_set.spectra[test], training_set.values[test]
    scores = _scores(learner, small, spectra, values)
    made = {"generated": generator, "generated, small": small}
    checkers = {name: train(stage) for name, stage in (("published", "checker"), ("own", "own checker"))}
    tables = tuple(_table(name, found, part, (spectra, values), made) for name, found in checkers.items())
    trainer = Trainer(recipe, training_set)
    inferrer = EmulatorInferrer(trainer.with_model_error(generator), trainer.fitter(generator.labels, part.values))
    region = TrainingRegion.from_training(generator.labels, part.values, hull=False)
    provenance = provenance_of(recipe, training_set) | {"experiment": _plain(scores, tables)}
    model = Model(recipe.preparation, inferrer, region, provenance=provenance)
    n_base = len(training_set) if training_set.stars is None else len(set(training_set.stars))
    counts = (len(training_set), n_base, len(test))
    remarks = learner.training.remarks
    return Experiment(model, generator, small, *counts, scores, tables, remarks, spectra, values)


def _stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)


def _split(recipe: Recipe, training_set: TrainingSet) -> tuple[IntArray, IntArray]:
    """Draws to train on, and those of the base spectra that are kept for the test."""
    assert recipe.experiment is not None  # the caller has looked
    folds = k_folds(len(training_set), round(1.0 / recipe.experiment.test_fraction), recipe.validation.seed, training_set.stars)
    return np.setdiff1d(np.arange(len(training_set)), folds[0]), folds[0]


def _trained(part: TrainingPart, device: str, checkpoints: Path | None, progress: Progress | None, stage: str) -> Any:
    """The smaller generator's emulator; or a checker and which spectra it held back."""
    from maury.emulate.payne_training import train_payne
    from maury.regress.pca_mlp_training import train_pca_mlp

    experiment = part.recipe.experiment
    assert experiment is not None  # likewise
    where: dict[str, Any] = {"groups": part.groups, "device": device, "checkpoints": checkpoints}
    where["progress"] = _stage(progress, stage)
    data = (part.spectra, part.recipe.labels, part.values)
    if stage == "small generator":
        return train_payne(*data, experiment.small.to_config(), **where).emulator
    config = experiment.checker if stage == "checker" else experiment.own_checker
    training = train_pca_mlp(*data, config.to_config(), **where)
    return training.inferrer, training.held_back[0]


# -- what is measured -------------------------------------------------------------------------------------------------------


def _scores(learner: GeneratorLearner, small: PayneEmulator, spectra: Spectra, values: FloatArray) -> tuple[GeneratorScore, ...]:
    training, config = learner.training, learner.config
    encoder = (spectra.flux.shape[1], *config.autoencoder.hidden, config.autoencoder.latent)
    labels = (values.shape[1], *config.label_network.hidden, config.autoencoder.latent)
    decoder = _n_parameters(encoder[::-1])
    made: dict[str, tuple[int, NDArray[Any]]] = {
        "autoencoder": (_n_parameters(encoder) + decoder, training.autoencoder.reconstruct(spectra)),
        "generator": (_n_parameters(labels) + decoder, training.emulator.predict_flux(values)),
        "small generator": (_n_parameters_of(small), small.predict_flux(values)),
    }
    return tuple(
        GeneratorScore(name, n, spectrum_metrics(spectra, flux), _flux_error(spectra.flux - flux))
        for name, (n, flux) in made.items()
    )


def _flux_error(residuals: FloatArray) -> FluxError:
    error = FluxError.of(residuals)
    assert error is not None  # there are test spectra, and no NaN
    return error


def _n_parameters(sizes: tuple[int, ...]) -> int:
    """Of a perceptron with these layers: weights and biases."""
    return sum((before + 1) * after for before, after in pairwise(sizes))


def _n_parameters_of(emulator: PayneEmulator) -> int:
    """Of all members, basis and mean spectrum."""
    return int(sum(weight.size + bias.size for weight, bias in emulator.layers) + emulator.basis.size + emulator.mean.size)


def _table(
    name: str,
    trained: tuple[PcaMlpInferrer, NDArray[np.bool_]],
    part: TrainingPart,
    test: tuple[Spectra, FloatArray],
    made: dict[str, PayneEmulator],
) -> CheckerTable:
    """RMSE of a checker and of which spectra it ``held_back``; ``made`` are the generators by column."""
    checker, held_back = trained
    chosen = {"train": _some(np.flatnonzero(~held_back)), "validation": _some(np.flatnonzero(held_back))}
    sets = {column: (part.spectra[rows], part.values[rows]) for column, rows in chosen.items()}
    rows = _some(np.arange(len(test[1])))
    spectra, values = test[0][rows], test[1][rows]
    sets["test"] = (spectra, values)
    for column, emulator in made.items():
        sets[column] = (spectra.with_pixels(flux=emulator.predict_flux(values)), values)
    rmse = np.array([_rmse(checker, *sets[column]) for column in COLUMNS]).T
    return CheckerTable(name, checker.labels.names, checker.labels.units, rmse, tuple(len(sets[c][1]) for c in COLUMNS))


def _some(rows: IntArray) -> IntArray:
    """At most :data:`_MOST` of them, spread evenly."""
    return rows[:: -(-len(rows) // _MOST)]


def _rmse(checker: PcaMlpInferrer, spectra: Spectra, values: FloatArray) -> FloatArray:
    found = checker.infer(spectra).values
    return np.asarray(np.sqrt(np.mean((found - values) ** 2, axis=0)))


def _plain(scores: tuple[GeneratorScore, ...], tables: tuple[CheckerTable, ...]) -> dict[str, Any]:
    """For the model's provenance."""
    rows = [asdict(table) | {"rmse": table.rmse.tolist(), "columns": list(COLUMNS)} for table in tables]
    return {"scores": [asdict(score) for score in scores], "checkers": rows}
