"""The batched fit against known truth, dense algebra and finite differences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from simulated import LABELS, draw, label_values, quadratic_model

from maury.emulate.cannon import CannonEmulator
from maury.emulate.polynomial import PolynomialTerms
from maury.estimates import LabelEstimates
from maury.fit.chi2 import PixelProblem, Problem, TermProblem, inverse_variance
from maury.fit.fitter import ChiSquareFitter, candidate_points, safe_inverse
from maury.fit.lm import LmSettings
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet
from maury.protocols import ModelCovariance, TermEmulator
from maury.spectra import Spectra

RANKS = pytest.mark.parametrize("rank", [0, 3])


@dataclass(frozen=True, eq=False)
class PixelOnly:
    """An emulator that does not say that it is linear in terms."""

    of: CannonEmulator

    def __getattr__(self, name: str) -> Any:
        if name in ("coefficients", "terms", "terms_jacobian"):
            raise AttributeError(name)
        return getattr(self.of, name)


def _stars(
    n: int, rank: int = 0, n_pixels: int = 60, seed: int = 3, **noise: float
) -> tuple[CannonEmulator, Spectra, np.ndarray]:
    rng = np.random.default_rng(seed)
    model = quadratic_model(n_pixels, rank=rank)
    values = 0.7 * (label_values(n, rng) - model.labels.unscale(np.zeros(3))) + model.labels.unscale(np.zeros(3))
    return model, draw(model, values, rng, **noise), values


def _fitted(estimates: LabelEstimates) -> tuple[np.ndarray, ...]:
    return estimates.values, estimates.covariance, estimates.chi2


# -- errors that are right --------------------------------------------------------------------------------------------


@RANKS
def test_pulls_and_coverage(rank: int) -> None:
    """2000 stars: standard deviation of the pulls 0.95-1.05, 68 and 95 % intervals cover 66-70 and 94-96 % in every label.

    The standard error of the deviation is 0.016, of the coverages 1.0 and 0.5 per cent: a factor of 0.93 in the errors fails.
    """
    model, spectra, values = _stars(2000, rank, n_pixels=300, error=0.005)
    estimates = ChiSquareFitter().fit(spectra, model)
    assert all(status is FitStatus.CONVERGED for status in estimates.status)
    pull = (estimates.values - values) / estimates.errors
    assert (np.abs(pull.mean(axis=0)) < 4 / np.sqrt(len(pull))).all()
    assert ((pull.std(axis=0) > 0.95) & (pull.std(axis=0) < 1.05)).all()
    for bound, low, high in ((0.99446, 0.66, 0.70), (1.95996, 0.94, 0.96)):  # two-sided 68 and 95 % of a Gaussian
        coverage = (np.abs(pull) < bound).mean(axis=0)
        assert ((coverage > low) & (coverage < high)).all()
    # the whole covariance, not only its diagonal: Mahalanobis distances of three labels have mean 3
    offset = estimates.values - values
    distance = np.einsum("nk,nkl,nl->n", offset, np.linalg.inv(estimates.covariance), offset)
    assert abs(distance.mean() - 3) < 4 * np.sqrt(6 / len(distance))
    # chi-square has n_pixels - 3 degrees of freedom
    assert abs((estimates.chi2 - estimates.n_pixels + 3).mean()) < 4 * np.sqrt(600 / len(distance))


def test_leaving_out_the_correlations_makes_errors_too_small() -> None:
    """The test above can fail: the same stars without the factors."""
    model, spectra, values = _stars(2000, 3, n_pixels=300, error=0.005)
    diagonal = ModelCovariance(model.model_covariance.diagonal)
    estimates = ChiSquareFitter().fit(spectra, model.with_covariance(diagonal))
    assert ((estimates.values - values) / estimates.errors).std(axis=0).max() > 1.15


# -- algebra ----------------------------------------------------------------------------------------------------------


@RANKS
def test_chi_square_is_the_dense_one(rank: int) -> None:
    """Woodbury against the inverse of the full covariance matrix, pixel by pixel."""
    model, spectra, values = _stars(4, rank, masked=0.0)
    scaled = model.labels.scale(values) + 0.3
    covariance = model.model_covariance
    for problem in (TermProblem(spectra, model), PixelProblem(spectra, model)):
        found = problem.chi2(np.arange(4), scaled)
        for n in range(4):
            dense = np.diag(1 / spectra.ivar[n] + covariance.diagonal)
            if covariance.factors is not None:
                dense += covariance.factors @ covariance.factors.T
            residual = spectra.flux[n] - model.predict_flux(model.labels.unscale(scaled[n : n + 1]))[0]
            np.testing.assert_allclose(found[n], residual @ np.linalg.inv(dense) @ residual, rtol=1e-9)


@RANKS
def test_term_space_equals_pixel_space(rank: int) -> None:
    model, spectra, _ = _stars(30, rank)
    term, pixel = TermProblem(spectra, model), PixelProblem(spectra, model)
    rng = np.random.default_rng(6)
    star = rng.integers(0, 30, 700)  # more rows than a block of the evaluation holds
    scaled = rng.normal(size=(700, 3))
    a, b = term.evaluate(star, scaled), pixel.evaluate(star, scaled)
    for name in ("chi2", "gradient", "hessian"):
        ours, theirs = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8 * np.abs(theirs).max())
    np.testing.assert_allclose(term.chi2(star, scaled), a.chi2, rtol=1e-10)
    np.testing.assert_allclose(pixel.chi2(star, scaled), b.chi2, rtol=1e-10)
    points = scaled[:9]
    np.testing.assert_allclose(term.chi2_table(points), pixel.chi2_table(points), rtol=1e-8)


@RANKS
@pytest.mark.parametrize("kind", [TermProblem, PixelProblem])
def test_derivatives_against_finite_differences(rank: int, kind: type[TermProblem] | type[PixelProblem]) -> None:
    model, spectra, values = _stars(5, rank)
    problem: Problem = kind(spectra, model)
    star, scaled, step = np.arange(5), model.labels.scale(values) + 0.2, 1e-5
    found = problem.evaluate(star, scaled)
    for k in range(3):
        shift = np.zeros(3)
        shift[k] = step
        slope = (problem.chi2(star, scaled + shift) - problem.chi2(star, scaled - shift)) / (2 * step)
        np.testing.assert_allclose(2 * found.gradient[:, k], slope, rtol=1e-5, atol=1e-5 * np.abs(found.gradient).max())
    linear = replace_second_order(model)  # without curvature the Gauss-Newton Hessian is the whole second derivative
    problem = kind(spectra, linear)
    up, down = (problem.evaluate(star, scaled + s * np.eye(3)[0]).gradient for s in (step, -step))
    np.testing.assert_allclose(problem.evaluate(star, scaled).hessian[:, 0], (up - down) / (2 * step), rtol=1e-5)


def replace_second_order(model: CannonEmulator) -> CannonEmulator:
    order = np.array([sum(p) for p in model.polynomial.powers])
    return replace(model, coefficients=np.where(order[:, None] < 2, model.coefficients, 0.0))


@RANKS
def test_both_problems_lead_to_the_same_estimates(rank: int) -> None:
    model, spectra, _ = _stars(20, rank)
    other = PixelOnly(model)
    assert isinstance(model, TermEmulator)
    assert not isinstance(other, TermEmulator)
    a, b = (ChiSquareFitter(n_candidates=32).fit(spectra, emulator) for emulator in (model, other))
    assert (np.abs(a.values - b.values) < 2e-3 * a.errors).all()
    np.testing.assert_allclose(a.chi2, b.chi2, rtol=1e-8)


def test_inverse_variance_is_zero_where_masked() -> None:
    model, spectra, _ = _stars(5, masked=0.3)
    weight = inverse_variance(spectra, model.model_covariance)
    assert ((weight == 0) == (spectra.ivar == 0)).all()
    good = spectra.ivar > 0
    diagonal = np.broadcast_to(model.model_covariance.diagonal, good.shape)
    np.testing.assert_allclose(1 / weight[good], 1 / spectra.ivar[good] + diagonal[good], rtol=1e-12)


def test_safe_inverse_says_which_matrices_are_singular() -> None:
    good = np.diag([1e10, 1.0, 1e-10])  # badly scaled, not singular
    inverse, regular = safe_inverse(np.stack([good, np.ones((3, 3)), np.full((3, 3), np.nan), np.zeros((3, 3))]))
    assert regular.tolist() == [True, False, False, False]
    np.testing.assert_allclose(inverse[0], np.diag([1e-10, 1.0, 1e10]), rtol=1e-12)
    assert np.isnan(inverse[1:]).all()


@pytest.mark.parametrize("n_labels", [1, 2, 5])
def test_candidates_fill_the_box_evenly(n_labels: int) -> None:
    lower, upper = np.full(n_labels, -2.0), np.linspace(1.0, 3.0, n_labels)
    points = candidate_points(lower, upper, 256)
    assert points.shape == (256, n_labels)
    np.testing.assert_allclose(points[0], (lower + upper) / 2)
    assert ((points >= lower) & (points <= upper)).all()
    unit = np.sort((points - lower) / (upper - lower), axis=0)
    even = (np.arange(256) + 0.5) / 256
    assert np.abs(unit - even[:, None]).max() < 0.03  # random points: 0.06 to 0.1
    np.testing.assert_array_equal(points, candidate_points(lower, upper, 256))


# -- every star for itself --------------------------------------------------------------------------------------------


@RANKS
def test_a_star_alone_is_the_star_in_a_batch(rank: int) -> None:
    model, spectra, _ = _stars(200, rank)
    batch = ChiSquareFitter(block=150).fit(spectra, model)
    for row in (0, 149, 150, 199):
        alone = ChiSquareFitter().fit(spectra[[row]], model)
        for a, b in zip(_fitted(alone), _fitted(batch), strict=True):
            np.testing.assert_allclose(a[0], b[row], rtol=1e-10, atol=1e-10 * np.abs(b[row]).max())
        assert (alone.flag[0], alone.status[0]) == (batch.flag[row], batch.status[row])


def test_order_is_irrelevant() -> None:
    model, spectra, _ = _stars(100, 3)
    order = np.random.default_rng(9).permutation(100)
    straight, mixed = ChiSquareFitter().fit(spectra, model), ChiSquareFitter().fit(spectra[order], model)
    assert mixed.ids.tolist() == spectra.ids[order].tolist()
    for a, b in zip(_fitted(mixed), _fitted(straight), strict=True):
        np.testing.assert_allclose(a, b[order], rtol=1e-10, atol=1e-10 * np.abs(b).max())


def test_what_stands_in_masked_pixels_has_no_influence() -> None:
    model, spectra, _ = _stars(50, 3, masked=0.2)
    garbage = np.where(spectra.ivar > 0, spectra.flux, 1e12)
    clean, dirty = ChiSquareFitter().fit(spectra, model), ChiSquareFitter().fit(spectra.with_pixels(flux=garbage), model)
    for a, b in zip(_fitted(dirty), _fitted(clean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    assert (clean.n_pixels == (spectra.ivar > 0).sum(axis=1)).all()


def test_garbage_does_not_disturb_the_others() -> None:
    model, spectra, _ = _stars(50)
    flux, ivar = np.array(spectra.flux), np.array(spectra.ivar)
    flux[7] = 1e150
    flux[8] = -np.random.default_rng(0).exponential(size=flux.shape[1]) * 1e6
    ivar[9] = 1e-300
    clean = ChiSquareFitter().fit(spectra, model)
    dirty = ChiSquareFitter().fit(spectra.with_pixels(flux=flux, ivar=ivar), model)
    others = ~np.isin(np.arange(50), [7, 8, 9])
    for a, b in zip(_fitted(dirty), _fitted(clean), strict=True):
        np.testing.assert_allclose(a[others], b[others], rtol=1e-10, atol=1e-10 * np.abs(b[others]).max())
    assert [dirty.status[i] for i in np.flatnonzero(others)] == [clean.status[i] for i in np.flatnonzero(others)]
    assert dirty.chi2[8] > 1e6
    for row in (7, 8, 9):  # whatever came out, nobody can take it for a good star: flagged, or a chi-square that says it
        assert dirty.flag[row] != 0 or dirty.chi2[row] > 1e6


def test_few_pixels_are_not_fitted_and_flagged() -> None:
    model, spectra, _ = _stars(6)
    ivar = np.array(spectra.ivar)
    ivar[2, 40:] = 0.0
    ivar[4] = 0.0
    estimates = ChiSquareFitter(min_pixels=45).fit(spectra.with_pixels(ivar=ivar), model)
    few = np.array([False, False, True, False, True, False])
    assert ((estimates.flag & int(ResultFlag.FEW_PIXELS) > 0) == few).all()
    assert (np.isnan(estimates.values).all(axis=1) == few).all()
    assert [s is FitStatus.NOT_FITTED for s in estimates.status] == few.tolist()
    assert "45" in estimates.reason[2]
    assert estimates.n_pixels[4] == 0


# -- bounds and minima ------------------------------------------------------------------------------------------------


def test_bounds_are_respected_and_flagged() -> None:
    model = quadratic_model(200)
    rng = np.random.default_rng(2)
    centre = model.labels.unscale(np.zeros(3))
    width = np.array(model.labels.upper) - np.array(model.labels.lower)
    beyond = np.stack([centre, centre, centre])
    beyond[1, 0] = model.labels.upper[0] + 0.05 * width[0]  # outside the training range, within the margin
    beyond[2, 0] = model.labels.upper[0] + 0.40 * width[0]  # outside the bounds
    estimates = ChiSquareFitter(margin=0.1).fit(draw(model, beyond, rng, error=0.002, masked=0.0), model)
    out, bound = (estimates.flag & int(bit) > 0 for bit in (ResultFlag.OUT_OF_RANGE, ResultFlag.AT_BOUND))
    assert out.tolist() == [False, True, True]
    assert bound.tolist() == [False, False, True]
    np.testing.assert_allclose(estimates.values[2, 0], model.labels.upper[0] + 0.1 * width[0], rtol=1e-9)
    assert (estimates.label_flags[2, 0] & int(ResultFlag.AT_BOUND)) > 0


def test_the_solution_at_a_bound_is_the_minimum_on_it() -> None:
    """Of a convex (linear) model: no move along the bound, and none into the box, lowers chi-square."""
    model = replace_second_order(quadratic_model(200))
    values = model.labels.unscale(np.array([[3.5, 0.3, -0.2]]))
    spectra = draw(model, values, np.random.default_rng(2), error=0.002, masked=0.0)
    fitter = ChiSquareFitter()
    estimates = fitter.fit(spectra, model)
    scaled = model.labels.scale(estimates.values)
    gradient = TermProblem(spectra, model).evaluate(np.array([0]), scaled).gradient[0]
    _, upper = fitter.bounds(model.labels)
    np.testing.assert_allclose(scaled[0, 0], upper[0])
    assert gradient[0] < 0  # it would go on
    sigma = estimates.errors[0] / np.abs(model.labels.unscale_slope(scaled)[0])
    np.testing.assert_allclose(gradient[1:] * sigma[1:], 0, atol=2e-2)


def test_a_second_minimum_is_found_and_flagged() -> None:
    """All pixels depend on label1^2 (and hardly on label1 itself): -1 describes a star at +1 nearly as well."""
    polynomial = PolynomialTerms.of_order(2, 2)
    rng = np.random.default_rng(3)
    labels = LabelSet.from_training(LABELS[:2], label_values(300, rng, 2))
    coefficients = np.zeros((polynomial.n_terms, 120))
    coefficients[0] = 1.0
    coefficients[polynomial.powers.index((2, 0))] = 0.05 * rng.normal(size=120)
    coefficients[polynomial.powers.index((0, 1))] = 0.05 * rng.normal(size=120)
    asymmetry = np.zeros_like(coefficients)
    asymmetry[polynomial.powers.index((1, 0))] = rng.normal(size=120)
    values = labels.unscale(np.array([[1.0, 0.3], [-1.0, 0.3]]))
    found = {}
    for name, size in (("rivals", 1e-4), ("plain", 0.02)):
        model = CannonEmulator(
            labels, 5000.0 + np.arange(120.0), coefficients + size * asymmetry, ModelCovariance(np.full(120, 1e-8)), polynomial
        )
        spectra = draw(model, values, np.random.default_rng(4), error=0.005, masked=0.0)
        found[name] = ChiSquareFitter().fit(spectra, model)
    several = {name: (e.flag & int(ResultFlag.SEVERAL_MINIMA)) > 0 for name, e in found.items()}
    assert several["rivals"].all()
    assert not several["plain"].any()
    # where the data can tell, the right one of the two was taken, from either side
    np.testing.assert_allclose(labels.scale(found["plain"].values), [[1.0, 0.3], [-1.0, 0.3]], atol=0.05)


def test_an_unconstrained_label_is_flagged() -> None:
    model, spectra, _ = _stars(5)
    order = np.array([p[2] for p in model.polynomial.powers])
    blind = replace(model, coefficients=np.where(order[:, None] > 0, 1e-5 * model.coefficients, model.coefficients))
    estimates = ChiSquareFitter().fit(spectra, blind)
    bit = int(ResultFlag.UNCONSTRAINED)
    assert ((estimates.label_flags & bit) > 0)[:, 2].all()
    assert not ((estimates.label_flags & bit) > 0)[:, :2].any()


def test_a_given_start_leads_to_the_same_minimum() -> None:
    model, spectra, values = _stars(50)
    searched = ChiSquareFitter().fit(spectra, model)
    started = ChiSquareFitter().fit(spectra, model, start=values)
    assert (np.abs(started.values - searched.values) < 2e-3 * searched.errors).all()


def test_no_row_needs_many_iterations() -> None:
    """Rounding must not keep a converged row busy, also where chi-square is 10^6: 8 iterations are enough for every star.

    At S/N of 10 and 60 pixels the residuals bend chi-square, Gauss-Newton steps shrink slowly: 60 are enough for all.
    """
    for error, limit in ((1e-4, 8), (0.01, 8), (0.1, 60)):
        model, spectra, _ = _stars(100, error=error)
        model = model.with_covariance(ModelCovariance(np.full(60, 1e-12)))
        fitter = ChiSquareFitter(optimiser=LmSettings(max_iterations=limit))
        assert all(status is FitStatus.CONVERGED for status in fitter.fit(spectra, model).status)
