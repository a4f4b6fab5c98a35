"""Convolutional networks: the published family, the same numbers in torch and in numpy, what is trained, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from maury.errors import UsageError
from maury.flags import FitStatus, ResultFlag
from maury.grids import AnalyticSpectra
from maury.labels import LabelSet, make_label
from maury.networks.cnn1d import StackedCnn1d
from maury.networks.topology import PASSEGGER2020, PRESETS, Topology
from maury.recipes.network_schema import CnnRecipe
from maury.regress.cnn import CnnNetworks, Inputs
from maury.regress.cnn_config import PRESETS as CONFIGS
from maury.regress.cnn_config import CnnConfig
from maury.regress.cnn_training import train_cnn
from maury.regress.ensemble import EnsembleInferrer
from maury.train.config import LoopConfig

LABELS = (make_label("teff", "K"), make_label("logg", "dex"))
STAR = AnalyticSpectra(("teff", "logg"))
WAVELENGTH = 5000.0 + 2.0 * np.arange(120)
TINY = CnnConfig(
    Topology((4, 8), kernel=8, stride=4, pool="none", dense=(16,)), loop=LoopConfig("adam", 1e-2, 0.0, "cosine", 64, 3, 1, 0)
)


def values(n: int, seed: int) -> np.ndarray:
    return np.array([4500.0, 1.5]) + np.random.default_rng(seed).random((n, 2)) * np.array([2000.0, 3.0])


class TestTopology:
    def test_the_published_family_spans_its_two_ends(self) -> None:
        """METHODS 1: 3 convolutions, one max-pool, 3 dense layers; 8, none, max or average, 5; filters 8 to 64 or back."""
        assert len(PASSEGGER2020) == 36
        small, large = PASSEGGER2020["3-rising-max-3"], PASSEGGER2020["8-falling-average-5"]
        assert (small.filters[0], small.filters[-1], len(small.filters), small.dense) == (8, 64, 3, (256, 128, 64))
        assert (large.filters[0], large.filters[-1], len(large.filters), large.dense) == (64, 8, 8, (512, 256, 128, 64, 32))
        assert {t.kernel for t in PASSEGGER2020.values()} == {5}
        assert small.lengths(512) == (512, 512, 256)  # pooled once
        assert PASSEGGER2020["3-rising-none-3"].lengths(512) == (512, 512, 512)

    def test_starnet_as_released(self) -> None:
        """METHODS 1: 4 then 16 filters of 8 pixels, same padding, max-pool 4, dense 256 and 128, linear output."""
        n = (8 + 1) * 4 + (4 * 8 + 1) * 16 + (128 * 16 + 1) * 256 + (256 + 1) * 128 + (128 + 1) * 3
        assert PRESETS["starnet"].n_parameters(512, 3) == n

    @pytest.mark.parametrize("name", ["starnet", "small-deep", "8-falling-none-5", "5-rising-average-3"])
    @pytest.mark.parametrize("n_pixels", [64, 75])
    def test_sizes_are_those_of_the_network(self, name: str, n_pixels: int) -> None:
        network = StackedCnn1d(2, PRESETS[name], n_pixels, 3, torch.Generator().manual_seed(1))
        assert sum(p.numel() for p in network.parameters()) == 2 * PRESETS[name].n_parameters(n_pixels, 3)

    def test_pooling_that_leaves_nothing_is_refused(self) -> None:
        with pytest.raises(
            UsageError, match=r"expected more than 7 pixels for .*, of which nothing is left; take a longer chunk"
        ):
            Topology((4, 4, 4), pool_after="each").lengths(7)

    @pytest.mark.parametrize("wrong", [{"filters": ()}, {"dense": ()}, {"kernel": 0}, {"pool": "mean"}, {"pool_after": "first"}])
    def test_impossible_ones(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="expected"):
            Topology(**{"filters": (4,), **wrong})

    def test_a_recipe_names_one(self) -> None:
        assert CnnRecipe(topology="starnet", snr=(50, 150)).to_config() == replace(
            CONFIGS["maury"], topology=PRESETS["starnet"], snr=(50, 150)
        )
        with pytest.raises(UsageError, match=r"expected a topology among starnet, .*, got 'large'; correct the name"):
            CnnRecipe(topology="large").to_config()


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("name", ["starnet", "small", "small-deep", "3-falling-average-3", "8-rising-none-5", "each"])
def test_numpy_has_torch_s_numbers(name: str, joint: bool) -> None:
    """Float32 sums of up to thousands of products, in another order: good to 1e-5 of the largest number."""
    topology = PRESETS.get(name, Topology((4, 6, 8), kernel=4, pool="max", pool_size=3, pool_after="each", dense=(16,)))
    network = StackedCnn1d(4, topology, 125, 2 if joint else 1, torch.Generator().manual_seed(1))
    for offset in [*network.offsets, *network.biases]:
        torch.nn.init.normal_(offset, generator=torch.Generator().manual_seed(2))
    label_set = LabelSet.from_training(LABELS, values(50, 3)).scaled_to_range()
    inputs = Inputs(5000.0 + np.arange(125.0), np.full(125, 0.5, np.float32), 0.25)
    networks = CnnNetworks(label_set, inputs, topology, network.numpy_layers())
    flux = np.random.default_rng(4).random((33, 125)).astype(np.float32)
    with torch.no_grad():
        out = network(torch.from_numpy((flux - 0.5) / 0.25)).numpy()
    scaled = out.transpose(1, 0, 2) if joint else out[:, :, 0].reshape(2, 2, 33).transpose(2, 1, 0)
    assert networks.n_members == (4 if joint else 2)
    found = label_set.scale(networks.predict(flux, np.ones(flux.shape, bool)).reshape(-1, 2)).reshape(scaled.shape)
    np.testing.assert_allclose(found, scaled, rtol=0, atol=1e-5 * np.abs(scaled).max())


class TestTraining:
    def test_side_by_side_is_alone(self) -> None:
        """Networks do not share anything: two labels at once are each label alone, but for the first weights' draw."""
        truth = values(200, 1)
        spectra = STAR.spectra(WAVELENGTH, truth, snr=300, seed=2)
        both = train_cnn(spectra, LABELS, truth, TINY)
        first = train_cnn(spectra, LABELS[:1], truth[:, :1], TINY)
        assert both.networks.n_members == 1
        assert both.history.validation.shape == (3, 2)
        alone = both.networks.only("logg")
        good = np.ones(spectra.flux.shape, bool)
        np.testing.assert_allclose(
            alone.predict(spectra.flux, good)[:, :, 0], both.networks.predict(spectra.flux, good)[:, :, 1], rtol=1e-5
        )
        assert first.networks.labels.names == ("teff",)

    def test_groups_are_held_back_whole(self) -> None:
        truth = values(120, 1)
        groups = tuple(str(i // 6) for i in range(120))
        training = train_cnn(STAR.spectra(WAVELENGTH, truth, snr=300, seed=2), LABELS, truth, TINY, groups=groups)
        held = {groups[i] for i in np.flatnonzero(training.held_back)}
        assert held
        assert not held & {groups[i] for i in np.flatnonzero(~training.held_back)}

    def test_the_same_seed_gives_the_same_weights_and_noise_other_ones(self) -> None:
        truth = values(100, 1)
        spectra = STAR.spectra(WAVELENGTH, truth, snr=300, seed=2)
        one, other = (train_cnn(spectra, LABELS, truth, TINY).networks for _ in range(2))
        noisy = train_cnn(spectra, LABELS, truth, replace(TINY, snr=(20.0, 50.0))).networks
        for (a, _), (b, _), (c, _) in zip(one.layers, other.layers, noisy.layers, strict=True):
            np.testing.assert_array_equal(a, b)
            assert not np.array_equal(a, c)

    def test_too_few_pixels_for_the_topology(self) -> None:
        truth = values(100, 1)
        deep = replace(TINY, topology=Topology((4,) * 8, pool_after="each"))
        with pytest.raises(UsageError, match="expected more than 120 pixels"):
            train_cnn(STAR.spectra(WAVELENGTH, truth, snr=300, seed=2), LABELS, truth, deep)

    def test_masked_everywhere(self) -> None:
        truth = values(100, 1)
        spectra = STAR.spectra(WAVELENGTH, truth, snr=300, seed=2)
        with pytest.raises(UsageError, match="expected training spectra with usable pixels, got none"):
            train_cnn(spectra.with_pixels(ivar=np.zeros(spectra.flux.shape)), LABELS, truth, TINY)


@pytest.fixture(scope="module")
def networks() -> CnnNetworks:
    """Two for each label."""
    truth = values(200, 1)
    return train_cnn(STAR.spectra(WAVELENGTH, truth, snr=300, seed=2), LABELS, truth, replace(TINY, members=2)).networks


class TestEnsemble:
    def test_every_network_votes_and_has_a_name(self, networks: CnnNetworks) -> None:
        spectra = STAR.spectra(WAVELENGTH, values(5, 3), snr=300, seed=4)
        ensemble = EnsembleInferrer.of(WAVELENGTH, (networks, networks.only("logg")), (("a", "b"), ("c", "d")))
        votes = ensemble.votes(spectra)
        assert ensemble.n_members == (2, 4)
        assert [v.shape for v in votes.values] == [(5, 2), (5, 4)]
        assert votes.names == (("a", "b"), ("a", "b", "c", "d"))
        good = np.ones(spectra.flux.shape, bool)
        np.testing.assert_allclose(votes.values[0], networks.predict(spectra.flux, good)[:, :, 0], rtol=1e-6)

    def test_a_network_without_its_window_does_not_vote(self, networks: CnnNetworks) -> None:
        """Two windows; half of the stars lack the second, where the only networks for log g look."""
        wavelength = np.concatenate([WAVELENGTH, WAVELENGTH + 1000.0])
        gravity = networks.only("logg")
        there = replace(gravity, inputs=replace(gravity.inputs, wavelength=WAVELENGTH + 1000.0))
        ensemble = EnsembleInferrer.of(wavelength, (networks.only("teff"), there), (("a", "b"), ("c", "d")))
        near = STAR.spectra(WAVELENGTH, values(6, 3), snr=300, seed=4)
        flux, ivar = (np.concatenate([array, array], axis=1) for array in (near.flux, near.ivar))
        ivar[:3, 120 + 50 :] = 0.0  # 50 of 120 pixels are left
        found = ensemble.infer(near.with_pixels(wavelength=wavelength, flux=flux, ivar=ivar))
        assert np.isfinite(found.values[:, 0]).all()
        np.testing.assert_array_equal(np.isnan(found.values[:, 1]), [True] * 3 + [False] * 3)
        np.testing.assert_array_equal(found.label_flags[:, 1] & int(ResultFlag.FEW_PIXELS) > 0, [True] * 3 + [False] * 3)
        assert set(found.status) == {FitStatus.CONVERGED}
        ivar[0] = np.where(np.arange(240) % 120 < 55, ivar[5], 0.0)  # 110 pixels, but too few of either window
        lost = ensemble.infer(near.with_pixels(wavelength=wavelength, flux=flux, ivar=ivar))
        assert (lost.status[0], lost.reason[0]) == (
            FitStatus.NOT_FITTED,
            "fewer than 50% usable pixels in the windows of every network",
        )

    def test_other_pixels_are_refused(self, networks: CnnNetworks) -> None:
        with pytest.raises(
            UsageError, match=r"expected networks on pixels of the grid 5000\.50 to 5238\.50 Å, got one on others"
        ):
            EnsembleInferrer.of(WAVELENGTH + 0.5, (networks,), (("a", "b"),))
        ensemble = EnsembleInferrer.of(WAVELENGTH, (networks,), (("a", "b"),))
        with pytest.raises(UsageError, match="expected spectra on the model's grid of 120 pixels"):
            ensemble.infer(STAR.spectra(WAVELENGTH + 1.0, values(3, 3), snr=300, seed=4))

    def test_none_is_refused(self) -> None:
        label_set = LabelSet.from_training(LABELS, values(50, 3))
        with pytest.raises(UsageError, match=r"expected networks and a name for each, got stacks of \[\] and \[\] names"):
            EnsembleInferrer(label_set, WAVELENGTH, (), ())
