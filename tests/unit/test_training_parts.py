"""Training on several parts: weights reach the models, and cross-validation scores the parts that count without leaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import maury.emulate.payne_training
import maury.recipes.learn_cannon
from maury.assess.crossval import cross_validate
from maury.errors import RecipeError, UsageError
from maury.estimates import LabelEstimates
from maury.grids import AnalyticSpectra
from maury.recipes import parse_recipe
from maury.recipes.dataset import TrainingSet, part_weights
from maury.recipes.run import TrainingRun, train_on
from maury.recipes.schema import Recipe
from maury.recipes.training import Trainer
from maury.recipes.training_part import TrainingPart
from maury.spectra import Spectra
from maury.train.splits import k_folds

WAVELENGTH = 5000.0 + 2.0 * np.arange(100)
N_OBSERVED, N_LIBRARY, N_SHARED = 60, 50, 5
PAYNE = {
    "method": "payne",
    "payne": {"hidden": [8], "components": 4, "members": 2, "max_epochs": 30, "check_every": 10},
}


def recipe_of(**changes: Any) -> Recipe:
    content = {
        "name": "mine",
        "data": {"spectra": "*.fits", "table": "labels.csv"},
        "label": [{"name": "teff", "column": "t", "unit": "K"}, {"name": "logg", "column": "g", "unit": "dex"}],
        "prepare": [{"step": "resample", "start": 5000, "stop": 5198, "spacing": 2}],
        "validation": {"folds": 4},
        **changes,
    }
    return parse_recipe(content, "mine.toml")


def training_set(weights: np.ndarray | None = None) -> TrainingSet:
    """Thirty observed stars with two visits each, and a library, five of whose spectra are of observed stars."""
    n = N_OBSERVED + N_LIBRARY
    rng = np.random.default_rng(6)
    star = np.r_[np.repeat(np.arange(N_OBSERVED // 2), 2), np.arange(100, 100 + N_LIBRARY)]
    star[N_OBSERVED : N_OBSERVED + N_SHARED] = np.arange(N_SHARED)
    own = {s: np.array([4500.0, 1.5]) + rng.random(2) * [2000.0, 3.0] for s in np.unique(star)}
    values = np.array([own[s] for s in star])
    spectra = AnalyticSpectra(("teff", "logg")).spectra(WAVELENGTH, values, snr=100, seed=7)
    part = ("observed",) * N_OBSERVED + ("library",) * N_LIBRARY
    validated = np.arange(n) < N_OBSERVED
    names = tuple(f"star{s}" for s in star)
    prepared = spectra.with_pixels(preparation=recipe_of().preparation.fingerprint)
    return TrainingSet(prepared, values, None, names, (), part, validated, weights, np.ones(len(prepared), dtype=bool))


class TestFolds:
    @pytest.fixture
    def trained_on(self, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
        """The stars of every training, one after another."""
        seen: list[np.ndarray] = []
        original = TrainingPart.of

        def of(recipe: Recipe, training_set: TrainingSet, stars: np.ndarray) -> TrainingPart:
            seen.append(np.asarray(stars))
            return original(recipe, training_set, stars)

        monkeypatch.setattr(TrainingPart, "of", of)
        return seen

    @pytest.mark.parametrize("train", [{}, PAYNE], ids=["cannon", "payne"])
    def test_no_star_is_judged_by_a_model_that_saw_it(self, trained_on: list[np.ndarray], train: dict[str, Any]) -> None:
        whole = training_set()
        run = train_on(recipe_of(train=train), whole)
        assert isinstance(run, TrainingRun)
        assert run.held_out is not None
        assert len(run.held_out) == N_OBSERVED
        np.testing.assert_array_equal(run.held_out.ids, whole.spectra.ids[:N_OBSERVED])
        *folds, last = trained_on
        assert len(folds) == 4
        assert sorted(last) == list(range(N_OBSERVED + N_LIBRARY))
        assert whole.stars is not None
        judged: list[int] = []
        for stars in folds:
            names = {whole.stars[i] for i in stars}
            held = [i for i in range(N_OBSERVED) if whole.stars[i] not in names]
            judged += held
            # what is not trained on is the held-out stars' and nothing else, from whatever part
            left = set(range(N_OBSERVED + N_LIBRARY)) - set(stars.tolist())
            away = {whole.stars[i] for i in held}
            assert left == {i for i in range(N_OBSERVED + N_LIBRARY) if whole.stars[i] in away}
            alone = set(range(N_OBSERVED + N_SHARED, N_OBSERVED + N_LIBRARY))
            assert alone <= set(stars.tolist())
        assert sorted(judged) == list(range(N_OBSERVED))

    def test_scores_and_errors_are_of_the_validated_part(self) -> None:
        whole = training_set()
        run = train_on(recipe_of(), whole)
        np.testing.assert_array_equal(run.scored.values, whole.values[:N_OBSERVED])
        assert {row.n for row in run.scores} == {N_OBSERVED}
        everything = train_on(recipe_of(), replace(whole, validated=np.ones(len(whole), dtype=bool)))
        assert {row.n for row in everything.scores} == {N_OBSERVED + N_LIBRARY}

    def test_held_out_estimates_are_those_of_a_training_without_the_star(self) -> None:
        """By hand: the first fold, trained and fitted alone."""
        whole, recipe = training_set(), recipe_of(errors={"model": "formal"})
        run = train_on(recipe, whole)
        assert run.held_out is not None
        assert whole.stars is not None
        fold = k_folds(N_OBSERVED, 4, 0, whole.stars[:N_OBSERVED])[0]
        held = {whole.stars[i] for i in fold}
        rest = np.array([i for i, name in enumerate(whole.stars) if name not in held])
        alone = Trainer(recipe, whole).train(rest).infer(whole.spectra[fold])
        np.testing.assert_allclose(run.held_out.values[fold], alone.values, rtol=1e-10)

    def test_no_validated_star(self) -> None:
        whole = training_set()
        with pytest.raises(UsageError, match=r"number of stars \(0\), got 4 folds"):
            train_on(recipe_of(), replace(whole, validated=np.zeros(len(whole), dtype=bool)))

    def test_inner_folds_do_not_split_stars_either(self) -> None:
        whole = training_set()
        part = TrainingPart.of(recipe_of(), whole, np.arange(len(whole)))
        assert part.groups == whole.stars
        for fold in part.folds():
            inside = {part.groups[i] for i in fold}
            rest = np.setdiff1d(np.arange(len(part)), fold)
            assert not inside & {part.groups[i] for i in rest}

    def test_cross_validate_alone(self) -> None:
        """In the order of the spectra, whatever the order inside the folds; stars of no fold are in every training set."""
        whole = training_set()
        seen: list[set[int]] = []

        class Echo:
            """Gives every spectrum its S/N back."""

            labels = None

            def __init__(self, stars: np.ndarray) -> None:
                seen.append(set(stars.tolist()))

            def infer(self, spectra: Spectra) -> LabelEstimates:
                labels = Trainer(recipe_of(), whole).train(np.arange(len(whole))).labels
                n = len(spectra)
                return LabelEstimates.missing(labels, spectra.ids.tolist(), [""] * n, spectra.meta, 0)

        folds = [np.array([5, 1]), np.array([0, 9])]
        found = cross_validate(whole.spectra, Echo, folds)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.ids, whole.spectra.ids[[0, 1, 5, 9]])
        everyone = set(range(len(whole)))
        assert {frozenset(s) for s in seen} == {frozenset(everyone - {5, 1}), frozenset(everyone - {0, 9})}


class TestWeights:
    def weights(self, observed: float) -> np.ndarray:
        found = part_weights([observed, 1.0], [N_OBSERVED, N_LIBRARY])
        assert found is not None
        return found

    @pytest.mark.parametrize("train", [{}, PAYNE], ids=["cannon", "payne"])
    def test_the_heavier_part_decides(self, train: dict[str, Any]) -> None:
        """The library is 5 % fainter; what a model generates lies near the part that has nearly all the weight."""
        whole = training_set()
        flux = np.where(whole.validated[:, None], whole.spectra.flux, 0.95 * whole.spectra.flux)
        levels = []
        for share in (1e3, 1e-3):
            some = replace(whole, spectra=whole.spectra.with_pixels(flux=flux), weights=self.weights(share))
            emulator = Trainer(recipe_of(train=train), some).train(np.arange(len(whole))).emulator
            levels.append(float(np.mean(emulator.predict_flux(whole.values) / whole.spectra.flux)))
        assert levels[0] == pytest.approx(1.0, abs=0.01)
        assert levels[1] == pytest.approx(0.95, abs=0.01)

    @pytest.mark.parametrize("robust", [None, 4])
    @pytest.mark.parametrize("method", ["cannon", "payne"])
    def test_every_training_gets_its_own_stars_weights(
        self, monkeypatch: pytest.MonkeyPatch, method: str, robust: float | None
    ) -> None:
        """With star weights that are learned, the parts' weights come as a factor: within a part they do not change ratios."""
        whole = replace(training_set(), weights=self.weights(30.0))
        seen: list[np.ndarray] = []
        home = maury.recipes.learn_cannon if method == "cannon" else maury.emulate.payne_training
        name = f"train_{method}"
        original = getattr(home, name)

        def spy(spectra: Spectra, *args: Any, star_weights: np.ndarray | None = None, **options: Any) -> Any:
            assert star_weights is not None
            assert len(star_weights) == len(spectra)
            seen.append(star_weights)
            return original(spectra, *args, star_weights=star_weights, **options)

        monkeypatch.setattr(home, name, spy)
        settings = {**(PAYNE if method == "payne" else {}), **({} if robust is None else {"robust_stars": robust})}
        stars = np.arange(0, len(whole), 2)
        Trainer(recipe_of(train=settings), whole).train(stars)
        assert whole.weights is not None
        wanted = whole.weights[stars]
        if robust is None:
            np.testing.assert_array_equal(seen[-1], wanted)
        else:
            learned = seen[-1] / wanted
            assert 0.3 < np.median(learned[wanted > 1]) / np.median(learned[wanted < 1]) < 3.0
            assert np.ptp(learned) > 0


class TestPayneLearner:
    def test_the_fit_has_the_labels_and_the_velocity(self) -> None:
        run = train_on(recipe_of(train=PAYNE, fit={"velocity": {"max_km_s": 60.0}}), training_set())
        assert run.held_out is not None
        assert run.held_out.labels.names == ("teff", "logg", "delta_rv")
        assert [row.label for row in run.scores] == ["teff", "logg"]
        assert run.condition_number is None
        assert run.model.labels.names == ("teff", "logg", "delta_rv")

    def test_covariance_and_inflation_by_cross_validation(self) -> None:
        """The inflation is chosen with members that did not see the stars; warnings would be errors."""
        train = {**PAYNE, "robust_stars": 4, "covariance": {"rank": 3, "inflations": [1.0, 20.0]}}
        whole = training_set()
        emulator = Trainer(recipe_of(train=train), whole).train(np.arange(len(whole))).emulator
        assert emulator.model_covariance.rank == 3

    def test_one_network_learns_its_covariance_from_the_stars_it_held_back(self) -> None:
        train = {**PAYNE, "payne": {**PAYNE["payne"], "members": 1}, "covariance": {"rank": 30, "inflation": 2.0}}  # type: ignore[dict-item]
        whole = training_set()
        emulator = Trainer(recipe_of(train=train), whole).train(np.arange(len(whole))).emulator
        assert emulator.model_covariance.rank == 11 // 3  # a tenth of 110 stars, three for every factor

    def test_regions_share_the_network(self) -> None:
        train = {**PAYNE, "covariance": {"rank": 2, "inflation": 1.0}, "regions": {"label": "teff", "centres": [4800.0, 6200.0]}}
        whole = training_set()
        inferrer = Trainer(recipe_of(train=train), whole).train(np.arange(len(whole)))
        regions = inferrer.regions  # type: ignore[union-attr]
        for region in regions:
            np.testing.assert_array_equal(region.predict_flux(whole.values[:5]), inferrer.emulator.predict_flux(whole.values[:5]))
        assert (regions[0].model_covariance.diagonal != regions[1].model_covariance.diagonal).any()
        assert len(inferrer.infer(whole.spectra[:4])) == 4


def test_errors_need_folds() -> None:
    with pytest.raises(RecipeError, match="cross-validation for errors of model 'held_out', got folds = 0"):
        train_on(recipe_of(validation={"folds": 0}), training_set())


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "", "cpu:0:0"])
def test_no_such_device(device: str) -> None:
    """Before anything is read, and for The Cannon too, where it would do nothing."""
    for train in ({}, PAYNE):
        with pytest.raises(RecipeError, match=r"device cpu or cuda \(or cuda:1, the second GPU\), got"):
            train_on(recipe_of(train=train), training_set(), device=device)


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("cuda:1", "cuda:9"):
        with pytest.raises(RecipeError, match=f"expected a GPU for the device '{device}', got none that PyTorch can use"):
            train_on(recipe_of(train=PAYNE), training_set(), device=device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(RecipeError, match="expected a GPU for the device 'cuda'"):
        train_on(recipe_of(train=PAYNE), training_set(), device="cuda")


def test_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RecipeError, match=r"expected PyTorch for training a network, .*pip install 'maury\[networks\]'"):
        train_on(recipe_of(train=PAYNE), training_set())
