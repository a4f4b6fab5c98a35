"""Options of a recipe that the built-in ones leave off, each run once on the LAMOST stars with LASP labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maury.errors import MauryError
from maury.recipes import Recipe, load_recipe, parse_recipe, train_on
from maury.recipes.dataset import TrainingSet, load_training_set


@pytest.fixture(scope="module")
def training_set(data: Path) -> TrainingSet:
    return load_training_set(load_recipe("lamost"), data)


def lamost(**sections: dict[str, Any]) -> Recipe:
    content = load_recipe("lamost").model_dump(mode="json")
    for section, changes in sections.items():
        content[section] = {**content[section], **changes}
    return parse_recipe(content, "test")


def test_l1_strength_is_chosen_by_cross_validation(training_set: TrainingSet) -> None:
    train = {"l1": "cross_validation", "l1_strengths": [0.0, 1e9], "ridge": 0.0}
    run = train_on(lamost(train=train, validation={"folds": 0}, errors={"model": "formal"}), training_set)
    # 1e9 would shrink every slope to nothing: it predicts held-out spectra worse than no penalty at all
    assert np.abs(run.model.inferrer.emulator.predict_jacobian(training_set.values[:1])).max() > 0


def test_too_few_stars_for_an_error_polynomial_is_said(training_set: TrainingSet) -> None:
    with pytest.raises(MauryError, match="expected at least 4 bins of 20 stars to learn errors from, got 59 stars"):
        train_on(lamost(errors={"model": "snr"}), training_set)


def test_errors_of_the_training_labels_are_used(training_set: TrainingSet) -> None:
    assert training_set.errors is not None
    assert training_set.errors.shape == training_set.values.shape
    plain, weighted = (
        train_on(lamost(train={"label_errors": on}, validation={"folds": 0}, errors={"model": "formal"}), training_set)
        for on in (False, True)
    )
    one, two = (run.model.inferrer.emulator.predict_flux(training_set.values[:5]) for run in (plain, weighted))
    change = np.abs(one - two)
    assert 1e-6 < np.median(change) < np.percentile(change, 99) < 0.05


def test_formal_errors_stay_formal(training_set: TrainingSet) -> None:
    run = train_on(lamost(errors={"model": "formal"}), training_set)
    assert run.model.error_model is None
    assert run.scores


def test_training_twice_gives_the_same_model(training_set: TrainingSet) -> None:
    first, second = (train_on(lamost(), training_set).model for _ in range(2))
    assert first.model_id == second.model_id
