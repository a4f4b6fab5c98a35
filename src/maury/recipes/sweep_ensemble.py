"""The accepted networks of a sweep as one model, and how good it is on spectra that nothing has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maury.assess.calibration import ErrorInflation
from maury.assess.learn_errors import fit_error_inflation
from maury.assess.metrics import LabelMetrics, label_metrics
from maury.assess.quality import QualityCuts
from maury.assess.region import TrainingRegion
from maury.catalogue import run_provenance
from maury.constants import ROBUST_SIGMA_PER_MAD
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.labels import LabelSet
from maury.model import Model
from maury.recipes.run import training_gap
from maury.recipes.schema import Recipe
from maury.recipes.sweep_data import REPORT, SCREENING, TRAIN, SweepFolder, WindowData, window_recipe
from maury.recipes.sweep_plan import Trial
from maury.recipes.sweep_schema import WHOLE, SweepRecipe
from maury.recipes.sweep_screening import chosen
from maury.recipes.sweep_trial import Row, label_names, read_network
from maury.regress.cnn import CnnNetworks
from maury.regress.ensemble import EnsembleInferrer
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_REFERENCE = 2000  # training spectra that the gap is measured from, which takes at most half of them
_FEWEST = 20  # stars that an error can be learned from, as in fit_error_inflation


@dataclass(frozen=True)
class Interval:
    """How often the true label lies between the lower and the upper error; 0.68 if these are right.

    Parameters
    ----------
    label : which.
    n : spectra.
    of_votes : fraction inside the 16 to 84 % interval of the votes, the published error.
    calibrated : fraction inside the errors of the catalogue.
    """

    label: str
    n: int
    of_votes: float
    calibrated: float


@dataclass(frozen=True, eq=False)
class SweepEnsemble:
    """The model of a sweep, judged on spectra that neither trained nor chose a network.

    Parameters
    ----------
    model : whose inferrer are the accepted networks.
    members : networks by label.
    scores : by label.
    intervals : by label.
    """

    model: Model
    members: dict[str, int]
    scores: list[LabelMetrics]
    intervals: list[Interval]


def build_ensemble(recipe: Recipe, sweep: SweepRecipe, folder: SweepFolder, rows: Sequence[Row]) -> SweepEnsemble | None:
    """The model of the accepted networks; None where there are none."""
    voters: dict[str, tuple[Trial, list[str]]] = {}
    labels = [name for name in label_names(recipe) if chosen(rows, name, sweep)]
    for name in labels:
        for row in chosen(rows, name, sweep):
            voters.setdefault(row.trial.name, (row.trial, []))[1].append(name)
    if not voters:
        return None
    used = {name for trial, _ in voters.values() for name in trial.windows}
    windows = [name for name in sweep.window_names if name in used]
    parts = [folder.window(name) for name in windows]
    every = WindowData.joined([part.cut(slice(0, 0)) for part in parts])  # labels of all spectra, pixels of none
    data = WindowData.joined(parts, _wanted(every, sweep.seed))
    columns = [label_names(recipe).index(name) for name in labels]
    networks = {name: _restricted(read_network(folder, trial), own) for name, (trial, own) in voters.items()}
    stacks, names = _stacked(networks)
    training = every.values[every.rows(TRAIN)][:, columns]
    label_set = LabelSet.from_training([recipe.labels[k] for k in columns], training).scaled_to_range()
    config = recipe.train.cnn.to_config()
    inferrer = EnsembleInferrer(label_set, data.wavelength, stacks, names, config.min_pixels)
    designed = all(part.build is not None for part in recipe.data.all_parts)
    own_recipe = recipe if windows == [WHOLE] else window_recipe(recipe, sweep, windows)
    fingerprint = own_recipe.preparation.fingerprint
    tests = {purpose: _Test.of(data, purpose, columns, config.snr, sweep.seed, fingerprint) for purpose in (SCREENING, REPORT)}
    model = Model(
        own_recipe.preparation,
        inferrer,
        TrainingRegion.from_training(label_set, training, hull=not designed),
        QualityCuts(**recipe.quality.model_dump()),
        _error_model(inferrer, tests[SCREENING]),
        gap=training_gap(data.spectra(data.rows(TRAIN), fingerprint), inferrer),
    )
    return _judged(model, recipe, tests[REPORT], len(training))


def _wanted(data: WindowData, seed: int) -> IntArray:
    """Which spectra an ensemble needs: all that were held out, and some that its networks were trained on."""
    training = data.rows(TRAIN)
    if len(training) > _REFERENCE:
        training = np.random.default_rng(seed).choice(training, _REFERENCE, replace=False)
    return np.sort(np.concatenate([training, data.rows(SCREENING), data.rows(REPORT)]))


@dataclass(frozen=True, eq=False)
class _Test:
    """Spectra that were held out, n of them, and their labels.

    Parameters
    ----------
    spectra : with noise as in training.
    values : (n, K) label units.
    """

    spectra: Spectra
    values: FloatArray

    @classmethod
    def of(
        cls, data: WindowData, purpose: int, columns: list[int], snr: tuple[float, float] | None, seed: int, fingerprint: str
    ) -> _Test:
        """Those of a purpose, for the labels in these columns."""
        return cls(data.held_out(purpose, snr, seed, fingerprint), data.values[data.rows(purpose)][:, columns])


def _restricted(network: CnnNetworks, labels: Sequence[str]) -> CnnNetworks:
    """The same network with the outputs of these labels alone: of the others its errors are too large."""
    if tuple(labels) == network.labels.names:
        return network
    index = [network.labels.index(name) for name in labels]
    weight, offset = network.layers[-1]
    layers = (*network.layers[:-1], (weight[:, :, index], offset[:, index]))
    return replace(network, labels=network.labels.only(labels), layers=layers)


def _stacked(networks: dict[str, CnnNetworks]) -> tuple[tuple[CnnNetworks, ...], tuple[tuple[str, ...], ...]]:
    """Networks that can be evaluated together as one stack, and the names of those in each."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, network in networks.items():
        see = network.inputs
        same = (see.wavelength.tobytes(), see.mean.tobytes(), see.scale)
        groups.setdefault((network.labels, network.topology, *same), []).append(name)
    stacks = []
    for some in groups.values():
        members = [networks[name] for name in some]
        layers = tuple(
            (np.concatenate([weight for weight, _ in layer]), np.concatenate([offset for _, offset in layer]))
            for layer in zip(*(member.layers for member in members), strict=True)
        )
        stacks.append(replace(members[0], layers=layers))
    return tuple(stacks), tuple(map(tuple, groups.values()))


def _error_model(inferrer: EnsembleInferrer, test: _Test) -> ErrorInflation | None:
    """Scale and floor of the errors from the screening spectra; None where they are too few.

    Votes of networks that all err alike say nothing of it, and one network has no spread at all: its error is a floor.
    """
    found = inferrer.infer(test.spectra)
    residual = found.values - test.values
    usable = np.isfinite(residual).all(axis=1)
    if usable.sum() < _FEWEST:
        return None
    scale, floor = [], []
    for k, name in enumerate(found.labels.names):
        try:
            fit = fit_error_inflation(residual[usable, k : k + 1], found.errors[usable, k : k + 1], found.labels.only([name]))
            scale.append(fit.scale[0])
            floor.append(fit.floor[0])
        except UsageError:  # hardly a star has an error
            scale.append(1.0)
            floor.append(float(ROBUST_SIGMA_PER_MAD * np.median(np.abs(residual[usable, k]))))
    return ErrorInflation(found.labels.names, found.labels.units, tuple(scale), tuple(floor))


def _judged(model: Model, recipe: Recipe, test: _Test, n_training: int) -> SweepEnsemble:
    """The model with its figures on the report spectra."""
    spectra, true = test.spectra, test.values
    votes, found = model.inferrer.infer(spectra), model.infer_prepared(spectra)
    scores = label_metrics(true, found.values, found.errors, labels=found.labels)
    raw, calibrated = _inside(true, votes), _inside(true, found)
    names = found.labels.names
    intervals = [
        Interval(name, len(true), float(np.mean(raw[:, k])), float(np.mean(calibrated[:, k]))) for k, name in enumerate(names)
    ]
    assert isinstance(model.inferrer, EnsembleInferrer)
    members = dict(zip(names, model.inferrer.n_members, strict=True))
    provenance = run_provenance(
        recipe=recipe.model_dump(mode="json"),
        medium=spectra.medium,
        n_training_spectra=n_training,
        members=members,
        scores=[{k: v for k, v in asdict(row).items() if not isinstance(v, float) or np.isfinite(v)} for row in scores],
        intervals=[asdict(interval) for interval in intervals],
    )
    return SweepEnsemble(replace(model, provenance=provenance), members, scores, intervals)


def _inside(true: FloatArray, found: LabelEstimates) -> NDArray[np.bool_]:
    """(n, K) whether the true label is inside the errors."""
    both = found.both_errors
    return np.asarray((true >= found.values - both[:, :, 0]) & (true <= found.values + both[:, :, 1]))
