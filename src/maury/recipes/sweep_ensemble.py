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

FloatArray = NDArray[np.float64]

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
    data = WindowData.joined([folder.window(name) for name in windows])
    columns = [label_names(recipe).index(name) for name in labels]
    networks = {name: _restricted(read_network(folder, trial), own) for name, (trial, own) in voters.items()}
    stacks, names = _stacked(networks, {name: trial for name, (trial, _) in voters.items()})
    training = data.rows(TRAIN)
    values = data.values[:, columns]
    label_set = LabelSet.from_training([recipe.labels[k] for k in columns], values[training]).scaled_to_range()
    min_pixels = recipe.train.cnn.to_config().min_pixels
    inferrer = EnsembleInferrer(label_set, data.wavelength, stacks, names, min_pixels)
    designed = all(part.build is not None for part in recipe.data.all_parts)
    own_recipe = recipe if windows == [WHOLE] else window_recipe(recipe, sweep, windows)
    fingerprint = own_recipe.preparation.fingerprint
    model = Model(
        own_recipe.preparation,
        inferrer,
        TrainingRegion.from_training(label_set, values[training], hull=not designed),
        QualityCuts(**recipe.quality.model_dump()),
        _error_model(inferrer, data, values, fingerprint),
        gap=training_gap(data.spectra(training, fingerprint), inferrer),
    )
    return _judged(model, recipe, data, values)


def _restricted(network: CnnNetworks, labels: Sequence[str]) -> CnnNetworks:
    """The same network with the outputs of these labels alone: of the others its errors are too large."""
    if tuple(labels) == network.labels.names:
        return network
    index = [network.labels.index(name) for name in labels]
    weight, offset = network.layers[-1]
    layers = (*network.layers[:-1], (weight[:, :, index], offset[:, index]))
    return replace(network, labels=network.labels.only(labels), layers=layers)


def _stacked(networks: dict[str, CnnNetworks], trials: dict[str, Trial]) -> tuple[tuple[CnnNetworks, ...], tuple[str, ...]]:
    """Networks that can be evaluated together as one stack, and a name for each."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, network in networks.items():
        see = network.inputs
        same = (see.wavelength.tobytes(), see.mean.tobytes(), see.scale)
        groups.setdefault((network.labels, network.topology, *same), []).append(name)
    stacks, names = [], []
    for some in groups.values():
        members = [networks[name] for name in some]
        layers = tuple(
            (np.concatenate([weight for weight, _ in layer]), np.concatenate([offset for _, offset in layer]))
            for layer in zip(*(member.layers for member in members), strict=True)
        )
        stacks.append(replace(members[0], layers=layers))
        names.append(some[0] if len(some) == 1 else some[0].removesuffix(f"_s{trials[some[0]].seed}"))
    return tuple(stacks), tuple(names)


def _error_model(inferrer: EnsembleInferrer, data: WindowData, values: FloatArray, fingerprint: str) -> ErrorInflation | None:
    """Scale and floor of the errors from the screening spectra; None where they are too few.

    Votes of networks that all err alike say nothing of it, and one network has no spread at all: its error is a floor.
    """
    rows = data.rows(SCREENING)
    found = inferrer.infer(data.spectra(rows, fingerprint))
    residual = found.values - values[rows]
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


def _judged(model: Model, recipe: Recipe, data: WindowData, values: FloatArray) -> SweepEnsemble:
    """The model with its figures on the report spectra."""
    rows = data.rows(REPORT)
    spectra, true = data.spectra(rows, model.preparation.fingerprint), values[rows]
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
        medium=data.medium,
        n_training_spectra=len(data.rows(TRAIN)),
        members=members,
        scores=[{k: v for k, v in asdict(row).items() if not isinstance(v, float) or np.isfinite(v)} for row in scores],
        intervals=[asdict(interval) for interval in intervals],
    )
    return SweepEnsemble(replace(model, provenance=provenance), members, scores, intervals)


def _inside(true: FloatArray, found: LabelEstimates) -> NDArray[np.bool_]:
    """(n, K) whether the true label is inside the errors."""
    both = found.both_errors
    return np.asarray((true >= found.values - both[:, :, 0]) & (true <= found.values + both[:, :, 1]))
