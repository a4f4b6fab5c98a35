"""What every emulator must do, whatever it is. A new one joins by one line in ``EXAMPLES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from maury.emulate import PayneConfig, emulator_from_arrays, train_payne
from maury.emulate.cannon import CannonConfig, train_cannon
from maury.emulate.generator import train_generator
from maury.emulate.generator_config import AutoencoderConfig, GeneratorConfig, LabelNetworkConfig
from maury.fit.chi2 import ExactProblem
from maury.fit.fitter import ChiSquareFitter
from maury.fit.problems import make_problem
from maury.fit.velocity import MovingEmulator, VelocityLabel
from maury.labels import Label
from maury.protocols import Emulator, ModelCovariance, TermEmulator
from maury.spectra import Spectra
from maury.train.config import LoopConfig

LABELS = (Label("teff", "K", coordinate="inverse"), Label("logg", "dex"), Label("vsini", "km/s", coordinate="log10"))


def _training_set() -> tuple[Spectra, np.ndarray]:
    """Lines whose depths depend on three labels, each in another coordinate."""
    rng = np.random.default_rng(12)  # fixed: the same stars every time
    values = np.array([4200.0, 1.0, 2.0]) + rng.random((150, 3)) * np.array([2000.0, 3.5, 30.0])
    wavelength = 5000.0 + 0.5 * np.arange(90)
    centres, slopes = rng.uniform(5000, 5045, (8, 1)), rng.normal(size=(8, 3))
    lines = np.exp(-0.5 * ((wavelength - centres) / 1.5) ** 2)
    unit = (values - values.mean(axis=0)) / values.std(axis=0)
    flux = 1 - np.exp(-1.0 + 0.15 * unit @ slopes.T) @ lines * 0.5 + 0.005 * rng.normal(size=(150, 90))
    ivar = np.where(rng.random(flux.shape) < 0.02, 0.0, 4e4)
    return Spectra.from_arrays(wavelength, flux, ivar=ivar, medium="vacuum", frame="rest"), values


def _cannon(**settings: object) -> Callable[[Spectra, np.ndarray], Emulator]:
    return lambda spectra, values: train_cannon(spectra, LABELS, values, CannonConfig(**settings))  # type: ignore[arg-type]


def _payne(**settings: object) -> Callable[[Spectra, np.ndarray], Emulator]:
    loop = LoopConfig("adamw", 2e-2, 0.0, "cosine", 0, 300, 10, 0)
    config = PayneConfig(**{"hidden": (16,), "loop": loop, **settings})  # type: ignore[arg-type]
    return lambda spectra, values: train_payne(spectra, LABELS, values, config).emulator


def _generator(spectra: Spectra, values: np.ndarray) -> Emulator:
    loop = LoopConfig("adam", 2e-2, 0.0, "cosine", 0, 120, 10, 0)
    config = GeneratorConfig(
        AutoencoderConfig((32, 16), 6, True, loop), LabelNetworkConfig((16, 16), 0.0, 0, True, loop), loop, "silu"
    )
    return train_generator(spectra, LABELS, values, config).emulator


def _moving(rest: Callable[[Spectra, np.ndarray], Emulator]) -> Callable[[Spectra, np.ndarray], Emulator]:
    return lambda spectra, values: VelocityLabel(25.0).extend(rest(spectra, values))


EXAMPLES: dict[str, Callable[[Spectra, np.ndarray], Emulator]] = {
    "cannon": _cannon(),
    "cannon-order-1": _cannon(order=1),
    "cannon-order-3": _cannon(order=3, ridge=1e-3),
    "cannon-terms": _cannon(terms=("teff", "logg", "vsini", "teff^2", "teff*logg", "teff^3")),
    "cannon-l1": _cannon(l1=100.0),
    "payne": _payne(components=8, members=3, hidden=(16, 16)),
    "payne-pixels": _payne(components=0, members=2, activation="tanh"),
    "payne-as-ting2019": _payne(components=0, members=1, activation="leaky_relu", loss="l1", scaling="range"),
    "generator": _generator,
    "moving-cannon": _moving(_cannon()),
    "moving-payne": _moving(_payne(components=8, members=2)),
}


@pytest.fixture(scope="module", params=EXAMPLES)
def trained(request: pytest.FixtureRequest) -> tuple[Emulator, Spectra, np.ndarray]:
    spectra, values = _training_set()
    emulator = EXAMPLES[request.param](spectra, values)
    if isinstance(emulator, MovingEmulator):
        values = np.column_stack([values, np.linspace(-20.0, 20.0, len(values))])  # km/s
    return emulator, spectra, values


Trained = tuple[Emulator, Spectra, np.ndarray]


def test_it_is_an_emulator_with_arrays_of_the_right_shape(trained: Trained) -> None:
    emulator, spectra, values = trained
    assert isinstance(emulator, Emulator)
    np.testing.assert_array_equal(emulator.wavelength, spectra.wavelength)
    assert emulator.labels.names[:3] == ("teff", "logg", "vsini")
    assert emulator.predict_flux(values[:5]).shape == (5, 90)
    assert emulator.predict_jacobian(values[:5]).shape == (5, 90, len(emulator.labels))
    assert emulator.model_covariance.diagonal.shape == (90,)


def test_it_describes_its_training_set(trained: Trained) -> None:
    emulator, spectra, values = trained
    still = np.where(np.arange(values.shape[1]) < 3, values, 0.0)  # a velocity is not in the training set
    residual = (spectra.flux - emulator.predict_flux(still))[spectra.ivar > 0]
    assert residual.std() < 0.25 * spectra.flux[spectra.ivar > 0].std()


def test_jacobian_against_finite_differences(trained: Trained) -> None:
    """A network of leaky ReLUs has kinks: where one lies inside the step, the slope is that of one of its sides."""
    emulator, _, values = trained
    some, n_labels = values[:20], values.shape[1]
    jacobian, here = emulator.predict_jacobian(some), emulator.predict_flux(some)
    for k, step in enumerate((0.05, 1e-4, 1e-4, 1e-3)[:n_labels]):
        shift = step * np.eye(n_labels)[k]
        ahead, behind = ((emulator.predict_flux(some + sign * shift) - here) / (sign * step) for sign in (1, -1))
        scale = np.abs(jacobian[..., k]).max()
        kinked = (np.abs(ahead - behind) > 2e-3 * scale).any(axis=1)
        assert kinked.mean() <= 0.05
        np.testing.assert_allclose(jacobian[~kinked, :, k], 0.5 * (ahead + behind)[~kinked], rtol=0, atol=1e-5 * scale)
        for side, row in zip(np.stack([ahead, behind], axis=1)[kinked], jacobian[kinked, :, k], strict=True):
            assert np.abs(side - row).max(axis=1).min() < 0.5 * np.abs(side[0] - side[1]).max()


def test_inputs_are_unchanged(trained: Trained) -> None:
    emulator, _, values = trained
    before = values.copy()
    emulator.predict_flux(values)
    emulator.predict_jacobian(values)
    np.testing.assert_array_equal(values, before)


def test_one_star_alone_is_the_star_in_a_batch_in_any_order(trained: Trained) -> None:
    emulator, _, values = trained
    batch = emulator.predict_flux(values)
    np.testing.assert_allclose(emulator.predict_flux(values[7:8])[0], batch[7], rtol=0, atol=1e-12)
    np.testing.assert_allclose(emulator.predict_flux(values[::-1])[::-1], batch, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        emulator.predict_jacobian(values[7:8])[0], emulator.predict_jacobian(values[:9])[7], rtol=0, atol=1e-12
    )


def test_saved_and_loaded_is_equal(trained: Trained) -> None:
    emulator, _, values = trained
    if isinstance(emulator, MovingEmulator):
        pytest.skip("a model file holds the emulator at rest")
    arrays, config = emulator.to_arrays()
    loaded = emulator_from_arrays(arrays, config)
    np.testing.assert_array_equal(loaded.predict_flux(values), emulator.predict_flux(values))
    np.testing.assert_array_equal(loaded.model_covariance.diagonal, emulator.model_covariance.diagonal)
    assert loaded.labels == emulator.labels


def test_another_covariance_makes_another_emulator(trained: Trained) -> None:
    emulator, _, values = trained
    before = emulator.model_covariance
    covariance = ModelCovariance(np.full(90, 1e-4), np.full((90, 2), 1e-3))
    other = emulator.with_covariance(covariance)
    known = other.model_covariance.known
    np.testing.assert_array_equal(other.model_covariance.diagonal[known], covariance.diagonal[known])
    np.testing.assert_array_equal(known, True if not isinstance(emulator, MovingEmulator) else before.known)
    assert other.model_covariance.factors is covariance.factors
    assert emulator.model_covariance is before
    np.testing.assert_array_equal(other.predict_flux(values), emulator.predict_flux(values))
    if not isinstance(emulator, MovingEmulator):
        loaded = emulator_from_arrays(*other.to_arrays())
        np.testing.assert_array_equal(loaded.model_covariance.factors, covariance.factors)


def test_terms_where_it_has_them_are_its_flux(trained: Trained) -> None:
    emulator, _, values = trained
    if not isinstance(emulator, TermEmulator):
        pytest.skip("not linear in terms")
    scaled = emulator.labels.scale(values)
    np.testing.assert_allclose(emulator.terms(scaled) @ emulator.coefficients, emulator.predict_flux(values), atol=1e-12)
    step = 1e-6
    for k in range(3):
        shift = step * np.eye(3)[k]
        slope = (emulator.terms(scaled + shift) - emulator.terms(scaled - shift)) / (2 * step)
        np.testing.assert_allclose(emulator.terms_jacobian(scaled)[..., k], slope, rtol=0, atol=1e-7)


def test_the_fit_gives_labels_back(trained: Trained) -> None:
    """Noiseless spectra of the emulator itself: chi-square falls to 0, within bounds; masked pixels have no influence."""
    emulator, spectra, values = trained
    flux = emulator.predict_flux(values[:30])
    flux = np.where(spectra.ivar[:30] > 0, flux, 1e9)
    settings = ChiSquareFitter(n_candidates=64, n_starts=6, min_pixels=20)
    # A moving emulator is interpolated between velocities to 1e-5 of the flux (rms over stars): at ivar 4e4 and 90 pixels 4e-4 in
    # chi-square, for single stars a few times that; the optimiser ends within 1e-3 of the minimum.
    limit, at_truth_limit = (3e-3, 2e-3) if isinstance(emulator, MovingEmulator) else (1e-3, 1e-6)
    if isinstance(emulator, MovingEmulator):
        fitter, model = replace(settings, velocity=emulator.velocity), emulator.rest
    else:
        fitter, model = settings, emulator
    estimates = fitter.fit(spectra[:30].with_pixels(flux=flux), model)
    assert estimates.labels.names == emulator.labels.names
    assert (estimates.chi2 < limit).mean() > 0.9
    problem = make_problem(spectra[:30].with_pixels(flux=flux), emulator)
    scaled = emulator.labels.scale(values[:30])
    exact = isinstance(problem, ExactProblem)
    at_truth = problem.exact(np.arange(30), scaled).chi2 if exact else problem.chi2(np.arange(30), scaled)
    np.testing.assert_allclose(at_truth, 0, atol=at_truth_limit)
