"""Errors from repeat visits on LAMOST: 72 stars observed two to four times, with the model of the recipe ``miles``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from maury.assess.learn_repeats import IMIG2022, cross_fitted, fit_repeat_error_model
from maury.assess.repeats import RepeatScore, repeat_scores
from maury.assess.visits import VisitPairs, combine_visits, good_visits, visit_pairs
from maury.estimates import LabelEstimates
from maury.read import read_files
from maury.recipes import load_recipe, parse_recipe, run_recipe

Repeats = tuple[LabelEstimates, list[str], VisitPairs]


@pytest.fixture(scope="module")
def repeats(data: Path) -> Repeats:
    """Visits with formal errors, their stars, and the pairs."""
    recipe = load_recipe("miles").model_dump(mode="json")
    recipe["validation"]["folds"], recipe["errors"]["model"] = 0, "formal"
    model = run_recipe(parse_recipe(recipe, "test"), data).model
    table = Table.read(data / "lamost_repeats/groups.csv")
    result = read_files([data / "lamost_repeats/spectra" / str(file) for file in table["file"]])
    assert not result.failures
    visits = replace(model, error_model=None).infer(result.spectra)
    groups = [f"{group:.0f}" for group in table["group"]]
    return visits, groups, visit_pairs(groups, good_visits(visits))


@pytest.fixture(scope="module")
def calibrated(repeats: Repeats) -> LabelEstimates:
    visits, _, pairs = repeats
    return cross_fitted(visits, pairs)


def test_all_groups_have_pairs(repeats: Repeats) -> None:
    _, _, pairs = repeats
    assert (len(pairs), pairs.n_stars) == (96, 72)  # 63 stars with two visits, 7 with three, 2 with four


def scores(estimates: LabelEstimates, pairs: VisitPairs) -> dict[tuple[str, str], RepeatScore]:
    return {(row.label, row.selection[:4]): row for row in repeat_scores(estimates, pairs)}


def test_formal_errors_are_far_from_the_repeats(repeats: Repeats) -> None:
    # they contain the model's own error, most of which the visits of a star have in common
    visits, _, pairs = repeats
    found = scores(visits, pairs)
    assert found["logg", "all"].scatter < 0.65
    assert found["fe_h", "all"].scatter < 0.65


def test_errors_learned_from_other_stars_are_right_within_what_72_stars_can_tell(
    repeats: Repeats, calibrated: LabelEstimates
) -> None:
    # docs/results.md; a robust scatter of 72 stars is known to 1.17/sqrt(72) = 14 %, of half of them to 20 %, plus what the
    # learned errors are off by (as much again)
    _, _, pairs = repeats
    for (_, selection), row in scores(calibrated, pairs).items():
        assert abs(np.log(row.scatter)) < (0.4 if selection == "all" else 0.56)


def test_as_published_errors_are_too_small(repeats: Repeats, calibrated: LabelEstimates) -> None:
    visits, _, pairs = repeats
    published = cross_fitted(visits, pairs, IMIG2022)
    ratio = np.median(published.errors / calibrated.errors, axis=0)
    assert (ratio < 0.95).all()  # 0.66 for Gaussian errors; a free quadratic of 72 stars and heavy tails blur it


def test_combined_visits_are_better_than_single_ones(repeats: Repeats) -> None:
    visits, groups, pairs = repeats
    single = fit_repeat_error_model(visits, pairs).apply(visits)
    stars = combine_visits(single, groups, "inverse_variance")
    assert len(stars) == 72
    assert (np.median(stars.errors, axis=0) < 0.8 * np.median(single.errors, axis=0)).all()
    assert stars.meta["n_visits"].sum() == 155
