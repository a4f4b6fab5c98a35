"""The velocity as one more label: recovered with right errors, by steps on an approximation that ends exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from network import MAX_KM_S, moving_stars, network

from maury.emulate.payne import PayneEmulator
from maury.errors import UsageError
from maury.fit.chi2 import ExactProblem, PixelProblem
from maury.fit.fitter import ChiSquareFitter
from maury.fit.moving import MovingTermProblem
from maury.fit.prior import LabelPrior
from maury.fit.problems import make_problem
from maury.fit.velocity import NodePolynomial, VelocityLabel, chebyshev_nodes
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet
from maury.protocols import ModelCovariance

RANKS = pytest.mark.parametrize("rank", [0, 3])
FITTER = ChiSquareFitter(velocity=VelocityLabel(MAX_KM_S))


@dataclass(frozen=True, eq=False)
class PixelOnly:
    """A network that does not say that it is linear in terms."""

    of: PayneEmulator

    def __getattr__(self, name: str) -> Any:
        if name in ("coefficients", "terms", "terms_jacobian"):
            raise AttributeError(name)
        return getattr(self.of, name)

    def with_covariance(self, covariance: ModelCovariance) -> PixelOnly:
        return PixelOnly(self.of.with_covariance(covariance))


@RANKS
def test_labels_and_velocity_have_right_errors(rank: int) -> None:
    """600 stars: standard deviation of the pulls 0.9-1.1 for each label and the velocity; its own error is 0.03."""
    model = network(rank=rank)
    spectra, values = moving_stars(model, 600)
    estimates = FITTER.fit(spectra, model)
    assert estimates.labels.names[-1] == "delta_rv"
    assert all(status is FitStatus.CONVERGED for status in estimates.status)
    pull = (estimates.values - values) / estimates.errors
    assert (np.abs(np.median(pull, axis=0)) < 4 * 1.25 / np.sqrt(600)).all()
    assert ((pull.std(axis=0) > 0.9) & (pull.std(axis=0) < 1.1)).all()
    degrees = estimates.n_pixels - 4
    assert abs((estimates.chi2 - degrees).mean()) < 4 * np.sqrt(2 * degrees.mean() / 600)


@RANKS
def test_the_exact_stage_is_the_problem_over_pixels(rank: int) -> None:
    """Nodes lose some 1e-5 of the flux, a thousandth of the noise: chi-square of 380 pixels to 0.2, derivatives alike."""
    model = network(rank=rank)
    spectra, values = moving_stars(model, 40)
    moving = VelocityLabel(MAX_KM_S).extend(model)
    problem, pixel = MovingTermProblem(spectra, moving), PixelProblem(spectra, moving)
    assert isinstance(problem, ExactProblem)
    star, scaled = np.arange(40), moving.labels.scale(values) + 0.02
    exact, truth = problem.exact(star, scaled), pixel.evaluate(star, scaled)
    np.testing.assert_allclose(exact.chi2, truth.chi2, rtol=0, atol=0.2)
    np.testing.assert_allclose(exact.gradient, truth.gradient, rtol=0, atol=5e-3 * np.abs(truth.gradient).max())
    scale = np.sqrt(np.einsum("nk,nl->nkl", *2 * [np.einsum("nkk->nk", truth.hessian)]))
    np.testing.assert_allclose(exact.hessian / scale, truth.hessian / scale, rtol=0, atol=0.03)
    kept = problem.exact(star, scaled, truth.hessian)
    np.testing.assert_allclose(kept.gradient, exact.gradient, rtol=0, atol=1e-5 * np.abs(exact.gradient).max())
    assert kept.hessian is not exact.hessian
    np.testing.assert_array_equal(kept.hessian, truth.hessian)


def test_the_approximate_stage_has_the_derivatives_of_its_own_chi_square() -> None:
    model = network(rank=2)
    spectra, values = moving_stars(model, 12)
    moving = VelocityLabel(MAX_KM_S).extend(model)
    problem = MovingTermProblem(spectra, moving)
    star, scaled = np.arange(12), moving.labels.scale(values) + 0.1
    gradient = problem.evaluate(star, scaled).gradient
    for k in range(4):
        step = 1e-3 * np.eye(4)[k]
        slope = (problem.chi2(star, scaled + step) - problem.chi2(star, scaled - step)) / 4e-3
        np.testing.assert_allclose(gradient[:, k], slope, rtol=0, atol=2e-3 * np.abs(gradient).max())
    # and it is near the exact one, which is what it is for
    exact = problem.exact(star, scaled).chi2
    assert (np.abs(problem.chi2(star, scaled) - exact) < 0.05 * exact + 10).all()


def test_a_velocity_beyond_the_range_is_at_its_bound_and_flagged() -> None:
    model = network()
    spectra, values = moving_stars(model, 30)
    narrow = ChiSquareFitter(velocity=VelocityLabel(0.4 * MAX_KM_S))
    estimates = narrow.fit(spectra, model)
    beyond = np.abs(values[:, 3]) > 0.44 * MAX_KM_S
    assert beyond.any()
    assert (estimates.label_flags[beyond, 3] & int(ResultFlag.AT_BOUND) != 0).all()
    inside = np.abs(values[:, 3]) < 0.35 * MAX_KM_S
    assert not (estimates.label_flags[inside, 3] & int(ResultFlag.AT_BOUND)).any()


def test_masked_pixels_and_pixels_the_model_does_not_know_have_no_influence() -> None:
    """Whatever the spectrum holds there, and the model, and next to them."""
    model = network(unknown=slice(150, 190))
    spectra, _ = moving_stars(model, 20)
    before = FITTER.fit(spectra, model)
    wild = np.where(spectra.ivar > 0, spectra.flux, 50.0)
    wild[:, 150:190] = -30.0
    basis, mean = model.basis.copy(), model.mean.copy()
    basis[:, 150:190], mean[150:190] = 3.0, 7.0
    after = FITTER.fit(spectra.with_pixels(flux=wild), replace(model, basis=basis, mean=mean))
    np.testing.assert_allclose((after.values - before.values) / before.errors, 0, atol=1e-3)
    np.testing.assert_allclose(after.chi2, before.chi2, rtol=1e-5)
    assert (before.n_pixels < 400 - 40 - 2).all()  # the ends and the neighbours of the unknown pixels, too


def test_a_star_alone_is_the_star_in_a_batch() -> None:
    model = network(rank=2)
    spectra, _ = moving_stars(model, 25)
    batch = FITTER.fit(spectra, model)
    for row in (0, 7):
        alone = FITTER.fit(spectra[row : row + 1], model)
        np.testing.assert_allclose((alone.values - batch.values[[row]]) / batch.errors[[row]], 0, atol=2e-2)
        np.testing.assert_allclose(alone.chi2, batch.chi2[[row]], atol=2e-3)


def test_emulators_that_are_not_linear_in_terms_are_fitted_over_pixels() -> None:
    model = network(n_pixels=150)
    spectra, _ = moving_stars(model, 6)
    moving = VelocityLabel(MAX_KM_S).extend(PixelOnly(model))
    assert not moving.is_linear
    assert isinstance(make_problem(spectra, moving), PixelProblem)
    with pytest.raises(UsageError, match="linear in terms"):
        MovingTermProblem(spectra, moving)
    fitter = replace(FITTER, n_candidates=16)
    slow, fast = fitter.fit(spectra, PixelOnly(model)), fitter.fit(spectra, model)
    np.testing.assert_allclose((slow.values - fast.values) / fast.errors, 0, atol=0.05)
    np.testing.assert_allclose(slow.chi2, fast.chi2, atol=0.05)
    np.testing.assert_allclose(slow.errors, fast.errors, rtol=0.1)  # of 150 pixels each mask counts; of 4563, 0.4 % rms


def test_a_prior_holds_to_the_end() -> None:
    """One narrow component around the truth's middle pulls the labels; the end is the minimum of both together."""
    model = network()
    spectra, _ = moving_stars(model, 20, error=0.2)
    prior = LabelPrior(np.ones(1), np.zeros((1, 3)), 25.0 * np.eye(3)[None])
    free, held = FITTER.fit(spectra, model), replace(FITTER, prior=prior).fit(spectra, model)
    size = [np.abs(model.labels.scale(e.values[:, :3])).mean() for e in (free, held)]
    assert size[1] < 0.8 * size[0]
    assert (held.errors[:, :3] <= free.errors[:, :3] * 1.05).all()
    assert (held.chi2 >= free.chi2 - 1e-2).all()  # the catalogue's is that of the spectrum alone


def test_networks_of_many_basis_vectors_end_at_the_exact_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are taken with 6 vectors of 12; with a velocity and without, the end is that of the whole network."""
    monkeypatch.setattr("maury.emulate.payne._SHORT", 6)
    model = network(r=12, rank=2)
    spectra, _ = moving_stars(model, 20, factor=0.0)
    assert len(model.shortened.basis) == 6
    problem = make_problem(spectra, model)
    assert isinstance(problem, ExactProblem)
    pixel = PixelProblem(spectra, model)
    star, scaled = np.arange(20), np.full((20, 3), 0.1)
    exact, truth = problem.exact(star, scaled), pixel.evaluate(star, scaled)
    np.testing.assert_allclose(exact.chi2, truth.chi2, rtol=1e-9)
    np.testing.assert_allclose(exact.gradient, truth.gradient, rtol=1e-4, atol=1e-4 * np.abs(truth.gradient).max())
    fast = ChiSquareFitter().fit(spectra, model)
    slow = ChiSquareFitter().fit(spectra, PixelOnly(model), start=fast.values)
    np.testing.assert_allclose((slow.values - fast.values) / slow.errors, 0, atol=0.05)
    np.testing.assert_allclose(fast.errors, slow.errors, rtol=0.1)  # half of the vectors left out is far more than ever happens
    moving = FITTER.fit(spectra, model)
    pixels = FITTER.fit(spectra, PixelOnly(model), start=moving.values)
    np.testing.assert_allclose((moving.values - pixels.values) / pixels.errors, 0, atol=0.05)
    np.testing.assert_allclose(moving.errors, pixels.errors, rtol=0.1)
    assert (np.abs(moving.values[:, 3]) < 5 * moving.errors[:, 3]).all()


def test_starts_that_meet_go_on_as_one() -> None:
    """More starts never end higher, and each start's row has an end."""
    model = network()
    spectra, _ = moving_stars(model, 40)
    one, six = (replace(FITTER, n_starts=n).fit(spectra, model) for n in (1, 6))
    assert (six.chi2 <= one.chi2 + 1e-2).all()
    assert all(status is FitStatus.CONVERGED for status in six.status)


def test_a_short_basis_gives_the_same_spectra() -> None:
    """40 vectors that are combinations of 8 become 8; nothing is lost at other labels, at a tenth beyond the range either."""
    small = network()
    mixing = np.random.default_rng(1).normal(size=(8, 40))
    weight, bias = small.layers[-1]
    long = replace(
        small, layers=(*small.layers[:-1], (weight @ mixing, bias @ mixing)), basis=np.linalg.pinv(mixing) @ small.basis
    )
    short = long.compressed()
    assert len(short.basis) == 8
    values = small.labels.unscale(np.random.default_rng(2).uniform(-2.2, 2.2, (50, 3)))
    np.testing.assert_allclose(short.predict_flux(values), small.predict_flux(values), rtol=0, atol=1e-5)
    np.testing.assert_allclose(short.predict_jacobian(values), small.predict_jacobian(values), rtol=0, atol=1e-5)
    assert short.compressed() is short
    few = long.compressed(at_most=3)
    assert len(few.basis) == 3
    with pytest.raises(UsageError, match="tolerance above 0"):
        long.compressed(0.0)


def test_the_gradient_backwards_is_the_jacobian() -> None:
    model = network()
    ensemble = replace(model, layers=tuple((np.concatenate([w, 1.1 * w]), np.concatenate([b, b - 0.1])) for w, b in model.layers))
    rng = np.random.default_rng(3)
    scaled, pull = rng.normal(size=(130, 3)), rng.normal(size=(130, 9))
    for one in (model, ensemble):
        expected = np.einsum("nt,ntk->nk", pull, one.terms_jacobian(scaled))
        np.testing.assert_allclose(one.terms_gradient(scaled, pull), expected, rtol=0, atol=1e-10)
        terms, jacobian = one.single.terms_and_jacobian(scaled)
        assert terms.dtype == jacobian.dtype == np.float32
        np.testing.assert_allclose(jacobian, one.terms_jacobian(scaled), rtol=0, atol=1e-5)


def test_a_polynomial_is_its_own_interpolation() -> None:
    nodes = chebyshev_nodes(2.0, 5.0, 4)
    places = np.array([2.1, 3.3, 4.9])
    value, slope, curvature = NodePolynomial(nodes).weights(places, 3)
    np.testing.assert_allclose(value @ nodes**3, places**3, rtol=1e-12)
    np.testing.assert_allclose(slope @ nodes**3, 3 * places**2, rtol=1e-11)
    np.testing.assert_allclose(curvature @ nodes**3, 6 * places, rtol=1e-10)


def test_a_velocity_range_too_wide_is_refused() -> None:
    spectra, _ = moving_stars(network(n_pixels=300), 3)
    with pytest.raises(UsageError, match=r"a few line widths, got 2000\.0 km/s"):
        ChiSquareFitter(velocity=VelocityLabel(2000.0)).fit(spectra, network(n_pixels=300))


def test_the_label_set_has_the_velocity_last() -> None:
    labels: LabelSet = FITTER.labels_of(network().labels)
    assert labels.names == ("teff", "logg", "fe_h", "delta_rv")
    assert labels.units[-1] == "km/s"
