"""Autoencoder and label network as torch modules: published sizes, where activations stand, dropout, first weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from maury.emulate.generator_config import PRESETS
from maury.errors import UsageError
from maury.networks.autoencoder import Autoencoder
from maury.networks.mlp import StackedMlp


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def n_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def small(activation: str = "relu") -> Autoencoder:
    return Autoencoder(7, (5, 4), 3, activation, seeded())


def test_the_published_autoencoder_has_9_548_010_parameters() -> None:
    """METHODS 6, numeric checks: 4000-1024-512-256-64-32-10 and back."""
    settings = PRESETS["gebran2024"].autoencoder
    assert n_parameters(Autoencoder(4000, settings.hidden, settings.latent, "relu", seeded())) == 9_548_010


def test_the_published_label_network_has_11_078_258_parameters() -> None:
    """METHODS 6, numeric checks: 6-5000-2000-512-32-10, 30 % dropout after each of the first three layers."""
    settings = PRESETS["gebran2024"].label_network
    sizes = (6, *settings.hidden, PRESETS["gebran2024"].autoencoder.latent)
    assert (settings.dropout, settings.dropped_layers) == (0.3, 3)
    assert n_parameters(StackedMlp(1, sizes, "relu", seeded())) == 11_078_258


def test_it_is_its_decoder_after_its_encoder() -> None:
    network, x = small(), torch.rand((6, 7), generator=seeded(1))
    latents = network.encode(x)
    assert latents.shape == (1, 6, 3)
    torch.testing.assert_close(network.decode(latents), network(x), rtol=0, atol=0)


def test_the_latent_numbers_have_the_activation_and_the_output_has_not() -> None:
    """METHODS 3: "ReLU incl. latent", linear output."""
    network, x = small(), torch.rand((50, 7), generator=seeded(1)) - 0.5
    before, latents, out = network.before_activation(x), network.encode(x), network(x)
    assert bool((before < 0).any())
    torch.testing.assert_close(latents, torch.relu(before), rtol=0, atol=0)
    assert bool((out < 0).any())


def test_against_torch_s_own_layers() -> None:
    network, x = small("silu"), torch.rand((6, 7), generator=seeded(1))
    layers: list[nn.Module] = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[2])
        linear.weight.data, linear.bias.data = weight.data[0].T.contiguous(), bias.data[0, 0]
        layers += [linear, nn.SiLU()]
    torch.testing.assert_close(network(x)[0], nn.Sequential(*layers[:-1])(x), rtol=0, atol=1e-6)
    assert [tuple(w.shape[1:]) for w in network.weights] == [(7, 5), (5, 4), (4, 3), (3, 4), (4, 5), (5, 7)]


class TestDropout:
    def network(self, n_dropped: int) -> StackedMlp:
        """Every hidden neuron is 1, so the outputs count the neurons that are left, times 1/(1 - 0.3)."""
        network = StackedMlp(1, (1, 1000, 1), "relu", seeded(), dropout=0.3, n_dropped=n_dropped)
        with torch.no_grad():
            for parameter, value in zip([*network.weights, *network.biases], [0.0, 1.0, 1.0, 0.0], strict=True):
                parameter.fill_(value)
        return network

    def test_while_training_only(self) -> None:
        network = self.network(1)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(3)
            left = network(torch.zeros(200, 1))[0, :, 0].detach().numpy() * 0.7
        # binomial: mean 700, standard deviation sqrt(1000 0.3 0.7) = 14.5; of 200 draws the mean is good to 1.0
        assert abs(left.mean() - 700) < 4
        assert 12 < left.std() < 17
        np.testing.assert_allclose(network.eval()(torch.zeros(3, 1))[0, :, 0].detach(), 1000.0)

    def test_after_the_first_layers_only(self) -> None:
        np.testing.assert_allclose(self.network(0)(torch.zeros(3, 1))[0, :, 0].detach(), 1000.0)

    def test_a_share_that_is_none(self) -> None:
        with pytest.raises(UsageError, match=r"dropout of at least 0 and below 1, got 1\.0"):
            StackedMlp(1, (1, 2, 1), "relu", seeded(), dropout=1.0)


def test_first_weights_of_glorot() -> None:
    """Uniform within sqrt(6/(inputs + outputs)) (Glorot & Bengio 2010, eq. 16), biases 0 as Keras has them."""
    network = StackedMlp(1, (100, 50, 2), "relu", seeded(), initial="glorot")
    limit = (6 / 150) ** 0.5
    largest = float(network.weights[0].detach().abs().max())
    assert 0.99 * limit < largest <= limit
    assert all(not bool(bias.detach().any()) for bias in network.biases)
    with pytest.raises(UsageError, match="initial weights among uniform, glorot, normal, got 'he'"):
        StackedMlp(1, (1, 2), "relu", seeded(), initial="he")
