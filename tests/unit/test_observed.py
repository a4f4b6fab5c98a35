"""Observed spectra without labels in a recipe: read and prepared like a part, left out with a reason; and what is judged on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mastar_files import write_goodspec
from parts_sample import OBSERVED, SYNTHETIC, WAVELENGTH, make_files, recipe_of

from maury.errors import RecipeError
from maury.grids import AnalyticSpectra
from maury.recipes import parse_recipe
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.recipes.observed import load_observed
from maury.recipes.run import _judged, train_on
from maury.recipes.schema import Recipe
from maury.recipes.training_part import TrainingPart
from maury.regress.noise import residuals_of, with_noise_of
from maury.spectra import Spectra

SEEN: dict[str, Any] = {"name": "seen", "spectra": "goodspec*.fits"}
"""Four visits of S/N 50, 101, 198 and 100, at levels about 100."""


def recipe(*seen: dict[str, Any], parts: tuple[dict[str, Any], ...] = (SYNTHETIC,), **changes: Any) -> Recipe:
    content = recipe_of(*parts, **{"train": {"method": "latent"}, **changes})
    content["data"]["observed"] = list(seen)
    return parse_recipe(content, "mine.toml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_files(tmp_path)


def found(folder: Path, *seen: dict[str, Any]) -> tuple[Spectra, dict[str, str]]:
    spectra, left_out = load_observed(recipe(*seen), folder)
    assert spectra is not None
    return spectra, dict(left_out)


class TestLoading:
    def test_they_are_prepared_on_the_grid_of_the_training(self, folder: Path) -> None:
        ready = recipe(SEEN)
        training_set = load_training_set(ready, folder)
        observed = training_set.observed
        assert observed is not None
        np.testing.assert_array_equal(observed.wavelength, training_set.spectra.wavelength)
        assert observed.preparation == training_set.spectra.preparation == ready.preparation.fingerprint
        np.testing.assert_allclose(observed.flux.mean(axis=1), [100, 101, 99, 100], rtol=1e-6)
        assert len(training_set) == 5  # they are no stars of the training set
        assert training_set.left_out == ()
        assert training_set[np.arange(2)].observed is observed

    def test_without_such_a_table_there_are_none(self, folder: Path) -> None:
        ready = parse_recipe(recipe_of(OBSERVED, SYNTHETIC), "mine.toml")
        assert load_observed(ready, folder) == (None, [])
        assert load_training_set(ready, folder).observed is None

    def test_several_tables_are_one_set(self, folder: Path) -> None:
        good = {**SEEN, "name": "good", "min_snr": 99}
        spectra, _ = found(folder, SEEN, good)
        np.testing.assert_allclose(spectra.flux.mean(axis=1), [100, 101, 99, 100, 101, 99, 100], rtol=1e-6)

    def test_what_is_too_noisy_is_left_out_with_its_ratio(self, folder: Path) -> None:
        ready = recipe({**SEEN, "min_snr": 99})
        spectra, left_out = load_observed(ready, folder)
        assert spectra is not None
        np.testing.assert_allclose(spectra.flux.mean(axis=1), [101, 99, 100], rtol=1e-6)
        assert left_out == [("goodspec.fits", "snr = 50.0 below 99")]
        assert load_training_set(ready, folder).left_out == tuple(left_out)

    def test_what_cannot_be_read_or_prepared_is_left_out_with_its_reason(self, folder: Path) -> None:
        """A file that is none, and a file of two spectra of which one has no velocity; the rest is used."""
        (folder / "goodspec-broken.fits").write_bytes(b"SIMPLE  =")
        flux = np.full((2, WAVELENGTH.size), 7.0)
        write_goodspec(folder / "goodspec2.fits", ["4-1", "4-2"], [1, 2], [1, 2], [np.nan, 0], flux, flux**0, WAVELENGTH)
        spectra, left_out = found(folder, SEEN)
        np.testing.assert_allclose(spectra.flux.mean(axis=1), [100, 101, 99, 100, 7], rtol=1e-6)
        assert set(left_out) == {"goodspec-broken.fits", "goodspec2.fits"}
        assert "velocit" in left_out["goodspec2.fits"]

    def test_progress_is_told(self, folder: Path) -> None:
        told: list[tuple[str, int, int]] = []
        load_observed(recipe(SEEN), folder, lambda *words: told.append(words))
        assert ("read", 1, 1) in told
        assert told[-1] == ("prepare", 4, 4)

    def test_no_file(self, folder: Path) -> None:
        with pytest.raises(
            RecipeError, match=r"^expected observed spectra 'seen' matching lost\*\.fits in .*, got no file; check"
        ):
            load_observed(recipe({**SEEN, "spectra": "lost*.fits"}), folder)

    def test_none_that_can_be_used(self, folder: Path) -> None:
        sentence = r"^expected observed spectra 'seen' that can be used, got none of 1 files; the first: snr = 50\.0 below 1000$"
        with pytest.raises(RecipeError, match=sentence):
            load_observed(recipe({**SEEN, "min_snr": 1000}), folder)
        (folder / "goodspec.fits").write_bytes(b"SIMPLE  =")
        with pytest.raises(RecipeError, match=r"^expected observed spectra 'seen' that can be used, got none of 1 files; "):
            load_observed(recipe(SEEN), folder)


def both(folder: Path, noise: Any, *seen: dict[str, Any]) -> tuple[Recipe, TrainingSet]:
    """Four labelled observed stars, then five synthetic ones."""
    table = {"noise": noise, "transfer": {"method": "labels"}}
    ready = recipe(*seen, parts=(OBSERVED, SYNTHETIC), train={"method": "latent", "latent": table})
    return ready, load_training_set(ready, folder)


class TestJudged:
    @pytest.mark.parametrize("noise", ["observed", [20, 30]])
    @pytest.mark.parametrize("seen", [(), (SEEN,)])
    def test_labelled_observed_stars_stay_as_they_are(self, folder: Path, noise: Any, seen: tuple[dict[str, Any], ...]) -> None:
        """They have noise of their own; synthetic ones get some."""
        ready, training_set = both(folder, noise, *seen)
        before = training_set.spectra.flux.copy()
        judged = _judged(ready, training_set)
        for name in ("flux", "ivar"):
            np.testing.assert_array_equal(getattr(judged, name)[:4], getattr(training_set.spectra, name)[:4])
        np.testing.assert_array_equal(np.asarray(judged.meta["snr"])[:4], np.asarray(training_set.spectra.meta["snr"])[:4])
        assert (judged.flux[4:] != before[4:]).all()
        np.testing.assert_array_equal(training_set.spectra.flux, before)
        assert judged.preparation == training_set.spectra.preparation

    def test_synthetic_stars_get_noise_of_those_observed(self, folder: Path) -> None:
        """Errors of 2, 1 and 0.5 per 0.5 Å are, in pixels of 1 Å, of the same ivar as the observed spectra's there."""
        ready = recipe(SEEN, train={"method": "latent", "latent": {"noise": "observed"}})
        training_set = load_training_set(ready, folder)
        assert training_set.observed is not None
        judged = _judged(ready, training_set)
        known = {tuple(row) for row in training_set.observed.ivar.tolist()}
        assert {tuple(row) for row in judged.ivar.tolist()} <= known
        pulls = (judged.flux - 0.5) * np.sqrt(judged.ivar)
        assert pulls.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * pulls.size))
        assert set(np.asarray(judged.meta["snr"]).tolist()) <= set(np.asarray(training_set.observed.meta["snr"]).tolist())
        np.testing.assert_array_equal(_judged(ready, training_set).flux, judged.flux)

    def test_every_second_one_gets_a_residual(self, folder: Path) -> None:
        ready = recipe(SEEN, train={"method": "latent", "latent": {"noise": "residuals"}})
        training_set = load_training_set(ready, folder)
        assert training_set.observed is not None
        judged, white = _judged(ready, training_set), with_noise_of(training_set.spectra, training_set.observed, 0)
        np.testing.assert_array_equal(judged.flux[::2], white.flux[::2])
        np.testing.assert_array_equal(judged.ivar, white.ivar)
        residuals = residuals_of(training_set.observed, training_set.spectra)
        added = (judged.flux - training_set.spectra.flux)[1::2]
        for row, good in zip(added, judged.ivar[1::2] > 0, strict=True):
            assert min(np.abs(row - one)[good].max() for one in residuals) < 1e-5

    def test_white_noise(self, folder: Path) -> None:
        ready = recipe(SEEN, train={"method": "latent", "latent": {"noise": [20, 30]}})
        judged = _judged(ready, load_training_set(ready, folder))
        snr = np.asarray(judged.meta["snr"])
        assert (snr >= 20).all()
        assert (snr <= 30).all()
        np.testing.assert_allclose(judged.ivar[judged.ivar > 0], np.repeat(snr**2, (judged.ivar > 0).sum(axis=1)), rtol=1e-6)

    def test_none_where_the_training_has_none(self, folder: Path) -> None:
        ready = recipe(SEEN, train={"method": "latent", "latent": {"noise": "none"}})
        training_set = load_training_set(ready, folder)
        assert _judged(ready, training_set) is training_set.spectra
        cannon = parse_recipe(recipe_of(OBSERVED, SYNTHETIC), "mine.toml")
        training_set = load_training_set(cannon, folder)
        assert _judged(cannon, training_set) is training_set.spectra


def test_a_training_knows_which_stars_were_observed_and_those_without_labels(folder: Path) -> None:
    """Cross-validation leaves labelled stars out; spectra without labels are in every training."""
    ready, training_set = both(folder, "observed", SEEN)
    part = TrainingPart.of(ready, training_set, np.array([0, 2, 5, 6, 8]))
    assert part.from_files.tolist() == [True, True, False, False, False]
    assert part.observed is training_set.observed
    assert len(part) == 5


def test_labelled_observed_stars_are_judged_by_trainings_without_them() -> None:
    """80 synthetic and 24 observed stars, of which every fold holds half; 30 more without labels are in each training.

    Labels of the model are good to a seventh of the range, and errors are learned from the stars that were left out.
    """
    star, grid = AnalyticSpectra(("teff", "logg")), 5050.0 + np.arange(150.0)
    ready = recipe(
        SEEN,
        parts=(OBSERVED, SYNTHETIC),
        train={
            "method": "latent",
            "latent": {
                "noise": "observed",
                "hidden": [24],
                "latent": 8,
                "autoencoders": 2,
                "max_epochs": 30,
                "batch_size": 32,
                "transfer": {"method": "labels", "frozen": [], "population": 0, "max_epochs": 40, "batch_size": 32},
            },
        },
        validation={"folds": 2, "seed": 1},
        errors={"model": "held_out"},
    )
    rng = np.random.default_rng(1)
    values = np.array([4500.0, 1.5]) + rng.random((134, 2)) * [2000.0, 3.0]
    noisy = star.spectra(grid, values, snr=100, seed=2).with_pixels(preparation=ready.preparation.fingerprint)
    part = ("observed",) * 24 + ("synthetic",) * 80
    spectra, observed = noisy[:104], noisy[104:]
    of_files = np.arange(104) < 24
    training_set = TrainingSet(spectra, values[:104], None, None, (), part, of_files, None, of_files, observed)
    run = train_on(ready, training_set)
    assert run.held_out is not None
    again = train_on(ready, training_set).held_out
    assert again is not None
    np.testing.assert_array_equal(again.values, run.held_out.values)  # folds do not disturb each other's noise
    assert len(run.held_out) == len(run.scored) == 24
    assert run.transfer is not None
    assert {e.spectra: e.n for e in run.transfer.errors}["observed"] + 11 == 54
    assert set(run.histories) == {"autoencoder_0", "transfer_0", "autoencoder_1", "transfer_1"}
    rms = np.sqrt(((run.held_out.values - values[:24]) ** 2).mean(axis=0))
    assert (rms < np.array([2000.0, 3.0]) / 7).all()
    assert 0.4 < (np.abs(run.held_out.values - values[:24]) < run.held_out.errors).mean() < 0.95
    found = run.model.infer_prepared(observed)
    assert (np.sqrt(((found.values - values[104:]) ** 2).mean(axis=0)) < np.array([2000.0, 3.0]) / 7).all()
    assert run.model.inferrer.names == tuple((f"autoencoder {i}, network 0",) for i in range(2))
