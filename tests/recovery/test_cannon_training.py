"""Training of The Cannon against closed forms, known truth, the published scan, and optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import LABELS, draw, label_values, quadratic_model

from maury.emulate.cannon import CannonConfig, CannonEmulator, condition_number, train_cannon, training_objective
from maury.errors import UsageError
from maury.spectra import Spectra

STRICT = CannonConfig(tolerance=1e-10)


def _training_set(n: int = 300, n_pixels: int = 40, seed: int = 5, **noise: float) -> tuple[CannonEmulator, Spectra, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = quadratic_model(n_pixels)
    values = label_values(n, rng)
    return truth, draw(truth, values, rng, **noise), values


def _normal_equations(model: CannonEmulator, spectra: Spectra, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, T, T) and (P, T) at the model's own scatter, written out star by star."""
    design = model.terms(model.labels.scale(values))
    weight = spectra.ivar / (1 + spectra.ivar * model.model_covariance.diagonal)
    return np.einsum("nt,np,nu->ptu", design, weight, design), np.einsum("nt,np,np->pt", design, weight, spectra.flux)


# -- closed forms -----------------------------------------------------------------------------------------------------


def test_without_scatter_and_with_equal_errors_it_is_least_squares() -> None:
    _, spectra, values = _training_set(masked=0.0)
    spectra = spectra.with_pixels(ivar=np.full(spectra.flux.shape, 2500.0))
    model = train_cannon(spectra, LABELS, values, CannonConfig(fit_scatter=False))
    expected = np.linalg.lstsq(model.terms(model.labels.scale(values)), spectra.flux, rcond=None)[0]
    np.testing.assert_allclose(model.coefficients, expected, rtol=0, atol=1e-8)
    assert (model.scatter == 0).all()


@pytest.mark.parametrize("noise", [0.0025, 0.01])
def test_with_equal_errors_and_scatter_the_solution_is_known(noise: float) -> None:
    """theta is the unweighted solution, s^2 + sigma^2 the mean squared residual (s^2 = 0 where that is below sigma^2)."""
    _, spectra, values = _training_set(masked=0.0)
    spectra = spectra.with_pixels(ivar=np.full(spectra.flux.shape, noise**-2))
    model = train_cannon(spectra, LABELS, values, STRICT)
    design = model.terms(model.labels.scale(values))
    expected = np.linalg.lstsq(design, spectra.flux, rcond=None)[0]
    mean_square = ((spectra.flux - design @ expected) ** 2).mean(axis=0)
    np.testing.assert_allclose(model.coefficients, expected, rtol=0, atol=1e-7)
    np.testing.assert_allclose(
        model.model_covariance.diagonal, np.maximum(mean_square - noise**2, 0), rtol=0, atol=1e-5 * mean_square.max()
    )


def test_ridge_has_its_closed_form() -> None:
    _, spectra, values = _training_set()
    model = train_cannon(spectra, LABELS, values, CannonConfig(ridge=0.1, tolerance=1e-10))
    normal, right = _normal_equations(model, spectra, values)
    penalty = 0.1 * normal[:, 0, 0]  # ridge times the total weight of the pixel
    index = np.arange(1, normal.shape[1])
    normal[:, index, index] += penalty[:, None]
    np.testing.assert_allclose(model.coefficients.T, np.linalg.solve(normal, right[..., None])[..., 0], rtol=0, atol=1e-6)
    plain = train_cannon(spectra, LABELS, values, STRICT)
    assert np.abs(model.coefficients[1:]).sum() < 0.97 * np.abs(plain.coefficients[1:]).sum()


# -- known truth ------------------------------------------------------------------------------------------------------


def test_coefficients_and_scatter_are_recovered_within_their_errors() -> None:
    """400 coefficients and 40 scatters: standardised differences have mean 0 and standard deviation 1 (3 standard errors)."""
    truth, spectra, values = _training_set(n=800)
    model = train_cannon(spectra, LABELS, values)
    normal, _ = _normal_equations(model, spectra, values)
    covariance = np.linalg.inv(normal)
    expected = np.linalg.lstsq(  # the truth in the scaling of this training set
        model.terms(model.labels.scale(values)), truth.predict_flux(values), rcond=None
    )[0]
    pull = (model.coefficients - expected).T / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert abs(pull.mean()) < 3 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 3 / np.sqrt(2 * pull.size)
    variance = 1 / np.where(spectra.ivar > 0, spectra.ivar, np.inf)
    weight = np.where(spectra.ivar > 0, 1 / (truth.model_covariance.diagonal + 1 / np.maximum(spectra.ivar, 1e-9)), 0)
    assert np.isfinite(variance).all()
    error = np.sqrt(2 / (weight**2).sum(axis=0))  # Fisher information of s^2
    pull = (model.model_covariance.diagonal - truth.model_covariance.diagonal) / error
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)  # maximum likelihood is low by 10/800, 0.25 errors
    assert 0.7 < pull.std() < 1.3


def _published_scan(spectra: Spectra, values: np.ndarray, model: CannonEmulator) -> np.ndarray:
    """(n_pixels,) objective of the published algorithm (METHODS 0.5): 19 values of ln s, a parabola through the lowest three."""
    design = model.terms(model.labels.scale(values))
    out = np.empty(spectra.n_pixels)
    grid = np.arange(np.log(1e-4), 0.0, 0.5)
    assert len(grid) == 19
    for p in range(spectra.n_pixels):
        good = spectra.ivar[:, p] > 0
        v, flux, noise = design[good], spectra.flux[good, p], 1 / spectra.ivar[good, p]

        def objective(log_scatter: float, v=v, flux=flux, noise=noise) -> float:  # type: ignore[no-untyped-def]
            variance = noise + np.exp(2 * log_scatter)
            theta = np.linalg.solve(v.T @ (v / variance[:, None]), v.T @ (flux / variance))
            return float(((flux - v @ theta) ** 2 / variance + np.log(variance)).sum())

        tried = np.array([objective(x) for x in grid])
        low = int(tried.argmin())
        best = grid[low]
        if 0 < low < len(grid) - 1:
            a, b, _ = np.polyfit(grid[low - 1 : low + 2], tried[low - 1 : low + 2], 2)
            best = -b / (2 * a)
        out[p] = objective(best)
    return out


@pytest.mark.parametrize("error", [0.002, 0.01, 0.03])  # scatter above, as large as, and below the noise
def test_no_pixel_has_a_higher_objective_than_the_published_scan(error: float) -> None:
    _, spectra, values = _training_set(n_pixels=80, error=error)
    for config, excess in ((None, 2e-3), (STRICT, 1e-6)):  # 1 would be one standard error
        model = train_cannon(spectra, LABELS, values, config)
        ours = training_objective(model, spectra, values)
        assert (ours - _published_scan(spectra, values, model)).max() < excess


def test_the_default_tolerance_reaches_the_strict_objective() -> None:
    _, spectra, values = _training_set(n_pixels=200)
    default = training_objective(train_cannon(spectra, LABELS, values), spectra, values)
    strict = training_objective(train_cannon(spectra, LABELS, values, STRICT), spectra, values)
    assert (default - strict).max() < 2e-3
    assert (default - strict).min() > -1e-6


@pytest.mark.parametrize("unit", [1e-17, 1.0, 1e12])  # erg/s/cm2/Å, normalised, counts
def test_the_flux_unit_does_not_matter(unit: float) -> None:
    _, spectra, values = _training_set()
    model = train_cannon(spectra, LABELS, values, STRICT)
    scaled = train_cannon(spectra.with_pixels(flux=spectra.flux * unit, ivar=spectra.ivar / unit**2), LABELS, values, STRICT)
    np.testing.assert_allclose(scaled.coefficients / unit, model.coefficients, rtol=0, atol=1e-7)
    np.testing.assert_allclose(scaled.scatter / unit, model.scatter, rtol=1e-4, atol=1e-7)


# -- L1 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1e2, 5e4, 1e9])
def test_l1_satisfies_its_optimality_conditions(strength: float) -> None:
    """Casey+2016 eq. 8 at the fitted s: zero gradient at non-zero terms, |gradient| <= Lambda at zero ones (KKT)."""
    _, spectra, values = _training_set()
    model = train_cannon(spectra, LABELS, values, CannonConfig(l1=strength, fit_scatter=False))
    normal, right = _normal_equations(model, spectra, values)
    theta = model.coefficients.T
    gradient = 2 * (np.einsum("ptu,pu->pt", normal, theta) - right)
    scale = np.abs(right).max()
    active = theta[:, 1:] != 0
    np.testing.assert_allclose(gradient[:, 0] / scale, 0, atol=1e-6)
    np.testing.assert_allclose((gradient[:, 1:] + strength * np.sign(theta[:, 1:]))[active] / scale, 0, atol=1e-6)
    assert (np.abs(gradient[:, 1:][~active]) <= strength + 1e-6 * scale).all()
    expected = {1e2: active.mean() > 0.7, 5e4: 0.1 < active.mean() < 0.9, 1e9: not active.any()}
    assert expected[strength]


def test_l1_equals_a_general_optimiser() -> None:
    """Split theta = plus - minus, both >= 0: a smooth problem with bounds, which scipy's L-BFGS-B solves."""
    from scipy.optimize import minimize

    _, spectra, values = _training_set(n_pixels=6)
    strength = 3e3
    model = train_cannon(spectra, LABELS, values, CannonConfig(l1=strength, fit_scatter=False))
    normal, right = _normal_equations(model, spectra, values)
    free = np.array([0.0] + [1.0] * (normal.shape[1] - 1))
    for p in range(spectra.n_pixels):

        def split(x: np.ndarray, p: int = p) -> tuple[float, np.ndarray]:
            plus, minus = np.split(x, 2)
            theta = plus - minus
            gradient = 2 * (normal[p] @ theta - right[p])
            value = theta @ normal[p] @ theta - 2 * right[p] @ theta + strength * (free @ (plus + minus))
            return float(value), np.concatenate([gradient + strength * free, -gradient + strength * free])

        start = np.concatenate([np.maximum(model.coefficients[:, p], 0), np.maximum(-model.coefficients[:, p], 0)]) + 0.01
        found = minimize(split, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size, options={"maxiter": 5000})
        ours = split(np.concatenate([np.maximum(model.coefficients[:, p], 0), np.maximum(-model.coefficients[:, p], 0)]))[0]
        assert ours <= found.fun + 1e-6 * abs(found.fun)
        assert ours >= found.fun - 1e-4 * abs(found.fun)  # and scipy did reach it


def test_l1_with_scatter_ends_near_the_joint_minimum() -> None:
    _, spectra, values = _training_set()
    loose = train_cannon(spectra, LABELS, values, CannonConfig(l1=1e3))
    strict = train_cannon(spectra, LABELS, values, CannonConfig(l1=1e3, tolerance=1e-9, max_iterations=100))

    def penalised(model: CannonEmulator) -> np.ndarray:
        return training_objective(model, spectra, values) + 1e3 * np.abs(model.coefficients[1:]).sum(axis=0)

    assert (penalised(loose) - penalised(strict)).max() < 1e-2


# -- weights, masks, label errors ---------------------------------------------------------------------------------------


def test_a_star_of_weight_zero_is_a_star_removed() -> None:
    _, spectra, values = _training_set()
    rng = np.random.default_rng(2)
    out = rng.random(len(spectra)) < 0.2
    out[values.argmin(axis=0)] = out[values.argmax(axis=0)] = False
    flux = np.where(out[:, None], 1e6, spectra.flux)
    weighted = train_cannon(spectra.with_pixels(flux=flux), LABELS, values, STRICT, star_weights=(~out).astype(float))
    removed = train_cannon(spectra[~out], LABELS, values[~out], STRICT)
    np.testing.assert_allclose(weighted.predict_flux(values), removed.predict_flux(values), rtol=0, atol=1e-7)
    np.testing.assert_allclose(weighted.scatter, removed.scatter, rtol=1e-4, atol=1e-6)


def test_a_star_of_weight_two_is_a_star_given_twice() -> None:
    _, spectra, values = _training_set()
    twice = np.arange(len(spectra)) % 3 == 0
    rows = np.concatenate([np.arange(len(spectra)), np.flatnonzero(twice)])
    weighted = train_cannon(spectra, LABELS, values, STRICT, star_weights=1.0 + twice)
    repeated = train_cannon(spectra[rows], LABELS, values[rows], STRICT)
    np.testing.assert_allclose(weighted.predict_flux(values), repeated.predict_flux(values), rtol=0, atol=1e-6)
    np.testing.assert_allclose(weighted.scatter, repeated.scatter, rtol=1e-4, atol=1e-6)


def test_what_stands_in_masked_pixels_has_no_influence() -> None:
    _, spectra, values = _training_set()
    garbage = np.where(spectra.ivar > 0, spectra.flux, np.random.default_rng(3).choice([-1e30, 1e30], spectra.flux.shape))
    clean = train_cannon(spectra, LABELS, values)
    dirty = train_cannon(spectra.with_pixels(flux=garbage), LABELS, values)
    np.testing.assert_array_equal(dirty.coefficients, clean.coefficients)
    np.testing.assert_array_equal(dirty.scatter, clean.scatter)


def test_pixels_that_few_or_no_stars_cover_are_unknown_and_disturb_no_other() -> None:
    _, spectra, values = _training_set()
    ivar = np.array(spectra.ivar)
    ivar[:, 3] = 0.0
    ivar[4:, 7] = 0.0  # fewer stars than terms
    model = train_cannon(spectra.with_pixels(ivar=ivar), LABELS, values)
    whole = train_cannon(spectra, LABELS, values)
    assert np.isfinite(model.coefficients).all()
    assert (model.coefficients[:, 3] == 0).all()
    others = ~np.isin(np.arange(spectra.n_pixels), [3, 7])
    np.testing.assert_array_equal(model.model_covariance.known, others)  # infinite variance: no part in any fit
    np.testing.assert_allclose(model.coefficients[:, others], whole.coefficients[:, others], rtol=0, atol=1e-6)


def test_a_constant_pixel_is_described_exactly() -> None:
    _, spectra, values = _training_set()
    flux = np.array(spectra.flux)
    flux[:, 5] = 0.75
    model = train_cannon(spectra.with_pixels(flux=flux), LABELS, values)
    np.testing.assert_allclose(model.coefficients[:, 5], np.eye(model.polynomial.n_terms)[0] * 0.75, atol=1e-12)
    assert model.scatter[5] < 1e-3


def test_label_errors_add_their_effect_on_the_flux_to_the_variance() -> None:
    """The second pass minimises the objective with 1/ivar + (J sigma)^2, J from the first pass: its conditions must hold."""
    truth, spectra, values = _training_set(n=600)
    errors = np.tile([60.0, 0.1, 0.05], (len(values), 1))
    first = train_cannon(spectra, LABELS, values, STRICT)
    jacobian = first.predict_jacobian(values)  # per label unit
    variance = np.divide(1.0, spectra.ivar, out=np.full(spectra.ivar.shape, np.inf), where=spectra.ivar > 0)
    variance = variance + np.einsum("npk,nk->np", jacobian**2, errors**2)
    expected = train_cannon(spectra.with_pixels(ivar=1 / variance), LABELS, values, STRICT)
    model = train_cannon(spectra, LABELS, values, STRICT, label_errors=errors)
    np.testing.assert_allclose(model.coefficients, expected.coefficients, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.scatter, expected.scatter, rtol=1e-3, atol=1e-5)
    noisy = values + errors * np.random.default_rng(8).normal(size=values.shape)
    with_errors = train_cannon(spectra, LABELS, noisy, label_errors=errors).scatter
    without = train_cannon(spectra, LABELS, noisy).scatter
    assert np.abs(with_errors - truth.scatter).mean() < 0.6 * np.abs(without - truth.scatter).mean()


def test_label_errors_of_zero_change_nothing() -> None:
    _, spectra, values = _training_set()
    plain = train_cannon(spectra, LABELS, values, STRICT)
    model = train_cannon(spectra, LABELS, values, STRICT, label_errors=np.zeros(values.shape))
    np.testing.assert_allclose(model.coefficients, plain.coefficients, rtol=0, atol=1e-9)


def test_the_callers_arrays_are_left_alone() -> None:
    _, spectra, values = _training_set()
    flux, ivar, weights, errors = (
        np.array(spectra.flux),
        np.array(spectra.ivar),
        np.ones(len(spectra)),
        np.full(values.shape, 0.01),
    )
    weights[3] = 0.0
    given = Spectra.from_arrays(spectra.wavelength, flux, ivar=ivar, medium="vacuum", frame="rest")
    before = [a.copy() for a in (flux, ivar, values, weights, errors, given.flux, given.ivar)]
    train_cannon(given, LABELS, values, CannonConfig(ivar_floor=0.01), star_weights=weights, label_errors=errors)
    for array, copy in zip((flux, ivar, values, weights, errors, given.flux, given.ivar), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_blocks_of_pixels_do_not_know_of_each_other() -> None:
    """More pixels than a block holds: every pixel as if trained alone (up to float32 rounding of the scoring)."""
    truth = quadratic_model(2500, seed=4)
    rng = np.random.default_rng(1)
    values = label_values(60, rng)
    spectra = draw(truth, values, rng)
    done: list[tuple[int, int]] = []
    whole = train_cannon(spectra, LABELS, values, STRICT, progress=lambda d, n: done.append((d, n)))
    some = np.array([0, 2047, 2048, 2499])
    part = Spectra.from_arrays(
        spectra.wavelength[some], spectra.flux[:, some], ivar=spectra.ivar[:, some], medium="vacuum", frame="rest"
    )
    alone = train_cannon(part, LABELS, values, STRICT)
    np.testing.assert_allclose(whole.coefficients[:, some], alone.coefficients, rtol=0, atol=1e-6)
    assert len(done) > 1
    assert done[-1] == (2500, 2500)


def test_wrong_use_is_refused_with_a_sentence() -> None:
    _, spectra, values = _training_set()
    with pytest.raises(UsageError, match="join them first"):
        train_cannon(spectra, LABELS, values[:-1])
    with pytest.raises(UsageError, match="add stars or lower the order"):
        train_cannon(spectra[:9], LABELS, values[:9])
    with pytest.raises(UsageError, match="star weights"):
        train_cannon(spectra, LABELS, values, star_weights=-np.ones(len(spectra)))
    with pytest.raises(UsageError, match="label errors"):
        train_cannon(spectra, LABELS, values, label_errors=np.full(values.shape, np.nan))
    with pytest.raises(UsageError, match="ridge >= 0"):
        CannonConfig(ridge=-1.0)


def test_condition_number_tells_labels_that_move_together() -> None:
    truth = quadratic_model(4)
    values = label_values(200, np.random.default_rng(0))
    together = values.copy()
    together[:, 1] = 3.0 + (values[:, 0] - 5000) / 600 + 1e-3 * values[:, 2]
    assert condition_number(truth.labels, values, truth.polynomial) < 30
    assert condition_number(truth.labels, together, truth.polynomial) > 1e4


def test_few_stars_and_very_different_errors() -> None:
    """32 stars for 20 terms, errors from 0.001 to 0.1: the first s^2 is far too large, and weights grow a hundredfold.

    Steps with the old factors would then throw theta away: a fifth of these pixels ended up to 4000 above their minimum. Here
    against the objective's minimum along s^2, theta solved anew at each (a scan in steps of 5 %).
    """
    rng = np.random.default_rng(0)
    values = label_values(32, rng)
    unit = (values - values.mean(axis=0)) / values.std(axis=0)
    sigma = 10.0 ** rng.uniform(-3, -1, (32, 1))
    flux = 1 - 0.1 * np.tanh(unit @ rng.normal(size=(3, 60))) + sigma * rng.normal(size=(32, 60))
    ivar = np.tile(1 / sigma**2, (1, 60))
    spectra = Spectra.from_arrays(5000.0 + np.arange(60), flux, ivar=ivar, medium="vacuum", frame="rest")
    model = train_cannon(spectra, LABELS, values, CannonConfig(order=3))
    design = model.terms(model.labels.scale(values))
    best = np.full(60, np.inf)
    for variance in np.concatenate([[0.0], np.geomspace(1e-7, 1e-1, 280)]):
        total = variance + sigma[:, 0] ** 2
        root = 1 / np.sqrt(total)
        theta = np.linalg.lstsq(design * root[:, None], flux * root[:, None], rcond=None)[0]
        best = np.minimum(best, ((flux - design @ theta) ** 2 / total[:, None]).sum(axis=0) + np.log(total).sum())
    above = training_objective(model, spectra, values) - best
    assert np.median(above) < 0.01
    # s^2 and theta in turns end in a local minimum; a few tenths are less than a third of an error of s^2
    assert above.max() < 0.5


def test_a_pixel_with_hardly_more_stars_than_terms_stays_sane() -> None:
    """Twenty to 35 of 400 stars for 20 terms: such pixels are unknown, but nothing overflows on the way."""
    rng = np.random.default_rng(0)
    values = label_values(400, rng)
    unit = (values - values.mean(axis=0)) / values.std(axis=0)
    sigma = 10.0 ** rng.uniform(-3, -1, (400, 1))
    flux = 1 - 0.1 * np.tanh(unit @ rng.normal(size=(3, 100))) + sigma * rng.normal(size=(400, 100))
    ivar = np.tile(1 / sigma**2, (1, 100))
    for pixel in range(100):
        ivar[rng.permutation(400)[int(rng.integers(20, 36)) :], pixel] = 0.0
    spectra = Spectra.from_arrays(5000.0 + np.arange(100), flux, ivar=ivar, medium="vacuum", frame="rest")
    model = train_cannon(spectra, LABELS, values, CannonConfig(order=3))
    assert not model.model_covariance.known.any()
    assert np.abs(model.coefficients).max() < 1e3
