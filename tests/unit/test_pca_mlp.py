"""The PCA + network inversion: likely scores, Jacobian, honest errors, flags, presets, training that can be resumed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maury.errors import ModelFileError, UsageError
from maury.fit.inferrer import inferrer_from_arrays, inferrer_to_arrays
from maury.flags import ResultFlag
from maury.grids import AnalyticSpectra
from maury.labels import Label
from maury.model import Model
from maury.prepare import Preparation
from maury.regress import PcaMlpConfig, train_pca_mlp
from maury.regress.pca_mlp_config import PRESETS
from maury.regress.pca_mlp_training import PcaMlpTraining, _network
from maury.regress.residuals import _factors
from maury.regress.scores import ScoreSpace
from maury.spectra import Spectra
from maury.train.config import LoopConfig

LABELS = (Label("teff", "K", coordinate="inverse"), Label("logg", "dex"), Label("m_h", "dex"))
STAR = AnalyticSpectra(("teff", "logg", "m_h"))
WAVELENGTH = 5000.0 + 2.0 * np.arange(150)
LOOP = LoopConfig("adamw", 1e-2, 1e-2, "cosine", 256, 60, 5, 0)
CONFIG = PcaMlpConfig(components=12, hidden=(32, 32), members=3, snr=(20.0, 500.0), loop=LOOP)


def _values(n: int, seed: int) -> np.ndarray:
    return np.array([4300.0, 1.0, -1.0]) + np.random.default_rng(seed).random((n, 3)) * np.array([2200.0, 4.0, 1.5])


def _clean(values: np.ndarray) -> Spectra:
    flux = STAR.normalised(WAVELENGTH, values)
    return Spectra.from_arrays(WAVELENGTH, flux, ivar=np.full(flux.shape, 1e10), medium="vacuum", frame="rest")


@pytest.fixture(scope="module")
def training() -> PcaMlpTraining:
    values = _values(900, 1)
    return train_pca_mlp(_clean(values), LABELS, values, CONFIG)


def _space(n_components: int = 6) -> ScoreSpace:
    return ScoreSpace.of(_clean(_values(200, 2)), n_components)


def test_without_noise_and_gaps_the_scores_are_the_projection() -> None:
    """But for the prior: a score is pulled by 1/(1 + variance of a pixel / variance of the score), the closed form for no gap."""
    space, spectra = _space(), _clean(_values(20, 3))
    found = space.project(spectra)
    plain = (spectra.flux - space.mean) @ space.basis.T
    pull = 1.0 / (1.0 + (space.mean_rest + 1e-10) / space.spread**2)
    np.testing.assert_allclose(found.values, plain * pull, rtol=1e-6, atol=1e-9)
    assert (pull > 0.99).all()
    np.testing.assert_allclose(space.project(spectra.with_pixels(ivar=4 * spectra.ivar)).values, found.values, rtol=1e-4)


def test_gaps_are_filled_by_the_likely_scores_not_by_zero() -> None:
    """With half of the pixels gone the error stays within the covariance's reach; filling with 0 or the mean is far off."""
    space, spectra = _space(), _clean(_values(60, 3))
    gap = np.where(np.arange(150) % 2 == 0, 0.0, spectra.ivar)
    truth, found = space.project(spectra).values, space.project(spectra.with_pixels(ivar=gap))
    error = found.values - truth
    by_mean = np.where(gap > 0, spectra.flux - space.mean, 0.0) @ space.basis.T - truth
    assert np.abs(error[:, 0]).max() < 0.1 * np.abs(by_mean[:, 0]).max()
    pull = error / np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert 0.3 < pull.std() < 2.0  # the rest of neighbouring pixels is correlated, the covariance takes it as independent


def test_covariance_of_scores_is_that_of_their_errors() -> None:
    """4000 spectra whose scores have the prior's spread, with uneven noise and gaps: within 5 sigma of sampling, sqrt(2/4000)."""
    space, random = _space(4), np.random.default_rng(5)
    scores = space.spread * random.standard_normal((4000, 4))
    sigma = random.uniform(0.02, 0.1, (4000, 150))
    flux = space.mean + scores @ space.basis + sigma * random.standard_normal(sigma.shape)
    ivar = np.where(random.random(sigma.shape) < 0.2, 0.0, sigma**-2.0)
    found = space.project(Spectra.from_arrays(WAVELENGTH, flux, ivar=ivar, medium="vacuum", frame="rest"))
    second = np.einsum("ni,nj->ij", found.values - scores, found.values - scores) / 4000
    size = np.sqrt(np.diagonal(second))
    np.testing.assert_allclose(found.covariance.mean(axis=0) / size / size[:, None], second / size / size[:, None], atol=0.112)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_jacobian_against_finite_differences(joint: bool, activation: str) -> None:
    loop = LoopConfig("adam", 1e-2, 0.0, "constant", 0, 3, 1, 0)
    config = PcaMlpConfig(components=5, hidden=(8, 7), activation=activation, joint=joint, members=2, loop=loop)
    values = _values(60, 6)
    inferrer = train_pca_mlp(_clean(values), LABELS, values, config).inferrer
    x = np.random.default_rng(7).standard_normal((9, 5))
    slopes, step = inferrer.scaled_labels(x)[1], 1e-5
    for r in range(5):
        shift = step * np.eye(5)[r]
        difference = (inferrer.scaled_labels(x + shift)[0] - inferrer.scaled_labels(x - shift)[0]) / (2 * step)
        np.testing.assert_allclose(slopes[:, :, r], difference, atol=1e-8)
    assert (inferrer.is_joint, inferrer.n_members) == (joint, 2)
    mean = 0.5 * (inferrer.member(0).scaled_labels(x)[0] + inferrer.member(1).scaled_labels(x)[0])
    np.testing.assert_allclose(inferrer.scaled_labels(x)[0], mean, atol=1e-12)


@pytest.mark.parametrize("snr", [20.0, 60.0, 200.0, 5000.0])
def test_errors_are_honest_at_every_noise(training: PcaMlpTraining, snr: float) -> None:
    """68 % of new stars within 1 sigma; 400 stars give 0.68 +- 0.023 (five of those below 0.58).

    Without noise errors are those of single members, and the mean of three is better by up to sqrt(3): at most 92 % within.
    """
    values = _values(400, 8)
    found = training.inferrer.infer(STAR.spectra(WAVELENGTH, values, snr=snr, seed=9))
    inside = (np.abs(found.values - values) < found.errors).mean(axis=0)
    assert ((inside > 0.58) & (inside < 0.94)).all()


def test_held_out_residuals_are_of_new_stars(training: PcaMlpTraining) -> None:
    """The scatter of residuals is that of stars that no network saw, within a half (the mean of members is better)."""
    assert np.isfinite(training.residuals).all()
    np.testing.assert_array_equal(training.held_back.sum(axis=0), 1)
    values = _values(400, 10)
    new = (training.inferrer.infer(_clean(values)).values - values).std(axis=0)
    ratio = new / training.residuals.std(axis=0)
    assert ((ratio > 0.4) & (ratio < 1.5)).all()


def test_spectra_of_one_star_are_held_back_together() -> None:
    values = np.repeat(_values(40, 11), 3, axis=0)
    groups = tuple(str(i // 3) for i in range(120))
    loop = LoopConfig("adam", 1e-2, 0.0, "constant", 0, 1, 1, 0)
    config = PcaMlpConfig(components=4, hidden=(4,), members=1, loop=loop)
    held = train_pca_mlp(STAR.spectra(WAVELENGTH, values, snr=100, seed=1), LABELS, values, config, groups=groups).held_back
    np.testing.assert_array_equal(held.reshape(1, 40, 3).all(axis=2), held.reshape(1, 40, 3).any(axis=2))
    assert held.sum() == 24  # a fifth, as published


def test_a_spectrum_of_another_kind_is_flagged(training: PcaMlpTraining) -> None:
    values = _values(50, 12)
    usual = STAR.spectra(WAVELENGTH, values, snr=100, seed=13)
    other = AnalyticSpectra(("teff", "logg", "m_h"), seed=7).spectra(WAVELENGTH, values, snr=100, seed=13)  # other lines
    poor = int(ResultFlag.POOR_CHI2)
    assert ((training.inferrer.infer(usual).flag & poor) > 0).mean() < 0.05
    assert ((training.inferrer.infer(other).flag & poor) > 0).all()


def test_labels_beyond_the_training_range_are_flagged(training: PcaMlpTraining) -> None:
    beyond = np.array([[7600.0, 3.0, -0.2]])  # 1100 K above the training stars
    found = training.inferrer.infer(_clean(beyond))
    assert found.label_flags[0, 0] & int(ResultFlag.OUT_OF_RANGE)
    assert found.flag[0] & int(ResultFlag.OUT_OF_RANGE)


def test_noise_factor_solves_for_the_share_within_one_sigma() -> None:
    """Gaussian residuals of variance 1 + 9: the factor on a noise of variance 1 is 3; without noise it stays 1."""
    random = np.random.default_rng(14)
    residuals = random.standard_normal((40_000, 2)) * np.array([np.sqrt(10.0), 1.0])
    factor = _factors(residuals, np.ones(2), np.column_stack([np.ones(40_000), np.full(40_000, 1e-12)]))
    np.testing.assert_allclose(factor[0], 3.0, atol=0.06)


def test_the_same_call_gives_the_same_and_a_killed_training_ends_the_same(tmp_path: Path) -> None:
    """Noise is new in each epoch, seeded, and goes on from a checkpoint as if nothing had happened."""
    values = _values(80, 15)
    spectra = _clean(values)
    config = replace(CONFIG, components=5, hidden=(6,), loop=replace(LOOP, batch_size=20, max_epochs=6, check_every=1))
    whole = train_pca_mlp(spectra, LABELS, values, config).inferrer

    def kill(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maury.train.checkpoint.Checkpoint.due", lambda self: True)
        with pytest.raises(KeyboardInterrupt):
            train_pca_mlp(spectra, LABELS, values, config, checkpoints=tmp_path, progress=kill)
        resumed = train_pca_mlp(spectra, LABELS, values, config, checkpoints=tmp_path).inferrer
    for (one, _), (other, _) in zip(whole.layers, resumed.layers, strict=True):
        np.testing.assert_array_equal(one, other)


def test_published_shape() -> None:
    """METHODS 3: 15 -> 5000 -> 2000 -> 1000 -> 512 -> 64 -> out, counted by hand, one network per label."""
    preset = PRESETS["gebran2024"]
    assert preset.hidden == (5000, 2000, 1000, 512, 64)
    assert (preset.components, preset.activation, preset.initial, preset.joint) == (15, "relu", "normal", False)
    assert (preset.loop.optimiser, preset.loop.batch_size) == ("adamax", 512)
    small = _network(2, replace(preset, hidden=(500, 200)))
    assert sum(p.numel() for p in small.parameters()) == 2 * (15 * 500 + 500 + 500 * 200 + 200 + 200 + 1)
    np.testing.assert_allclose(float(small.weights[1].detach().std()), 0.05, rtol=0.01)  # RandomNormal of Keras
    assert not any(bias.any() for bias in small.biases)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"hidden": ()}, "expected at least one hidden layer"),
        ({"components": 0}, "expected components >= 1, got 0"),
        ({"snr": (50.0, 20.0)}, "expected snr as two finite numbers 0 < lowest <= highest"),
        ({"validation_fraction": 0.7}, "expected a validation_fraction above 0"),
        ({"activation": "gelu"}, "expected activation among"),
        ({"initial": "zeros"}, "expected initial among uniform, glorot, normal"),
    ],
)
def test_wrong_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        PcaMlpConfig(**settings)  # type: ignore[arg-type]


def test_wrong_usage(training: PcaMlpTraining) -> None:
    values = _values(20, 16)
    with pytest.raises(UsageError, match="expected labels for 20 spectra, got 10 rows"):
        train_pca_mlp(_clean(values), LABELS, values[:10])
    with pytest.raises(UsageError, match="at least 3 stars, of which each network holds back one in 3, got 2"):
        train_pca_mlp(_clean(values), LABELS, values, CONFIG, groups=("a", "b") * 10)
    short = Spectra.from_arrays(WAVELENGTH[1:], np.ones((1, 149)), ivar=np.ones((1, 149)), medium="vacuum", frame="rest")
    with pytest.raises(UsageError, match="expected spectra on the model's grid of 150 pixels"):
        training.inferrer.infer(short)


def test_assess_leaves_out_what_needs_an_emulator(training: PcaMlpTraining) -> None:
    from rich.console import Console

    from maury.cli.assess import _emulation

    preparation = Preparation.from_config([{"step": "resample", "start": 5000, "stop": 5300, "spacing": 2}])
    console = Console(record=True, width=100)
    _emulation(console, Model(preparation, training.inferrer), [_clean(_values(2, 3))], _values(2, 3), ("teff", []), None)
    assert console.export_text().strip() == "no spectra generated from the known labels: this model has no emulator"


def test_a_model_file_of_an_unknown_kind_is_refused(training: PcaMlpTraining) -> None:
    arrays, config = inferrer_to_arrays(training.inferrer)
    with pytest.raises(ModelFileError, match="expected an inferrer of kind pca_mlp, ensemble, got 'cnn'; update maury"):
        inferrer_from_arrays(arrays, {**config, "inferrer": {**config["inferrer"], "kind": "cnn"}})


def test_inference_needs_no_torch(training: PcaMlpTraining, tmp_path: Path) -> None:
    from maury.store import save_model

    preparation = Preparation.from_config([{"step": "resample", "start": 5000, "stop": 5300, "spacing": 2}])
    path = tmp_path / "model.safetensors"
    save_model(Model(preparation, training.inferrer), path)
    code = (
        "import sys, numpy as np; from maury import load_model, Spectra; "
        f"model = load_model({str(path)!r}); n = 150; w = 5000 + 2.0 * np.arange(n); "
        "raw = Spectra.from_arrays(w, np.ones((1, n)), ivar=np.ones((1, n)), medium='vacuum', frame='rest'); "
        "assert len(model.infer(raw)) == 1; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
