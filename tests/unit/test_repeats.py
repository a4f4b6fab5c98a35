"""Errors from repeat visits: what is planted is found, what is published is reproduced, and nothing extrapolates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from maury.assess.learn_repeats import IMIG2022, RepeatConfig, cross_fitted, fit_repeat_error_model
from maury.assess.repeats import LOG_BIAS, RepeatErrorModel, n_terms, pair_pulls, pair_sigma, repeat_scores, weighted_median
from maury.assess.visits import combine_visits, good_visits, visit_pairs
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet, make_label
from maury.report.emulator_figure import emulator_figure
from maury.report.repeat_figure import repeat_figure
from maury.report.style import save_figure

LABELS = LabelSet((make_label("teff", "K"), make_label("logg", "dex")), (5000.0, 4.0), (500.0, 0.5), (4000.0, 1.0), (7000.0, 5.0))
QUICK = RepeatConfig(ridges=(1e-4, 0.1, np.inf))


def estimates_of(values: np.ndarray, errors: np.ndarray, snr: np.ndarray, rho: float = 0.5) -> LabelEstimates:
    n = len(values)
    correlation = np.array([[1.0, rho], [rho, 1.0]])
    return LabelEstimates(
        LABELS,
        np.array([f"s{i}" for i in range(n)]),
        values,
        correlation * errors[:, :, None] * errors[:, None, :],
        np.ones(n),
        np.full(n, 100),
        (FitStatus.CONVERGED,) * n,
        np.zeros(n, np.int64),
        np.zeros((n, 2), np.int64),
        ("",) * n,
        Table({"file": [f"{i}.fits" for i in range(n)], "snr": snr}),
    )


def planted_sigma(truth: np.ndarray, snr: np.ndarray) -> np.ndarray:
    """True errors: fall with S/N, rise with Teff; ln sigma is a quadratic of what the model is given."""
    hot = (truth[:, 0] - 5500.0) / 800.0
    return np.exp(0.3 * hot + 0.1 * hot**2 - 0.8 * np.log(snr / 60.0))[:, None] * np.array([40.0, 0.05])


def survey(
    n_stars: int, seed: int, *, n_visits: int = 2, snr_spread: float = 0.5
) -> tuple[LabelEstimates, list[str], np.ndarray]:
    """Visits of stars with planted errors, groups, and those errors; formal errors are half as large and all alike."""
    rng = np.random.default_rng(seed)
    star = np.repeat(np.arange(n_stars), n_visits)
    truth = np.column_stack([rng.uniform(4200, 6800, n_stars), rng.uniform(1.5, 4.8, n_stars)])[star]
    snr = 60.0 * np.exp(snr_spread * rng.normal(size=star.size))
    sigma = planted_sigma(truth, snr)
    values = truth + sigma * rng.normal(size=sigma.shape)
    return estimates_of(values, np.tile([20.0, 0.025], (star.size, 1)), snr), [f"star {i}" for i in star], sigma


# -- the pair estimator -----------------------------------------------------------------------------------------------


def test_mean_of_the_pair_estimator_is_sigma_and_its_logarithm_is_biased() -> None:
    # METHODS 4; 400,000 pairs: the mean is known to 0.12 %, the mean logarithm (s.d. pi/sqrt 8) to 0.0018
    x = np.random.default_rng(1).normal(scale=3.0, size=(2, 400_000))
    estimate = pair_sigma(*x)
    assert estimate.mean() == pytest.approx(3.0, rel=0.01)
    assert np.mean(np.log(estimate / 3.0)) == pytest.approx(LOG_BIAS, abs=0.01)
    assert pytest.approx(-0.409, abs=5e-4) == LOG_BIAS


def test_pairs_of_a_star_share_its_weight() -> None:
    pairs = visit_pairs(["a", "b", "a", "", "a", "", "c", "b"])
    assert sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [(0, 2), (0, 4), (1, 7), (2, 4)]
    assert pairs.n_stars == 2
    np.testing.assert_allclose(np.bincount(pairs.star, pairs.weight), 1.0)
    assert len(visit_pairs(["a", "b", "a"], np.array([True, True, False]))) == 0
    assert visit_pairs([]).n_stars == 0


def test_weighted_median_of_known_cases() -> None:
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.ones(3)) == 2.0
    assert weighted_median(np.array([1.0, 2.0, 3.0, 10.0]), np.ones(4)) == 2.5
    assert weighted_median(np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.2, 5.0])) == 3.0
    assert np.isnan(weighted_median(np.zeros(0), np.zeros(0)))


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [True, False])
def test_debiased_recovers_the_planted_errors(relative: bool) -> None:
    # 2000 pairs, 10 coefficients per label: ln sigma of a typical visit is known to sqrt(10/2000/1.2) = 6 %, at the rim to twice
    visits, groups, sigma = survey(2000, 2)
    model = fit_repeat_error_model(visits, visit_pairs(groups), replace(QUICK, relative=relative))
    log_ratio = np.log(model.sigma(visits.values, visits.errors, np.asarray(visits.meta["snr"])) / sigma)
    assert abs(np.median(log_ratio)) < 0.03
    assert np.std(log_ratio) < 0.1
    others, other_groups, _ = survey(2000, 3)
    pulls = pair_pulls(model.apply(others), visit_pairs(other_groups))
    np.testing.assert_allclose(pulls.std(axis=0), 1.0, atol=0.06)


def test_as_published_gives_two_thirds_of_sigma() -> None:
    visits, groups, _ = survey(3000, 4)
    truth = np.repeat(visits.values[::2], 2, axis=0)
    flat = visits.with_(values=truth + np.random.default_rng(5).normal(size=truth.shape) * [40.0, 0.05])
    model = fit_repeat_error_model(flat, visit_pairs(groups), IMIG2022)
    sigma = model.sigma([[5500.0, 3.0]], [[1.0, 1.0]], [60.0])[0]
    np.testing.assert_allclose(sigma / [40.0, 0.05], np.exp(LOG_BIAS), rtol=0.08)  # its error is 1.11 sqrt(3/3000) = 4 %
    debiased = fit_repeat_error_model(flat, visit_pairs(groups), RepeatConfig(ridges=(np.inf,)))
    np.testing.assert_allclose(debiased.sigma([[5500.0, 3.0]], [[20.0, 0.025]], [60.0])[0], [40.0, 0.05], rtol=0.06)


def test_each_visit_has_its_own_error() -> None:
    """Pairs of one good and one poor visit: the error of the difference is that of the poor one, and both are found."""
    rng = np.random.default_rng(6)
    visits, groups, _ = survey(3000, 6)
    snr = np.where(np.arange(len(visits)) % 2, 20.0, 200.0) * np.exp(rng.normal(0.0, 0.3, len(visits)))
    sigma = np.array([40.0, 0.05]) * (60.0 / snr)[:, None]
    truth = np.repeat(np.column_stack([rng.uniform(4200, 6800, 3000), rng.uniform(1.5, 4.8, 3000)]), 2, axis=0)
    values = truth + sigma * rng.normal(size=sigma.shape)
    mixed = visits.with_(values=values, meta=Table({"snr": snr}))
    model = fit_repeat_error_model(mixed, visit_pairs(groups), QUICK)
    found = model.sigma([[5500.0, 3.0]] * 2, [[20.0, 0.025]] * 2, [20.0, 60.0])
    np.testing.assert_allclose(found / [40.0, 0.05], np.array([[3.0] * 2, [1.0] * 2]), rtol=0.15)


def test_wild_pairs_do_not_set_the_errors() -> None:
    visits, groups, _ = survey(1000, 7)
    wild = np.array(visits.values)
    wild[::20, 0] += 3000.0  # a tenth of the pairs
    clean, spoilt = (
        fit_repeat_error_model(visits.with_(values=v), visit_pairs(groups), RepeatConfig(ridges=(0.1,)))
        for v in (visits.values, wild)
    )
    where = ([[5500.0, 3.0]], [[20.0, 0.025]], [60.0])
    assert 1.0 < (spoilt.sigma(*where) / clean.sigma(*where))[0, 0] < 1.35


def test_few_pairs_do_not_overfit() -> None:
    # 80 pairs whose errors depend on nothing: the ridge that cross-validation chooses keeps ln sigma flat
    spread = []
    for seed in range(8):
        visits, groups, _ = survey(80, 100 + seed, snr_spread=0.5)
        rng = np.random.default_rng(seed)
        truth = np.repeat(visits.values[::2], 2, axis=0)
        flat = visits.with_(values=truth + rng.normal(size=truth.shape) * [40.0, 0.05])
        model = fit_repeat_error_model(flat, visit_pairs(groups))
        spread.append(np.std(np.log(model.sigma(flat.values, flat.errors, np.asarray(flat.meta["snr"]))), axis=0))
    assert np.median(spread) < 0.1  # without a ridge it is about 0.45


def test_visits_equal_to_the_digit() -> None:
    visits, groups, _ = survey(200, 8)
    same = np.array(visits.values)
    same[1:40:2] = same[0:40:2]  # a tenth of the pairs
    for config in (QUICK, IMIG2022):
        model = fit_repeat_error_model(visits.with_(values=same), visit_pairs(groups), config)
        assert np.isfinite(model.coefficients).all()
    with pytest.raises(UsageError, match="expected visits that differ, got equal teff in every pair"):
        fit_repeat_error_model(visits.with_(values=np.repeat(same[::2], 2, axis=0)), visit_pairs(groups), QUICK)


def test_too_few_stars_and_one_visit_stars() -> None:
    visits, groups, _ = survey(19, 9)
    with pytest.raises(UsageError, match="expected at least 20 stars with repeat visits to learn errors from, got 19"):
        fit_repeat_error_model(visits, visit_pairs(groups))
    with pytest.raises(UsageError, match=r"expected at least 20 stars .* got 0"):
        fit_repeat_error_model(visits, visit_pairs([str(i) for i in range(len(visits))]))
    with pytest.raises(UsageError, match="expected at least one pair of visits"):
        repeat_scores(visits, visit_pairs([str(i) for i in range(len(visits))]))
    with pytest.raises(UsageError, match="expected variant 'debiased' or 'as_published', got 'best'"):
        RepeatConfig("best")  # type: ignore[arg-type]


def test_visits_without_snr_or_errors_teach_nothing() -> None:
    visits, groups, _ = survey(60, 10)
    snr = np.array(visits.meta["snr"])
    values, covariance = np.array(visits.values), np.array(visits.covariance)
    snr[0], values[2], covariance[4] = np.nan, np.nan, 0.0
    holes = visits.with_(values=values, covariance=covariance, meta=Table({"snr": snr}))
    without = visits[6:]
    model = fit_repeat_error_model(holes, visit_pairs(groups), QUICK)
    assert model == fit_repeat_error_model(without, visit_pairs(groups[6:]), QUICK)


def test_cross_fitting_gives_a_star_no_say_in_its_own_errors() -> None:
    visits, groups, _ = survey(40, 11)
    pairs = visit_pairs(groups)
    shifted = np.array(visits.values)
    shifted[1, 1] = shifted[0, 1] + 1e-3  # within the ranges, so inputs of the other stars stay as they are
    config = RepeatConfig(ridges=(0.1,))
    before = cross_fitted(visits.with_(values=_with_logg(visits, 1, shifted[0, 1] + 0.2)), pairs, config, n_folds=40, n_repeats=1)
    after = cross_fitted(visits.with_(values=shifted), pairs, config, n_folds=40, n_repeats=1)
    np.testing.assert_allclose(before.errors[0], after.errors[0], rtol=1e-12)
    assert (np.abs(before.errors[2:] / after.errors[2:] - 1.0) > 1e-6).any()
    assert after.raw_covariance is visits.covariance


def _with_logg(visits: LabelEstimates, row: int, logg: float) -> np.ndarray:
    values = np.array(visits.values)
    values[row, 1] = logg
    return values


# -- applying ---------------------------------------------------------------------------------------------------------


def steep_model(**changes: object) -> RepeatErrorModel:
    """Of one input label and S/N, with quadratic terms that would explode outside the range."""
    model = RepeatErrorModel(
        labels=("logg", "teff"),
        units=("dex", "K"),
        inputs=("teff",),
        lower=(4000.0, 20.0),
        upper=(7000.0, 200.0),
        centre=(5500.0, 100.0),
        spread=(500.0, 50.0),
        coefficients=((0.0, 0.1, -0.5, 0.3, 0.0, 0.2), (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        relative=False,
        log_snr=False,
    )
    return replace(model, **changes)  # type: ignore[arg-type]


def test_the_quadratic_is_what_it_says() -> None:
    # x = (1, -1): 1, x1, x2, x1^2, x1 x2, x2^2
    sigma = steep_model().sigma([[4.0, 6000.0]], [[1.0, 1.0]], [50.0])
    np.testing.assert_allclose(np.log(sigma), [[0.1 + 0.5 + 0.3 + 0.2, 1.0]])
    assert n_terms(4) == 15


@pytest.mark.parametrize("relative", [True, False])
def test_inputs_are_clamped_and_what_lies_outside_is_flagged(relative: bool) -> None:
    model = steep_model(relative=relative)
    values = np.array([[4000.0, 3.0], [3000.0, 3.0], [5500.0, 3.0], [5500.0, 3.0], [5500.0, 3.0]])
    visits = estimates_of(values, np.full((5, 2), 2.0), np.array([200.0, 900.0, 20.0, 1.0, np.nan]))
    after = model.apply(visits)
    np.testing.assert_allclose(after.errors[1], after.errors[0])
    np.testing.assert_allclose(after.errors[3], after.errors[2])
    np.testing.assert_allclose(after.errors[4], 2.0)  # without S/N formal errors stay
    np.testing.assert_allclose(after.errors[0, 0], np.exp(1.0) * (2.0 if relative else 1.0))  # labels in another order
    assert [bool(f & ResultFlag.ERROR_EXTRAPOLATED) for f in after.flag] == [False, True, False, True, True]


def test_a_broken_model_is_refused() -> None:
    with pytest.raises(UsageError, match="expected 2 ranges, centres and spreads and 6 coefficients per label"):
        steep_model(lower=(1.0,))
    with pytest.raises(UsageError, match="expected variant"):
        steep_model(variant="other")


def test_scores_are_one_for_right_errors_and_see_what_is_wrong() -> None:
    visits, groups, sigma = survey(3000, 12)
    pairs = visit_pairs(groups)
    right = visits.with_(covariance=np.eye(2) * sigma[:, :, None] ** 2)
    for row in repeat_scores(right, pairs, n_bootstrap=0):
        assert row.scatter == pytest.approx(1.0, abs=0.08)  # 1.17/sqrt(1500) = 0.03
        assert row.inside == pytest.approx(0.683, abs=0.03)  # sqrt(0.68 0.32/1500) = 0.012
    halves = [row for row in repeat_scores(visits, pairs) if row.label == "teff"]
    assert halves[1].scatter > 1.3 * halves[2].scatter  # formal errors do not know of S/N
    assert halves[1].n_pairs + halves[2].n_pairs == halves[0].n_pairs == 3000
    assert halves[0].uncertainty == pytest.approx(1.17 * halves[0].scatter / np.sqrt(3000), rel=0.35)


# -- visits to stars --------------------------------------------------------------------------------------------------


def visits_of_three_stars() -> LabelEstimates:
    values = np.array([[5000.0, 4.0], [5060.0, 4.2], [5010.0, 4.1], [6000.0, 3.0], [np.nan] * 2, [np.nan] * 2])
    errors = np.array([[10.0, 0.1], [20.0, 0.1], [10.0, 0.3], [50.0, 0.2], [np.nan] * 2, [np.nan] * 2])
    visits = estimates_of(values, errors, np.array([30.0, 40.0, 120.0, 50.0, 10.0, 5.0]))
    flag = np.array([0, ResultFlag.OUTSIDE_TRAINING, 0, 0, ResultFlag.FAILED, ResultFlag.UNREADABLE])
    return visits.with_(flag=flag, reason=("",) * 4 + ("no light", "cut short"), n_pixels=np.full(6, 100))


GROUPS = ["a", "a", "a", "b", "b", "c"]


def test_imig_takes_the_median_and_the_larger_error() -> None:
    stars = combine_visits(visits_of_three_stars(), GROUPS)
    assert list(stars.ids) == ["a", "b", "c"]
    np.testing.assert_allclose(stars.values[0], [5010.0, 4.1])
    np.testing.assert_allclose(stars.errors[0], [10.0, 0.1])  # MAD 10 and 0.1; median errors 10 and 0.1
    np.testing.assert_allclose(stars.correlation[0, 0, 1], 0.5)
    np.testing.assert_allclose(stars.values[1], [6000.0, 3.0])
    np.testing.assert_allclose(stars.errors[1], [50.0, 0.2])


def test_the_spread_counts_where_it_is_larger_than_the_errors() -> None:
    visits = estimates_of(np.array([[5000.0, 4.0], [5100.0, 4.0]]), np.full((2, 2), 0.1), np.array([50.0, 50.0]))
    np.testing.assert_allclose(combine_visits(visits, ["a", "a"]).errors, [[50.0, 0.1]])


def test_inverse_variance() -> None:
    stars = combine_visits(visits_of_three_stars(), GROUPS, "inverse_variance")
    weight = np.array([1 / 100, 1 / 400, 1 / 100])
    np.testing.assert_allclose(stars.values[0, 0], weight @ [5000.0, 5060.0, 5010.0] / weight.sum())
    np.testing.assert_allclose(stars.errors[0, 0], weight.sum() ** -0.5)
    alike = estimates_of(np.array([[5000.0, 4.0]] * 4), np.full((4, 2), 0.2), np.full(4, 50.0), rho=-0.6)
    four = combine_visits(alike, ["a"] * 4, "inverse_variance")
    np.testing.assert_allclose(four.errors, 0.1)
    np.testing.assert_allclose(four.correlation[0, 0, 1], -0.6)


def test_flags_counts_and_reasons_of_stars() -> None:
    stars = combine_visits(visits_of_three_stars(), GROUPS)
    assert list(stars.meta["n_visits"]) == [3, 1, 0]
    assert list(stars.meta["n_visits_all"]) == [3, 2, 1]
    assert stars.flag[0] == ResultFlag.OUTSIDE_TRAINING
    assert stars.flag[1] == 0  # the failed visit was not used
    assert stars.flag[2] == ResultFlag.UNREADABLE | ResultFlag.FAILED
    assert np.isnan(stars.values[2]).all()
    assert "cut short" in stars.reason[2]
    assert stars.status[2] is FitStatus.NOT_FITTED
    np.testing.assert_allclose(stars.meta["snr"][0], 130.0)  # 30, 40, 120
    assert stars.meta["file"][0] == "0.fits|1.fits|2.fits"
    np.testing.assert_array_equal(stars.n_pixels, [300, 100, 0])


def test_doubtful_visits_are_left_out_where_there_are_better_ones() -> None:
    visits = visits_of_three_stars()
    doubtful = visits.with_(flag=np.array([0, ResultFlag.POOR_CHI2, 0, ResultFlag.POOR_CHI2, 0, 0]))
    assert list(good_visits(doubtful)) == [True, False, True, False, False, False]
    stars = combine_visits(doubtful, GROUPS)
    assert list(stars.meta["n_visits"]) == [2, 1, 0]
    assert stars.flag[0] == 0
    assert stars.flag[1] == ResultFlag.POOR_CHI2  # the only one there is


def test_a_visit_of_no_known_star_is_its_own() -> None:
    assert list(combine_visits(visits_of_three_stars(), ["a", "", "a", "", "", "a"]).ids) == ["a", "s1", "s3", "s4"]
    with pytest.raises(UsageError, match="expected the star of each of 6 visits, got 2 names"):
        combine_visits(visits_of_three_stars(), ["a", "b"])
    with pytest.raises(UsageError, match="expected method imig2022 or inverse_variance, got 'mean'"):
        combine_visits(visits_of_three_stars(), GROUPS, "mean")  # type: ignore[arg-type]


# -- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_drawn_and_say_what_they_need(tmp_path: Path) -> None:
    visits, groups, _ = survey(40, 13)
    pairs = visit_pairs(groups)
    figure = repeat_figure(
        {"formal errors": visits, "from repeat visits": cross_fitted(visits, pairs, QUICK, n_repeats=1)}, pairs
    )
    assert len(figure.axes) == 4  # two labels
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "Gaussian",
        "formal errors",
        "from repeat visits",
    ]
    save_figure(figure, tmp_path / "repeats.png")
    save_figure(emulator_figure([5000.0, 5001.0], [[0.2, np.nan], [0.9, 1.0]], (0.01, 0.04)), tmp_path / "emulator.pdf")
    assert {path.name for path in tmp_path.iterdir()} == {"repeats.png", "emulator.pdf"}
    with pytest.raises(UsageError, match="expected one to 4 sets of errors to draw, got 0"):
        repeat_figure({}, pairs)
    with pytest.raises(UsageError, match=r"expected shares \(1, 2\)"):
        emulator_figure([5000.0, 5001.0], np.zeros((2, 2)), (0.01,))
