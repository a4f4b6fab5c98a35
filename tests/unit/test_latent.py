"""Regression in an autoencoder's latent space: published sizes, penalties, both domains, and what a transfer is good for.

Spectra of the toy have four lines whose depths two labels decide. "Observed" ones have, for the same labels, a tilted continuum
and one line that is deeper: what a library has wrong, and no training knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maury.errors import UsageError
from maury.labels import make_label
from maury.model import Model
from maury.networks.autoencoder import Autoencoder
from maury.networks.topology import PRESETS as TOPOLOGIES
from maury.networks.topology import Topology
from maury.prepare import Preparation
from maury.regress.cnn import Inputs
from maury.regress.cnn_config import CnnConfig
from maury.regress.ensemble import EnsembleInferrer
from maury.regress.latent import Encoder, LatentNetworks, PixelScale
from maury.regress.latent_config import PRESETS, LatentConfig, SearchConfig, hidden_layers
from maury.regress.latent_stages import Domain, Noise, Reconstruction
from maury.regress.latent_training import LatentTraining, train_latent
from maury.regress.noise import residuals_of, with_noise_of
from maury.spectra import Spectra
from maury.store import load_model, save_model
from maury.train.checkpoint import Checkpoint
from maury.train.config import LoopConfig
from maury.train.noise import white_noise
from maury.train.splits import held_back
from maury.train.transfer_config import TransferConfig

LABELS = (make_label("teff", "K"), make_label("logg", "dex"))
WAVELENGTH = 8500.0 + 2.0 * np.arange(40)
LOW, WIDTH = np.array([4000.0, 1.0]), np.array([2000.0, 4.0])
LOOP = LoopConfig("adam", 5e-3, 0.0, "cosine", 64, 40, 5, 0)
SHORT = replace(LOOP, max_epochs=3, check_every=1)
HEAD = CnnConfig(Topology((8,), kernel=2, pool="none", dense=(32,)), joint=True, loop=LOOP)
TOY = LatentConfig(
    hidden=(24,),
    latent=6,
    autoencoders=1,
    loop=replace(LOOP, max_epochs=20),
    transfer=TransferConfig(loop=LOOP),
    head=HEAD,
    min_pixels=10,
)
"""Trains in two seconds."""
TINY = replace(TOY, loop=SHORT, transfer=TransferConfig(loop=SHORT), head=replace(HEAD, loop=SHORT))
"""Trains in no time, and finds little."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values(n: int, seed: int) -> np.ndarray:
    return LOW + WIDTH * np.random.default_rng(seed).random((n, 2))


def line(centre: float, sigma: float) -> np.ndarray:
    return np.exp(-0.5 * ((WAVELENGTH - centre) / sigma) ** 2)


def synthetic_flux(labels: np.ndarray) -> np.ndarray:
    t, g = ((labels - LOW) / WIDTH).T[:, :, None]
    depths = (0.5 - 0.4 * t, 0.1 + 0.3 * t, 0.1 + 0.25 * g, 0.15 + 0.2 * t * g)
    shapes = (line(8510, 4), line(8530, 5), line(8550, 3), line(8566, 4))
    return 1.0 - sum(depth * shape for depth, shape in zip(depths, shapes, strict=True))


def observed_flux(labels: np.ndarray) -> np.ndarray:
    return synthetic_flux(labels) + 0.1 * (WAVELENGTH - WAVELENGTH.mean()) / 40.0 - 0.05 * line(8550, 3)


def spectra(flux: np.ndarray, snr: float, seed: int) -> Spectra:
    """With noise; ``snr`` 0: none, but errors as of S/N 1000."""
    noise = np.random.default_rng(seed).standard_normal(flux.shape) / snr if snr else 0.0
    ivar = np.full(flux.shape, (snr or 1000.0) ** 2)
    return Spectra.from_arrays(WAVELENGTH, flux + noise, ivar=ivar, medium="vacuum", frame="rest")


SYNTHETIC_VALUES, OBSERVED_VALUES, NEW_VALUES = values(300, 1), values(200, 2), values(300, 4)
SYNTHETIC = spectra(synthetic_flux(SYNTHETIC_VALUES), 0, 0)
OBSERVED = spectra(observed_flux(OBSERVED_VALUES), 100, 3)
NEW = spectra(observed_flux(NEW_VALUES), 100, 5)


def with_transfer(config: LatentConfig, method: str, **settings: Any) -> LatentConfig:
    return replace(config, transfer=replace(config.transfer, method=method, **settings))


def train(config: LatentConfig, **options: Any) -> LatentTraining:
    return train_latent(SYNTHETIC, LABELS, SYNTHETIC_VALUES, config, **{"observed": OBSERVED, **options})


def numbers(networks: LatentNetworks) -> list[np.ndarray]:
    """All that a trained encoder and its regressors are."""
    arrays = networks.to_arrays()[0]
    return [arrays[name] for name in sorted(arrays)]


def same(one: LatentTraining, other: LatentTraining) -> bool:
    pairs = zip(one.networks, other.networks, strict=True)
    return all(np.array_equal(a, b) for n, m in pairs for a, b in zip(numbers(n), numbers(m), strict=True))


def rms(training: LatentTraining) -> float:
    """Of the residuals of new observed spectra, in training ranges."""
    found = training.networks[0].predict(NEW.flux, NEW.ivar > 0).mean(axis=1)
    return float(np.sqrt((((found - NEW_VALUES) / WIDTH) ** 2).mean()))


class TestPublishedSizes:
    @pytest.mark.parametrize(("width", "wanted", "millions"), [(1024, 9_874_125, 9.9), (2048, 25_118_669, 25.1)])
    def test_autoencoders(self, width: int, wanted: int, millions: float) -> None:
        """METHODS 2: 9.9 M (N = 1024) to 25.1 M (2048), dense 3501 -> N -> 3/4 N -> 1/2 N -> 1/4 N -> 1/8 N -> 32 and back."""
        n = width
        half = (3501, n, 3 * n // 4, n // 2, n // 4, n // 8, 32)
        sizes = (*half, *half[-2::-1])
        assert sum((a + 1) * b for a, b in pairwise(sizes)) == wanted
        assert round(wanted / 1e6, 1) == millions
        network = Autoencoder(3501, hidden_layers(width), 32, "relu", seeded(), output="sigmoid")
        assert sum(p.numel() for p in network.parameters()) == wanted

    def test_regressor(self) -> None:
        """METHODS 2: nf1 = 64, nf2 = 32, nu = 64: 307,937 parameters."""
        assert TOPOLOGIES["masbuitrago2024"].n_parameters(32, 1) == 307_937

    def test_the_published_training_has_five_regressors_on_each_of_five(self) -> None:
        preset = PRESETS["masbuitrago2024"]
        assert preset.search is not None
        assert (preset.search.keep, preset.head.members, preset.head.joint) == (5, 5, False)
        assert (preset.loop.max_epochs, preset.transfer.loop.max_epochs, preset.search.epochs) == (120, 60, 15)
        assert (len(preset.search.widths), len(preset.search.penalties)) == (5, 5)


class TestPixelScale:
    def scaled(self, *, clipped: bool) -> tuple[PixelScale, np.ndarray, np.ndarray, np.ndarray]:
        """A scale of the first 200 spectra, flux and good pixels of all, and which pixels of these are good."""
        good = np.random.default_rng(1).random(SYNTHETIC.flux.shape) < 0.9
        some = SYNTHETIC.with_pixels(ivar=np.where(good, SYNTHETIC.ivar, 0.0))
        return PixelScale.of(some, np.arange(300) < 200, clipped), some.flux, good, np.arange(300) < 200

    def test_linear(self) -> None:
        scale, flux, good, rows = self.scaled(clipped=False)
        mean = np.ma.masked_array(flux[rows], ~good[rows]).mean(axis=0).filled(0.0)
        scatter = np.sqrt(np.ma.masked_array((flux[rows] - mean) ** 2, ~good[rows]).mean())
        np.testing.assert_allclose(scale(flux, good), np.where(good, (flux - mean) / scatter, 0.0), atol=1e-5)
        assert scale.unit == pytest.approx(scatter, rel=1e-6)

    def test_clipped(self) -> None:
        scale, flux, good, rows = self.scaled(clipped=True)
        ceiling = np.quantile(flux[rows][good[rows]], 0.999)
        mean = np.ma.masked_array(flux[rows], ~good[rows]).mean(axis=0).filled(0.0)
        high = np.where(np.arange(40) == 3, 1.5, np.where(np.arange(40) == 4, -0.5, flux))
        found = scale(high, good)
        np.testing.assert_allclose(found, np.clip(np.where(good, high, mean) / ceiling, 0, 1), atol=1e-6)
        assert scale.unit == pytest.approx(ceiling, rel=1e-6)
        assert (found.min(), found.max()) == (0.0, 1.0)
        assert found.dtype == np.float32

    def test_fluxes_that_are_not_positive(self) -> None:
        dark = SYNTHETIC.with_pixels(flux=SYNTHETIC.flux - 2.0)
        with pytest.raises(
            UsageError, match=r"^expected positive fluxes for a sigmoid output, got -.* as their highest; take linear$"
        ):
            PixelScale.of(dark, np.ones(300, bool), True)


def autoencoder(activation: str = "relu", hidden: tuple[int, ...] = (20, 12), output: str = "linear") -> Autoencoder:
    """With biases that are not 0."""
    network = Autoencoder(40, hidden, 6, activation, seeded(), initial="glorot", output=output)
    for bias in network.biases:
        torch.nn.init.normal_(bias, std=0.1, generator=seeded(2))
    return network


def encoder_of(network: Autoencoder, scale: PixelScale) -> Encoder:
    layers = network.numpy_layers()[: network.n_encoder_layers]
    return Encoder(scale, network.activation, tuple((w[0], b[0]) for w, b in layers))


class TestEncoder:
    @pytest.mark.parametrize("clipped", [False, True])
    @pytest.mark.parametrize("activation", ["relu", "silu", "tanh", "sigmoid", "leaky_relu"])
    def test_numpy_has_torch_s_numbers(self, activation: str, clipped: bool) -> None:
        """Float32 sums of some tens of products; 300 spectra are more than one block."""
        network = autoencoder(activation)
        scale = PixelScale.of(SYNTHETIC, np.ones(300, bool), clipped)
        good = np.random.default_rng(1).random(OBSERVED.flux.shape) < 0.9
        flux, good = np.concatenate([OBSERVED.flux] * 2)[:300], np.concatenate([good] * 2)[:300]
        encoder = encoder_of(network, scale)
        with torch.no_grad():
            wanted = network.encode(torch.from_numpy(scale(flux, good)))[0].numpy()
        found = encoder.encode(flux, good)
        assert found.dtype == np.float32
        assert found.shape == (300, encoder.n_latent) == (300, 6)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())

    @pytest.mark.parametrize("clipped", [False, True])
    def test_a_masked_pixel_is_the_mean_whatever_is_in_it(self, clipped: bool) -> None:
        scale = PixelScale.of(SYNTHETIC, np.ones(300, bool), clipped)
        encoder = encoder_of(autoencoder(), scale)
        good = np.random.default_rng(1).random(NEW.flux.shape) < 0.8
        found = encoder.encode(NEW.flux, good)
        np.testing.assert_array_equal(encoder.encode(np.where(good, NEW.flux, 1e6), good), found)
        mean = np.where(good, NEW.flux, scale.inputs.mean)
        np.testing.assert_allclose(encoder.encode(mean, np.ones(good.shape, bool)), found, rtol=0, atol=1e-5)
        assert np.abs(encoder.encode(NEW.flux, np.ones(good.shape, bool)) - found).max() > 0.03

    def test_layer_outputs_are_those_of_the_network(self) -> None:
        for output in ("linear", "sigmoid"):
            network, x = autoencoder("silu", output=output), torch.rand((5, 40), generator=seeded(1))
            outputs = network.layer_outputs(x)
            assert [out.shape[2] for out in outputs] == [20, 12, 6, 12, 20, 40]
            torch.testing.assert_close(outputs[2], network.encode(x), rtol=0, atol=0)
            torch.testing.assert_close(outputs[-1], network(x), rtol=0, atol=0)
            assert (output == "sigmoid") == bool(((outputs[-1] > 0) & (outputs[-1] < 1)).all())

    def test_an_unknown_output(self) -> None:
        with pytest.raises(UsageError, match=r"^expected an output among linear, sigmoid, got 'relu'; correct the name$"):
            autoencoder(output="relu")


class TestPenalties:
    """What a strength of 1 adds to the loss of one batch, of an encoder with the published five hidden layers."""

    HIDDEN = (20, 16, 12, 10, 8)

    def added(self, **settings: Any) -> tuple[Callable[[], float], Autoencoder, torch.Tensor]:
        """The penalty as the network is when it is called, the network, its inputs."""
        config = replace(PRESETS["masbuitrago2024"], hidden=self.HIDDEN, latent=6, search=None, activity=0.0, contraction=0.0)
        scale = PixelScale.of(SYNTHETIC, np.ones(300, bool), True)
        domain = Domain.of(SYNTHETIC, scale, weighted=False)
        network, held = autoencoder(hidden=self.HIDDEN, output="sigmoid"), np.arange(300) >= 30

        def loss(config: LatentConfig) -> Any:
            return Reconstruction(domain, held, None, config, network.weights[5], "cpu").loss

        plain, penalised = loss(config), loss(replace(config, **settings))

        def difference() -> float:
            index = torch.arange(30)
            return float((penalised(network, index) - plain(network, index)).detach())

        return difference, network, torch.from_numpy(domain.x[:30])

    def test_correct_contraction_is_the_jacobian_of_the_bottleneck(self) -> None:
        """Sum of squares of dh_j/da_i, a the layer before the bottleneck, mean over spectra; by autograd."""
        penalty, network, x = self.added(contraction=1.0)
        before = network.through(x, 0, 5).detach()[0]

        def bottleneck(a: torch.Tensor) -> torch.Tensor:
            return network.through(a[None, None], 5, 6)[0, 0]

        jacobians = [torch.autograd.functional.jacobian(bottleneck, a) for a in before]
        dead = torch.stack([(bottleneck(a) == 0).sum() for a in before]).sum()
        assert 0 < int(dead) < 30 * 6  # ReLU has both its sides here
        assert penalty() == pytest.approx(np.mean([float(j.square().sum()) for j in jacobians]), rel=1e-4)

    def test_released_contraction_is_of_sigmoids_and_of_the_weights_at_the_start(self) -> None:
        """METHODS 2: [h(1 - h)]^2 on ReLU's h, and W as it was when the loss was built."""
        penalty, network, x = self.added(contraction=1.0, contraction_form="as_released")
        first = network.weights[5].detach().clone()
        for factor in (1.0, 1.5):
            with torch.no_grad():
                network.weights[5].copy_(factor * first)
                h = network.encode(x)[0]
            wanted = ((h * (1 - h)) ** 2 * first[0].square().sum(dim=0)).sum(dim=1).mean()
            assert penalty() == pytest.approx(float(wanted), rel=1e-4), factor

    def test_activity_is_of_encoder_layers_2_to_5_and_of_the_decoder_s_hidden_ones(self) -> None:
        """Not of the first, nor the bottleneck, nor the pixels; summed over neurons, mean over spectra, as Keras has it."""
        penalty, network, x = self.added(activity=1.0)
        with torch.no_grad():
            layers = [network.through(x, 0, stop)[0] for stop in (2, 3, 4, 5, 7, 8, 9, 10, 11)]
        assert [layer.shape[1] for layer in layers] == [16, 12, 10, 8, 8, 10, 12, 16, 20]
        assert penalty() == pytest.approx(sum(float(layer.abs().sum(dim=1).mean()) for layer in layers), rel=1e-5)


class TestDomains:
    def test_bad_pixels_do_not_count_in_reconstruction_and_noisy_ones_less(self) -> None:
        scale = PixelScale.of(SYNTHETIC, np.ones(300, bool), False)
        ivar = np.where(np.arange(40) < 5, 0.0, np.where(np.arange(40) < 10, 100.0, 1e4)) * np.ones((200, 1))
        alike, weighted = (Domain.of(OBSERVED.with_pixels(ivar=ivar), scale, w) for w in (False, True))
        np.testing.assert_array_equal(alike.weight[0], np.arange(40) >= 5)
        np.testing.assert_allclose(weighted.weight[0, [3, 7, 20]], [0, *(1 / (1 + (s / scale.unit) ** 2) for s in (0.1, 0.01))])
        np.testing.assert_allclose(weighted.sigma[0, [3, 7, 20]], [0, 0.1 / scale.unit, 0.01 / scale.unit], rtol=1e-6)

    def test_noise_like_that_of_observed_spectra(self) -> None:
        """Two kinds of them: S/N 20 with a bad pixel, 100 without. 4000 draws: a standard deviation is good to 1.1 %."""
        ivar = np.array([[400.0], [1e4]]) * np.ones(40)
        ivar[0, 7] = 0.0
        scale = PixelScale.of(SYNTHETIC, np.ones(300, bool), False)
        noise = Noise(TOY, scale, Domain.of(OBSERVED[:2].with_pixels(ivar=ivar), scale, True), None, "cpu")
        x = torch.ones((8000, 40))
        found = noise(x, seeded(1))
        bad = found[:, 7] == 0.0  # the mean of the training spectra
        assert 0.47 < float(bad.float().mean()) < 0.53
        for rows, sigma in ((bad, 0.05), (~bad, 0.01)):
            added = (found - x)[rows][:, torch.arange(40) != 7]
            assert float(added.std()) == pytest.approx(sigma / scale.unit, rel=0.02)
        torch.testing.assert_close(noise(x, seeded(1)), found, rtol=0, atol=0)
        assert not torch.equal(noise(x, seeded(2)), found)

    def test_residuals_are_drawn_with_the_pixels_of_their_star(self) -> None:
        """Half of the draws are white, of either star's size; the others are the residual of the one star that has some."""
        ivar = np.full((2, 40), 1e4)
        ivar[1, 7] = 0.0
        scale = PixelScale.of(SYNTHETIC, np.ones(300, bool), False)
        shape = np.linspace(1.0, 2.0, 40, dtype=np.float32)[None]
        domain = Domain.of(OBSERVED[:2].with_pixels(ivar=ivar), scale, True)
        noise = Noise(replace(TOY, noise="residuals"), scale, domain, (shape, np.array([1])), "cpu")
        x = torch.ones((4000, 40))
        found = noise(x, seeded(1))
        second = (found[:, :7] - 1.0 - torch.as_tensor(shape[:, :7])).abs().max(dim=1).values < 1e-6
        assert 0.47 < float(second.float().mean()) < 0.53
        assert (found[second][:, 7] == 0.0).all()  # the star's bad pixel: the mean of the training spectra
        assert 0.4 < float((found[~second][:, 7] == 0.0).float().mean()) < 0.6
        assert float((found - x)[~second][:, :7].std()) == pytest.approx(0.01 / scale.unit, rel=0.02)

    def test_residuals_are_of_the_nearest_synthetic_spectrum(self) -> None:
        of = np.array([3, 50, 299])
        ivar = np.full((3, 40), 100.0)
        ivar[2, :5] = 0.0
        flux = SYNTHETIC.flux[of] + 1e-4
        flux[2, :5] = 77.0  # a bad pixel says nothing
        found = residuals_of(OBSERVED[:3].with_pixels(flux=flux, ivar=ivar), SYNTHETIC)
        np.testing.assert_allclose(found, np.where(ivar > 0, 1e-4, 0.0), atol=1e-7)

    def test_what_a_set_has_in_common_does_not_choose_the_spectrum(self) -> None:
        """A pattern moves the nearest spectrum of every star; of the pattern that is found in common, hardly any."""
        rng = np.random.default_rng(4)
        of = rng.integers(300, size=80)
        pattern = 0.1 * np.sin(np.arange(40.0))
        plain = OBSERVED[np.arange(80)].with_pixels(flux=SYNTHETIC.flux[of] + pattern, ivar=np.full((80, 40), 1e4))
        error = np.abs(residuals_of(plain, SYNTHETIC) - pattern).mean()
        alone = np.mean([np.abs(residuals_of(plain[[row]], SYNTHETIC) - pattern).mean() for row in range(80)])
        assert error < 0.5 * alone
        sets = plain.meta.copy()
        sets["set"] = np.where(np.arange(80) < 40, "a", "b")
        parts = [residuals_of(plain[rows], SYNTHETIC) for rows in (np.arange(40), np.arange(40, 80))]
        np.testing.assert_array_equal(residuals_of(plain.with_pixels(meta=sets), SYNTHETIC), np.concatenate(parts))

    def test_noise_stays_where_a_sigmoid_can_follow_and_none_is_none(self) -> None:
        scale = PixelScale.of(SYNTHETIC, np.ones(300, bool), True)
        x = torch.rand((50, 40), generator=seeded(1))
        noisy = Noise(replace(TOY, output="sigmoid", noise=(2.0, 2.0)), scale, None, None, "cpu")(x, seeded(2))
        assert (float(noisy.min()), float(noisy.max())) == (0.0, 1.0)
        assert Noise(replace(TOY, noise=None), scale, None, None, "cpu")(x) is x

    def test_white_noise_has_one_ratio_for_each_spectrum(self) -> None:
        """Of S/N 10 to 1000, drawn evenly in the logarithm: a third of the ratios below 10^(5/3)."""
        added = white_noise(torch.zeros((900, 2000)), (10.0, 1000.0), 0.5, seeded(1)).numpy()
        snr = 1.0 / (0.5 * added.std(axis=1))
        assert (snr > 9.3).all()  # a standard deviation of 2000 numbers is good to 1.6 %
        assert (snr < 1070).all()
        assert abs((snr < 10 ** (5 / 3)).mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / 900)

    def test_spectra_with_noise_of_observed_ones(self) -> None:
        """What cross-validation judges on: noise, errors, bad pixels and S/N of one observed spectrum for each."""
        ivar = np.array([[400.0], [1e4]]) * np.ones(40)
        ivar[0, 7] = 0.0
        two = OBSERVED[:2].with_pixels(ivar=ivar)
        meta = two.meta.copy()
        meta["snr"] = [20.0, 100.0]
        mine = SYNTHETIC.with_pixels(ivar=np.where(np.arange(40) == 2, 0.0, SYNTHETIC.ivar))
        found = with_noise_of(mine, two.with_pixels(meta=meta), 3)
        low = np.asarray(found.meta["snr"]) == 20.0
        assert 0.35 < low.mean() < 0.65
        np.testing.assert_array_equal(found.ivar[low] > 0, np.tile(~np.isin(np.arange(40), (2, 7)), (low.sum(), 1)))
        np.testing.assert_array_equal(found.ivar[~low] > 0, np.tile(np.arange(40) != 2, ((~low).sum(), 1)))
        for rows, sigma in ((low, 0.05), (~low, 0.01)):
            residual = (found.flux - SYNTHETIC.flux)[rows][found.ivar[rows] > 0]
            assert residual.std() == pytest.approx(sigma, rel=0.05)  # 4 sigma of some 5000 numbers
        np.testing.assert_array_equal(with_noise_of(mine, two.with_pixels(meta=meta), 3).flux, found.flux)


@pytest.fixture(scope="module")
def unaligned() -> LatentTraining:
    """Encoder and regressors learn together on synthetic spectra; both domains are reconstructed, and nothing is aligned."""
    return train(with_transfer(TOY, "coral", weight=0.0))


@pytest.fixture(scope="module")
def none() -> LatentTraining:
    return train(TOY)


@pytest.fixture(scope="module")
def reconstructed() -> LatentTraining:
    """The published transfer, the encoder's first layer frozen."""
    return train(with_transfer(TOY, "reconstruction", frozen=("weights.0", "biases.0")))


class TestTransfer:
    @pytest.mark.parametrize(("method", "weight"), [("coral", 3.0), ("mmd", 3.0), ("adversarial", 1.0)])
    def test_alignment_without_labels_finds_better_ones(self, unaligned: LatentTraining, method: str, weight: float) -> None:
        """Tilt and deeper line move every latent number, which regressors of synthetic spectra take for labels.

        0.60 of the range here where nothing is aligned (stars of random labels: 0.41), and 0.09 to 0.11 with alignment; the
        same with other first weights: 0.32, and 0.14 to 0.20.
        """
        assert rms(train(with_transfer(TOY, method, weight=weight))) < 0.5 * rms(unaligned)

    def test_ten_labelled_stars_help(self, none: LatentTraining, unaligned: LatentTraining) -> None:
        """0.12 here against 0.21 without transfer; other first weights: 0.16 against 0.20."""
        known = np.where(np.arange(200)[:, None] < 10, OBSERVED_VALUES, np.nan)
        found = rms(train(with_transfer(TOY, "labels", weight=3.0), observed_values=known))
        assert found < 0.85 * rms(none)
        assert found < 0.5 * rms(unaligned)

    def test_labels_are_found_where_there_is_no_gap(self, none: LatentTraining) -> None:
        fine = spectra(synthetic_flux(NEW_VALUES), 100, 6)
        residual = (none.networks[0].predict(fine.flux, fine.ivar > 0).mean(axis=1) - NEW_VALUES) / WIDTH
        assert np.sqrt((residual**2).mean()) < 0.12  # even guesses: 0.29

    def test_the_published_transfer_reconstructs_observed_spectra_also_unseen_ones(self, reconstructed: LatentTraining) -> None:
        errors = {e.spectra: e for e in reconstructed.errors}
        assert {name: e.n for name, e in errors.items()} == {
            "synthetic": 270,
            "synthetic, held back": 30,
            "observed": 160,
            "observed, held back": 40,
        }
        for name in ("observed", "observed, held back"):
            assert errors[name].after < 0.2 * errors[name].before, name
            assert errors[name].before > 5 * errors["synthetic, held back"].before
        assert errors["synthetic"].after > errors["synthetic"].before  # it forgets

    def test_frozen_layers_are_untouched_and_others_not(self, reconstructed: LatentTraining) -> None:
        aligned = train(with_transfer(TINY, "coral", frozen=("weights.0", "biases.0")))
        for training in (reconstructed, aligned):
            before, after = training.before[0], training.networks[0].encoder
            for a, b in zip(before.layers[0], after.layers[0], strict=True):
                np.testing.assert_array_equal(a, b)
            for a, b in zip(before.layers[1], after.layers[1], strict=True):
                assert not np.array_equal(a, b)

    def test_without_a_transfer_the_encoder_rests(self, none: LatentTraining) -> None:
        for one, other in zip(none.before[0].layers, none.networks[0].encoder.layers, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
        assert all(e.before == e.after for e in none.errors)
        assert set(none.history) == {"autoencoder", "regressors"}

    def test_regressors_learn_from_reencoded_or_from_pretrained_latents(self) -> None:
        """The published ones are trained on latents of the one encoder and applied to those of the other (METHODS 2)."""
        config = with_transfer(TINY, "reconstruction")
        reencoded, pretrained = train(config), train(replace(config, latents="pretrained"))
        good = np.ones(SYNTHETIC.flux.shape, bool)
        rows = ~reencoded.held_back
        for training, encoder in ((reencoded, reencoded.networks[0].encoder), (pretrained, pretrained.before[0])):
            mean = encoder.encode(SYNTHETIC.flux, good)[rows].mean(axis=0)
            np.testing.assert_allclose(training.networks[0].heads.inputs.mean, mean, atol=1e-5)
        assert np.abs(reencoded.networks[0].heads.inputs.mean - pretrained.networks[0].heads.inputs.mean).max() > 1e-3
        pairs = zip(reencoded.networks[0].encoder.layers, pretrained.networks[0].encoder.layers, strict=True)
        assert all(np.array_equal(a[0], b[0]) for a, b in pairs)
        assert same(train(TINY), train(replace(TINY, latents="pretrained")))  # without a transfer there is one encoder

    def test_population_is_of_what_was_found(self) -> None:
        """Noisy stars of one kind, hot dwarfs: regressors of an even library answer nearer to its middle than they should."""
        kind = LOW + WIDTH * (0.85 + 0.05 * np.random.default_rng(8).standard_normal((200, 2)))
        hot = spectra(synthetic_flux(kind), 8, 9)

        def bias(population: int) -> np.ndarray:
            config = replace(TOY, transfer=replace(TOY.transfer, population=population))
            found = train(config, observed=hot).networks[0].predict(hot.flux, hot.ivar > 0).mean(axis=1)
            return np.asarray(((found - kind) / WIDTH).mean(axis=0))

        even, like_them = bias(0), bias(2)
        assert np.linalg.norm(even) > 0.1
        assert np.linalg.norm(like_them) < 0.85 * np.linalg.norm(even)


SEARCH = replace(TINY, search=SearchConfig(widths=(16, 32), penalties=(0.0, 0.3), folds=2, epochs=40, keep=2))


@pytest.fixture(scope="module")
def searched() -> LatentTraining:
    return train(SEARCH)


class TestSearch:
    def test_the_best_are_kept(self, searched: LatentTraining) -> None:
        """Mean squared errors of the inputs, whose own is 1: 0.21 and 0.40 without penalty, 1.07 with one of 0.3."""
        tried = searched.search
        assert {(c.width, c.penalty) for c in tried} == {(w, p) for w in (16, 32) for p in (0.0, 0.3)}
        assert [c.error for c in tried] == sorted(c.error for c in tried)
        assert {c.penalty for c in tried[:2]} == {0.0}
        assert tried[1].error < 0.6
        assert tried[2].error > 1.0
        assert [stack.encoder.layers[0][0].shape[1] for stack in searched.networks] == [c.width for c in tried[:2]]
        assert [len(w[0]) for w, _ in searched.networks[0].encoder.layers] == [*hidden_layers(tried[0].width), 6]

    def test_it_is_the_same_each_time(self, searched: LatentTraining) -> None:
        again = train(SEARCH)
        assert again.search == searched.search
        assert same(again, searched)

    def test_impossible_ones(self) -> None:
        for wrong, sentence in (
            ({"widths": ()}, r"expected widths of at least 8 and penalties >= 0, got \(\) and"),
            ({"widths": (4,)}, "expected widths of at least 8"),
            ({"penalties": (-1.0,)}, "penalties >= 0"),
            ({"folds": 1}, "folds >= 2"),
            ({"fraction": 0.0}, "expected 0 < fraction <= 1"),
            ({"keep": 26}, "keep from 1 to 25"),
        ):
            with pytest.raises(UsageError, match=sentence):
                SearchConfig(**wrong)


RICH = replace(
    with_transfer(TINY, "adversarial", population=1, frozen=("weights.0",)),
    autoencoders=2,
    head=replace(TINY.head, members=2),
)


@pytest.fixture(scope="module")
def rich() -> LatentTraining:
    return train(RICH)


class TestRepeatable:
    def test_the_same_seed_gives_the_same_bit_for_bit(self, rich: LatentTraining) -> None:
        assert same(train(RICH), rich)
        assert not np.array_equal(*(stack.encoder.layers[0][0] for stack in rich.networks))
        assert set(rich.history) == {"autoencoder_0", "transfer_0", "autoencoder_1", "transfer_1"}
        other = train(replace(RICH, loop=replace(RICH.loop, seed=1)))
        assert not same(other, rich)

    def test_a_killed_training_goes_on_to_the_same_end(
        self, rich: LatentTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed in each of its six stages, of 3 epochs each."""
        monkeypatch.setattr(Checkpoint, "due", lambda self: True)
        told: list[tuple[int, int]] = []
        for stop in (2, 5, 8, 11, 14, 17):

            def tell(done: int, total: int, stop: int = stop) -> None:
                told.append((done, total))
                if done == stop:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                train(RICH, checkpoints=tmp_path, progress=tell)
        assert same(train(RICH, checkpoints=tmp_path, progress=lambda done, total: told.append((done, total))), rich)
        assert {total for _, total in told} == {18}
        assert told[-1] == (18, 18)

    def test_a_checkpoint_of_other_noise_is_another_training_s(self, tmp_path: Path) -> None:
        """Noise of synthetic spectra is that of observed ones, of which an autoencoder sees nothing else before the transfer."""
        config = replace(TINY, weighted=False)
        noisier = OBSERVED.with_pixels(ivar=0.01 * OBSERVED.ivar)
        train(config, checkpoints=tmp_path)
        fresh = train(config, observed=noisier)
        assert same(train(config, observed=noisier, checkpoints=tmp_path), fresh)

    def test_groups_are_held_back_whole(self) -> None:
        groups = tuple(str(i // 6) for i in range(300))
        held = train(replace(TINY, search=SearchConfig((16,), (0.0,), 0.5, 2, 1, 1)), groups=groups).held_back
        assert {groups[i] for i in np.flatnonzero(held)}.isdisjoint(groups[i] for i in np.flatnonzero(~held))
        assert held.sum() == 30

    @pytest.mark.parametrize("method", ["coral", "labels"])
    def test_observed_spectra_that_are_held_back_have_no_influence(self, method: str) -> None:
        """Neither their flux nor their labels; their noise has, which is no secret. Others have."""
        config, unseen = with_transfer(TINY, method, population=1), held_back(200, 1, TINY.transfer.held_back, SHORT.seed)[0]

        def spoilt(rows: np.ndarray) -> LatentTraining:
            flux, known = np.array(OBSERVED.flux), OBSERVED_VALUES.copy()
            flux[rows] *= 0.8
            known[rows] = known[rows][::-1]
            return train(config, observed=OBSERVED.with_pixels(flux=flux), observed_values=known)

        plain = spoilt(np.zeros(200, bool))
        assert same(spoilt(unseen), plain)
        assert not same(spoilt(np.arange(200) == np.flatnonzero(~unseen)[0]), plain)

    def test_a_last_batch_of_one_spectrum(self) -> None:
        """270 spectra learn; in batches of 269 one is left over, of which there is no covariance."""
        config = with_transfer(replace(TINY, transfer=TransferConfig(loop=replace(SHORT, batch_size=269))), "coral")
        assert np.isfinite(train(config).history["transfer"].training).all()


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("config", "words"),
        [
            (with_transfer(TINY, "coral"), "transfer 'coral' and noise 'observed'"),
            (replace(with_transfer(TINY, "reconstruction"), noise=None), "transfer 'reconstruction' and noise None"),
            (TINY, "transfer 'none' and noise 'observed'"),
            (replace(with_transfer(TINY, "none", population=1), noise=(10.0, 20.0)), r"transfer 'none' and noise \(10.0, 20.0\)"),
        ],
    )
    def test_no_observed_spectra(self, config: LatentConfig, words: str) -> None:
        with pytest.raises(UsageError, match=f"^expected observed spectra for the {words}, got none; give some$"):
            train(config, observed=None)

    def test_none_are_needed_where_nothing_asks_for_them(self) -> None:
        training = train(replace(TINY, noise=(20.0, 200.0)), observed=None)
        assert [e.spectra for e in training.errors] == ["synthetic", "synthetic, held back"]

    def test_another_grid(self) -> None:
        other = Spectra.from_arrays(WAVELENGTH + 1.0, OBSERVED.flux, ivar=OBSERVED.ivar, medium="vacuum", frame="rest")
        with pytest.raises(UsageError, match=r"^expected observed spectra on the grid of the synthetic ones, .*, got .*$"):
            train(TINY, observed=other)

    @pytest.mark.parametrize("known", [None, np.full((200, 2), np.nan)])
    def test_no_labels(self, known: np.ndarray | None) -> None:
        with pytest.raises(
            UsageError, match=r"^expected observed spectra with known labels for the transfer 'labels', got none; "
        ):
            train(with_transfer(TINY, "labels"), observed_values=known)

    def test_labels_of_stars_alone_that_are_held_back(self) -> None:
        unseen = held_back(200, 1, TINY.transfer.held_back, SHORT.seed)[0]
        known = np.full(OBSERVED_VALUES.shape, np.nan)
        known[np.flatnonzero(unseen)[:3]] = OBSERVED_VALUES[:3]
        sentence = r"^expected known labels among the observed spectra that the transfer 'labels' sees, got none in 160 of 200; "
        with pytest.raises(UsageError, match=sentence):
            train(with_transfer(TINY, "labels"), observed_values=known)

    def test_labels_that_are_not_finite(self) -> None:
        wrong = np.where(np.arange(300)[:, None] == 4, np.nan, SYNTHETIC_VALUES)
        with pytest.raises(UsageError, match="finite"):
            train_latent(SYNTHETIC, LABELS, wrong, TINY, observed=OBSERVED)

    def test_frozen_layers_that_there_are_not(self) -> None:
        with pytest.raises(
            UsageError, match=r"expected patterns of parameters among weights\.0, .*, got 'encoder'; correct frozen"
        ):
            train(with_transfer(TINY, "reconstruction", frozen=("encoder",)))

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"hidden": ()}, "expected at least one hidden layer"),
            ({"latent": 0}, "expected latent >= 1, got 0; correct it"),
            ({"activity": -1.0}, "expected activity >= 0, got -1.0; correct it"),
            ({"autoencoders": 0}, "expected autoencoders >= 1"),
            ({"output": "relu"}, "expected output among linear, sigmoid, got 'relu'"),
            ({"latents": "mine"}, "expected latents among reencoded, pretrained, got 'mine'"),
            ({"noise": (5.0, 1.0)}, "expected snr as two finite numbers"),
            ({"validation_fraction": 0.7}, "expected a validation_fraction above 0 and up to 0.5, got 0.7"),
            ({"contraction": 1e-4}, "expected the activation relu for contraction, got 'silu'; set contraction = 0"),
            ({"head": replace(HEAD, snr=(10.0, 20.0))}, "expected no snr of the head"),
            (
                {"latents": "pretrained", "transfer": TransferConfig("mmd")},
                "expected latents = 'reencoded' for the transfer 'mmd', got 'pretrained'",
            ),
        ],
    )
    def test_impossible_settings(self, wrong: dict[str, Any], sentence: str) -> None:
        with pytest.raises(UsageError, match=sentence):
            replace(TOY, **wrong)


@pytest.fixture(scope="module", params=["joint-linear", "alone-sigmoid"])
def ensemble(request: pytest.FixtureRequest) -> EnsembleInferrer:
    """Two autoencoders with two networks on each, for each label or for both."""
    config = replace(TINY, autoencoders=2, head=replace(TINY.head, members=2))
    if request.param == "alone-sigmoid":
        config = replace(config, output="sigmoid", activation="relu", head=replace(config.head, joint=False))
    networks = train(config).networks
    return EnsembleInferrer.of(networks[0].wavelength, networks, (("a", "b"), ("c", "d")), 10)


class TestFiles:
    def test_as_arrays_and_back(self, ensemble: EnsembleInferrer) -> None:
        arrays, config = ensemble.to_arrays()
        back = EnsembleInferrer.from_arrays(arrays, config)
        assert all(isinstance(stack, LatentNetworks) for stack in back.networks)
        assert back.n_members == ensemble.n_members == (4, 4)
        for one, other in zip(back.votes(NEW).values, ensemble.votes(NEW).values, strict=True):
            np.testing.assert_array_equal(one, other)
        assert back.min_pixels == 10

    def test_as_a_file_and_back(self, ensemble: EnsembleInferrer, tmp_path: Path) -> None:
        preparation = Preparation.from_config([{"step": "resample", "start": 8500, "stop": 8580, "spacing": 2}])
        path = tmp_path / "model.safetensors"
        save_model(Model(preparation, ensemble), path)
        found = load_model(path).infer_prepared(NEW.with_pixels(preparation=preparation.fingerprint))
        np.testing.assert_array_equal(found.values, ensemble.infer(NEW).values)

    def test_regressors_of_another_number_of_latents(self, ensemble: EnsembleInferrer) -> None:
        stack = ensemble.networks[0]
        assert isinstance(stack, LatentNetworks)
        short = replace(stack.encoder, layers=(*stack.encoder.layers[:-1], tuple(a[..., :5] for a in stack.encoder.layers[-1])))
        with pytest.raises(UsageError, match=r"^expected regressors on 5 latent numbers, got some on 6$"):
            LatentNetworks(short, stack.heads)

    def test_the_latent_numbers_have_no_wavelengths_of_their_own(self, ensemble: EnsembleInferrer) -> None:
        stack = ensemble.networks[0]
        assert isinstance(stack, LatentNetworks)
        assert isinstance(stack.heads.inputs, Inputs)
        np.testing.assert_array_equal(stack.wavelength, WAVELENGTH)
        np.testing.assert_array_equal(stack.heads.wavelength, np.arange(6))
