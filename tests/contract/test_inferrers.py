"""What every inferrer must do, whatever it is. A new one joins by one line in ``EXAMPLES``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maury.emulate import train_cannon
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.fit import ChiSquareFitter, EmulatorInferrer, FittedInferrer, RegionalInferrer
from maury.fit.inferrer import ModelInferrer, fitted, inferrer_from_arrays, inferrer_to_arrays, own_labels
from maury.flags import FitStatus, ResultFlag
from maury.grids import AnalyticSpectra
from maury.labels import Label
from maury.model import Model
from maury.networks.topology import Topology
from maury.prepare import Preparation
from maury.protocols import Inferrer
from maury.regress import CnnConfig, EnsembleInferrer, PcaMlpConfig, train_cnn, train_pca_mlp
from maury.regress.latent import LatentNetworks
from maury.regress.latent_config import LatentConfig
from maury.regress.latent_training import train_latent
from maury.spectra import Spectra
from maury.store import describe_model, load_model, save_model
from maury.train.config import LoopConfig
from maury.train.transfer_config import Transfer, TransferConfig

LABELS = (Label("teff", "K", coordinate="inverse"), Label("logg", "dex"))
STAR = AnalyticSpectra(("teff", "logg"))
WAVELENGTH = 5000.0 + 2.0 * np.arange(120)
PREPARATION = Preparation.from_config([{"step": "resample", "start": 5000, "stop": 5240, "spacing": 2}])


def _values(n: int, seed: int) -> np.ndarray:
    return np.array([4500.0, 1.5]) + np.random.default_rng(seed).random((n, 2)) * np.array([2000.0, 3.0])


def _fitted(spectra: Spectra, values: np.ndarray) -> ModelInferrer:
    return EmulatorInferrer(train_cannon(spectra, LABELS, values), ChiSquareFitter())


def _regional(spectra: Spectra, values: np.ndarray) -> ModelInferrer:
    emulator = train_cannon(spectra, LABELS, values)
    cool = train_cannon(spectra[values[:, 0] < 6000], LABELS, values[values[:, 0] < 6000])
    return RegionalInferrer(emulator, ChiSquareFitter(), "teff", (5000.0, 6000.0), (cool, emulator))


def _pca_mlp(**settings: object) -> Callable[[Spectra, np.ndarray], ModelInferrer]:
    loop = LoopConfig("adamw", 2e-2, 1e-2, "cosine", 128, 40, 5, 0)
    config = PcaMlpConfig(**{"components": 8, "hidden": (16, 16), "members": 2, "loop": loop, **settings})  # type: ignore[arg-type]
    return lambda spectra, values: train_pca_mlp(spectra, LABELS, values, config).inferrer


def _ensemble(*, joint: bool) -> Callable[[Spectra, np.ndarray], ModelInferrer]:
    """Two stacks: one on all pixels, one on the middle of them."""
    loop = LoopConfig("adam", 1e-2, 0.0, "cosine", 64, 40, 1, 0)
    config = CnnConfig(Topology((4, 8), kernel=8, stride=4, pool="none", dense=(16,)), joint=joint, members=3, loop=loop)

    def train(spectra: Spectra, values: np.ndarray) -> ModelInferrer:
        middle = spectra.with_pixels(**{name: getattr(spectra, name)[..., 20:100] for name in ("wavelength", "flux", "ivar")})
        stacks = tuple(train_cnn(some, LABELS, values, config).networks for some in (spectra, middle))
        return EnsembleInferrer.of(np.array(spectra.wavelength), stacks, (("a", "b", "c"), ("d", "e", "f")))

    return train


def _latent(method: Transfer, **settings: object) -> Callable[[Spectra, np.ndarray], ModelInferrer]:
    """Three autoencoders, carried over to spectra of other stars with bad pixels, with two networks on each."""
    loop = LoopConfig("adam", 1e-2, 0.0, "cosine", 64, 30, 5, 0)
    head = CnnConfig(Topology((8,), kernel=2, pool="none", dense=(32,)), joint=True, members=2, loop=loop)
    own = {"hidden": (32,), "latent": 8, "autoencoders": 3, "loop": loop, **settings}
    config = LatentConfig(**own, transfer=TransferConfig(method, loop=loop), head=head)  # type: ignore[arg-type]

    def train(spectra: Spectra, values: np.ndarray) -> ModelInferrer:
        observed = STAR.spectra(WAVELENGTH, _values(100, 10), snr=100, seed=11)
        bad = np.random.default_rng(12).random(observed.flux.shape) < 0.1
        observed = observed.with_pixels(ivar=np.where(bad, 0.0, observed.ivar))
        networks = train_latent(spectra, LABELS, values, config, observed=observed).networks
        return EnsembleInferrer.of(np.array(spectra.wavelength), networks, (("a", "b"), ("c", "d"), ("e", "f")))

    return train


EXAMPLES: dict[str, Callable[[Spectra, np.ndarray], ModelInferrer]] = {
    "emulator": _fitted,
    "regional": _regional,
    "pca-mlp": _pca_mlp(),
    "pca-mlp-joint": _pca_mlp(joint=True, activation="relu", snr=(50.0, 500.0)),
    "ensemble": _ensemble(joint=False),
    "ensemble-joint": _ensemble(joint=True),
    "latent": _latent("coral"),
    "latent-reconstruction": _latent("reconstruction", activation="relu", noise=(50.0, 500.0)),
}

Trained = tuple[ModelInferrer, Spectra, np.ndarray]


@pytest.fixture(scope="module", params=EXAMPLES)
def trained(request: pytest.FixtureRequest) -> Trained:
    """An inferrer, and 30 spectra with masked pixels that it was not trained on."""
    values = _values(300, 5)
    inferrer = EXAMPLES[request.param](STAR.spectra(WAVELENGTH, values, snr=300, seed=6), values)
    new = _values(30, 7)
    spectra = STAR.spectra(WAVELENGTH, new, snr=100, seed=8)
    bad = np.random.default_rng(9).random(spectra.flux.shape) < 0.1
    return inferrer, spectra.with_pixels(ivar=np.where(bad, 0.0, spectra.ivar), preparation=PREPARATION.fingerprint), new


def _is_latent(inferrer: ModelInferrer) -> bool:
    return isinstance(inferrer, EnsembleInferrer) and isinstance(inferrer.networks[0], LatentNetworks)


def _same(one: LabelEstimates, other: LabelEstimates, rtol: float) -> None:
    np.testing.assert_allclose(one.values, other.values, rtol=rtol)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(one.both_errors, other.both_errors, rtol=10 * rtol)  # differences of votes: a digit less is left
    np.testing.assert_allclose(one.chi2, other.chi2, rtol=rtol)
    np.testing.assert_array_equal(one.flag, other.flag)
    assert one.status == other.status
    assert one.ids.tolist() == other.ids.tolist()


def test_it_finds_labels_within_its_errors(trained: Trained) -> None:
    """Two thirds of a Gaussian lie within 1 sigma; of 60 numbers at least 45 % do (4 sigma of the binomial below).

    Networks on the latent numbers of few encoders err together, and their spread is too small by itself (METHODS 2, weaknesses):
    the labels are good to a seventh of the training range, of which even guesses are 0.29.
    """
    inferrer, spectra, values = trained
    assert isinstance(inferrer, Inferrer)
    found = inferrer.infer(spectra)
    assert found.labels.names == inferrer.labels.names == own_labels(inferrer).names == ("teff", "logg")
    assert all(status is FitStatus.CONVERGED for status in found.status)
    pull = (found.values - values) / found.errors
    if _is_latent(inferrer):
        assert (np.sqrt(((found.values - values) ** 2).mean(axis=0)) < np.array([2000.0, 3.0]) / 7).all()
        assert (np.abs(pull) < 1).mean() < 0.95
    else:
        assert 0.45 < (np.abs(pull) < 1).mean() < 0.95
        assert np.abs(pull).max() < 6
    np.testing.assert_array_equal(found.n_pixels, (spectra.ivar > 0).sum(axis=1))


def test_inputs_are_unchanged(trained: Trained) -> None:
    inferrer, spectra, _ = trained
    flux, ivar, meta = spectra.flux.copy(), spectra.ivar.copy(), spectra.meta.copy()
    inferrer.infer(spectra)
    np.testing.assert_array_equal(spectra.flux, flux)
    np.testing.assert_array_equal(spectra.ivar, ivar)
    assert spectra.meta.colnames == meta.colnames


def test_masked_pixels_have_no_influence(trained: Trained) -> None:
    inferrer, spectra, _ = trained
    other = spectra.with_pixels(flux=np.where(spectra.ivar > 0, spectra.flux, 1e6))
    _same(inferrer.infer(other), inferrer.infer(spectra), 0.0)


def test_one_star_alone_is_the_star_in_a_batch_in_any_order(trained: Trained) -> None:
    """Within what the optimiser of a fit leaves (1e-3 in chi-square); a network's numbers differ by rounding alone.

    An ensemble computes in float32, whose sums of some hundred products are good to about 1e-6.
    """
    inferrer, spectra, _ = trained
    rtol = 1e-4 if isinstance(inferrer, FittedInferrer) else 1e-5 if isinstance(inferrer, EnsembleInferrer) else 1e-9
    batch = inferrer.infer(spectra)
    _same(inferrer.infer(spectra[7:8]), batch[7:8], rtol)
    _same(inferrer.infer(spectra[::-1])[::-1], batch, rtol)


def test_a_star_without_enough_pixels_keeps_its_row(trained: Trained) -> None:
    inferrer, spectra, _ = trained
    ivar = spectra.ivar.copy()
    ivar[3, 20:] = 0.0
    found = inferrer.infer(spectra.with_pixels(ivar=ivar))
    assert np.isnan(found.values[3]).all()
    assert found.flag[3] & int(ResultFlag.FEW_PIXELS)
    assert found.status[3] is FitStatus.NOT_FITTED
    assert "usable pixels" in found.reason[3]
    assert np.isfinite(np.delete(found.values, 3, axis=0)).all()


def test_saved_and_loaded_is_equal(trained: Trained, tmp_path: Path) -> None:
    inferrer, spectra, _ = trained
    _same(inferrer_from_arrays(*inferrer_to_arrays(inferrer)).infer(spectra), inferrer.infer(spectra), 0.0)
    model = Model(PREPARATION, inferrer)
    path = tmp_path / "model.safetensors"
    assert save_model(model, path) == model.model_id == load_model(path).model_id
    _same(load_model(path).infer_prepared(spectra), model.infer_prepared(spectra), 0.0)
    about = describe_model(path)
    assert [label["name"] for label in about["labels"]] == ["teff", "logg"]
    assert about["n_pixels"] == len(WAVELENGTH)


def test_what_needs_an_emulator_gets_it_or_one_sentence(trained: Trained) -> None:
    inferrer, _, values = trained
    if isinstance(inferrer, FittedInferrer):
        assert fitted(inferrer).emulator.predict_flux(values).shape == (30, len(WAVELENGTH))
        return
    with pytest.raises(UsageError, match=r"expected a model with an emulator, .*, got one that turns spectra into labels alone"):
        fitted(inferrer)


def test_workers_change_nothing_and_are_not_saved(trained: Trained) -> None:
    inferrer, spectra, _ = trained
    model = Model(PREPARATION, inferrer)
    busy = model.running_on(workers=2)
    assert busy.model_id == model.model_id
    _same(busy.infer_prepared(spectra), model.infer_prepared(spectra), 1e-4)
