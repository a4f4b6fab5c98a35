"""What carries a network to another domain: frozen layers, distances of features, a critic, and the stars that there are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maury.errors import UsageError
from maury.networks.mlp import StackedMlp
from maury.train.checkpoint import Checkpoint, fingerprint_of
from maury.train.config import LoopConfig
from maury.train.loop import train_network
from maury.train.population import drawn, population_weights
from maury.train.transfer import Critic, adversarial, coral, frozen, mmd
from maury.train.transfer_config import TransferConfig

LOOP = LoopConfig("adam", 0.05, 0.0, "constant", 4, 6, 1, 0, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> StackedMlp:
    return StackedMlp(1, (3, 5, 4, 2), "silu", seeded())


def trained(net: nn.Module, config: LoopConfig = LOOP, checkpoint: Checkpoint | None = None) -> None:
    x, y = torch.rand((12, 3), generator=seeded(1)), torch.rand((12, 2), generator=seeded(2))

    def error(net: nn.Module, index: Tensor) -> Tensor:
        return (net(x[index]) - y[index]).square().mean(dim=(1, 2))

    train_network(net, error, lambda net: error(net, torch.arange(12)), 12, config, checkpoint=checkpoint)


def copies(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def changed(net: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, p in net.named_parameters() if not torch.equal(p.detach(), before[name])}


class TestFrozen:
    @pytest.mark.parametrize("optimiser", ["adam", "adamw"])
    def test_frozen_parameters_stay_bit_for_bit_and_others_are_trained(self, optimiser: Any) -> None:
        """AdamW takes something of every parameter that it knows, even of one without a gradient: it must not know these."""
        net = network()
        before = copies(net)
        with frozen(net, ("weights.[0-1]", "biases.0")):
            trained(net, replace(LOOP, optimiser=optimiser, weight_decay=0.1))
        assert changed(net, before) == {"weights.2", "biases.1", "biases.2"}

    def test_no_pattern_freezes_nothing(self) -> None:
        net = network()
        before = copies(net)
        with frozen(net, ()):
            trained(net)
        assert changed(net, before) == set(before)

    def test_a_pattern_that_matches_nothing(self) -> None:
        names = "weights.0, weights.1, weights.2, biases.0, biases.1, biases.2"
        with (
            pytest.raises(
                UsageError, match=rf"^expected patterns of parameters among {names}, got 'weight\.\*'; correct frozen$"
            ),
            frozen(network(), ("weights.0", "weight.*")),
        ):
            pass

    def test_all_frozen(self) -> None:
        net = network()
        with (
            pytest.raises(UsageError, match=r"^expected parameters that are left to train, got all 6 frozen; freeze fewer$"),
            frozen(net, ("*",)),
        ):
            pass
        assert all(p.requires_grad for p in net.parameters())

    def test_afterwards_all_is_as_it_was_also_after_an_error(self) -> None:
        net = network()
        net.biases[0].requires_grad_(False)

        def fails(net: nn.Module, index: Tensor) -> Tensor:
            assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["weights.0", "biases.0"]
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), frozen(net, ("weights.0", "biases.0")):
            train_network(net, fails, lambda net: torch.zeros(1), 3, LOOP)
        assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["biases.0"]

    def test_a_killed_training_of_a_frozen_network_goes_on(self, tmp_path: Path) -> None:
        whole, parts = network(), network()
        checkpoint = Checkpoint(tmp_path, fingerprint_of({}, {}), every_seconds=0.0)
        with frozen(whole, ("weights.0",)), frozen(parts, ("weights.0",)):
            trained(whole)
            trained(parts, replace(LOOP, max_epochs=3), checkpoint)
            trained(parts, checkpoint=checkpoint)
        assert changed(whole, copies(parts)) == set()


def batch(n: int, f: int, seed: int, shift: float = 0.0, size: float = 1.0) -> Tensor:
    return shift + size * torch.randn((n, f), generator=seeded(seed), dtype=torch.float64)


class TestDistances:
    def test_coral_is_the_formula(self) -> None:
        """Sun & Saenko 2016, eq. 1, with the means, over f instead of f^2."""
        first, second = batch(30, 5, 1), batch(21, 5, 2, 0.3, 1.4)
        a, b = first.numpy(), second.numpy()
        covariances = ((np.cov(a, rowvar=False) - np.cov(b, rowvar=False)) ** 2).sum() / (4 * 5)
        wanted = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() / 5 + covariances
        assert float(coral(first, second)) == pytest.approx(wanted, rel=1e-12)

    def test_mmd_is_the_formula(self) -> None:
        """Gretton+2012, eq. 5 (the biased one): means of kernels within either batch, minus twice that between them."""
        a, b = batch(7, 3, 1).numpy(), batch(5, 3, 2, 0.5).numpy()
        joined = np.concatenate([a, b])
        squares = ((joined[:, None] - joined[None]) ** 2).sum(axis=2)
        median = np.sort(squares.ravel())[(squares.size - 1) // 2]

        def kernels(x: np.ndarray, y: np.ndarray) -> float:
            apart = ((x[:, None] - y[None]) ** 2).sum(axis=2) / median
            return float(np.mean(sum(np.exp(-apart / width) for width in (0.25, 0.5, 1.0, 2.0, 4.0))))

        found = float(mmd(torch.from_numpy(a), torch.from_numpy(b)))
        assert found == pytest.approx(kernels(a, a) + kernels(b, b) - 2 * kernels(a, b), rel=1e-9)

    @pytest.mark.parametrize("distance", [coral, mmd])
    def test_zero_for_equal_batches_and_more_with_every_shift(self, distance: Any) -> None:
        first = batch(100, 4, 1)
        assert float(distance(first, first)) == pytest.approx(0.0, abs=1e-12)
        shifted = [float(distance(first, batch(120, 4, 2, shift))) for shift in (0.0, 0.5, 1.0, 2.0, 4.0)]
        assert all(b > 1.5 * a for a, b in pairwise(shifted))

    @pytest.mark.parametrize("distance", [coral, mmd])
    def test_another_spread_at_the_same_mean_counts(self, distance: Any) -> None:
        first = batch(400, 4, 1)
        alike, wider = (float(distance(first, batch(400, 4, 2, 0.0, size))) for size in (1.0, 2.0))
        assert wider > 5 * alike

    @pytest.mark.parametrize("distance", [coral, mmd])
    def test_its_gradient_draws_batches_together(self, distance: Any) -> None:
        first, second = batch(50, 3, 1).requires_grad_(), batch(50, 3, 2, 1.0)
        distance(first, second).backward()
        assert first.grad is not None
        assert bool((first.grad.mean(dim=0) < 0).all())  # downhill is towards the second batch, at larger numbers

    @pytest.mark.parametrize("distance", [coral, mmd])
    def test_a_batch_of_one_spectrum_is_no_accident(self, distance: Any) -> None:
        """The last batch of an epoch may be one; it has no covariance, and torch warns and gives NaN."""
        first = batch(1, 3, 1).requires_grad_()
        distance(first, batch(1, 3, 2, 1.0)).backward()
        assert first.grad is not None
        assert bool(torch.isfinite(first.grad).all())


class TestAdversarial:
    def test_critic_and_features_get_opposite_gradients(self) -> None:
        critic = Critic(4, 8, seeded())
        first, second = (batch(20, 4, seed, shift).float().requires_grad_() for seed, shift in ((1, 0.0), (2, 1.0)))
        domain = torch.cat([torch.zeros(20), torch.ones(20)])
        odds = critic(torch.cat([first, second]))
        plain = torch.autograd.grad(
            nn.functional.binary_cross_entropy_with_logits(odds, domain), [first, second, *critic.parameters()]
        )
        loss = adversarial(critic, first, second, 0.7)
        reversed_ = torch.autograd.grad(loss, [first, second, *critic.parameters()])
        for a, b in zip(plain[:2], reversed_[:2], strict=True):
            assert float(a.abs().max()) > 0
            torch.testing.assert_close(b, -0.7 * a)
        for a, b in zip(plain[2:], reversed_[2:], strict=True):
            torch.testing.assert_close(b, a)
        p = 1.0 / (1.0 + np.exp(-odds.detach().double().numpy()))
        assert float(loss.detach()) == pytest.approx(-np.mean(np.log(np.where(domain.numpy() > 0, p, 1 - p))), rel=1e-5)

    def test_a_step_of_the_critic_tells_better_and_one_of_the_features_worse(self) -> None:
        critic = Critic(4, 8, seeded())
        first, second = (batch(60, 4, seed, shift).float().requires_grad_() for seed, shift in ((1, 0.0), (2, 1.0)))
        before = adversarial(critic, first, second, 1.0)
        gradients = torch.autograd.grad(before, [first, second, *critic.parameters()])
        with torch.no_grad():
            moved = [x - 10.0 * g for x, g in zip((first, second), gradients[:2], strict=True)]
            features = float(adversarial(critic, *moved, 1.0))
            for p, gradient in zip(critic.parameters(), gradients[2:], strict=True):
                p.sub_(0.1 * gradient)
            learned = float(adversarial(critic, first, second, 1.0))
        assert learned < float(before.detach()) < features

    def test_the_same_seed_makes_the_same_critic(self) -> None:
        one, same, other = (copies(Critic(3, 5, seeded(seed))) for seed in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not any(torch.equal(one[name], other[name]) for name in one)


class TestPopulation:
    LIBRARY = np.random.default_rng(1).random((3000, 2)) - 0.5
    LIBRARY[:, 0] = -0.25 * np.log(np.exp(2) - (np.exp(2) - np.exp(-2)) * (LIBRARY[:, 0] + 0.5))  # density exp(-4 x)

    def test_weights_make_the_library_like_the_stars_that_were_found(self) -> None:
        """The library then is what was found, widened by the kernels: standard deviation sqrt(0.08^2 + 0.1^2) = 0.128.

        The library has e^4 times as many stars at one end of the first label: without its own density, that mean would be off by
        4 0.128^2 = 0.066. About 90 stars count, whose mean is good to 0.128/sqrt(90) = 0.013; 0.03 is twice that. The floor of
        2 % has the library's mean.
        """
        found = np.array([0.2, -0.1]) + 0.08 * np.random.default_rng(2).standard_normal((400, 2))
        weights = population_weights(self.LIBRARY, found)
        assert weights.mean() == pytest.approx(1.0, abs=1e-12)
        mean = np.average(self.LIBRARY, axis=0, weights=weights)
        np.testing.assert_allclose(mean, (found.mean(axis=0) + 0.02 * self.LIBRARY.mean(axis=0)) / 1.02, atol=0.03)
        spread = np.sqrt(np.average((self.LIBRARY - mean) ** 2, axis=0, weights=weights))
        assert (np.abs(spread - 0.128) < 0.03).all()  # the evenly filled box has 0.289

    def test_no_kind_of_star_is_ruled_out(self) -> None:
        found = np.full((50, 2), 0.4)
        weights = population_weights(self.LIBRARY, found)
        far = np.hypot(*(self.LIBRARY + 0.4).T) < 0.1
        np.testing.assert_allclose(weights[far], 0.02 / 1.02, rtol=1e-6)

    def test_stars_without_labels_do_not_count(self) -> None:
        found = np.random.default_rng(2).random((30, 2)) - 0.5
        with_nan = np.concatenate([found, [[np.nan, 0.1], [0.3, np.nan], [np.nan, np.nan]]])
        np.testing.assert_array_equal(population_weights(self.LIBRARY, with_nan), population_weights(self.LIBRARY, found))

    @pytest.mark.parametrize("found", [np.full((5, 2), 9.0), np.full((5, 2), np.nan), np.zeros((0, 2))])
    def test_nothing_found_near_the_library_leaves_it_as_it_is(self, found: np.ndarray) -> None:
        np.testing.assert_allclose(population_weights(self.LIBRARY, found), 1.0, rtol=1e-12)

    def test_drawn_as_often_as_weights_say(self) -> None:
        """Binomial: 10,000 draws of weight 1/4 are 2500 with a standard deviation of 43; 4 of those."""
        rows = np.arange(5, 10_005)
        weights = np.where(rows % 2 == 0, 1.0, 3.0)
        weights[0] = 0.0
        found = drawn(rows, weights, 1)
        assert len(found) == len(rows)
        assert (np.diff(found) >= 0).all()
        assert 5 not in found
        assert abs((found % 2 == 0).sum() - 2500) < 4 * 43
        np.testing.assert_array_equal(found, drawn(rows, weights, 1))
        assert not np.array_equal(found, drawn(rows, weights, 2))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"method": "alignment"}, r"expected method among none, .*, adversarial, got 'alignment'; correct the name"),
        ({"held_back": 0.9}, "expected a held_back above 0 and up to 0.5, got 0.9; correct it"),
        ({"weight": -1.0}, "expected weight >= 0, got -1.0; correct it"),
        ({"reconstruction": float("inf")}, "expected reconstruction >= 0, got inf; correct it"),
        ({"population": -1}, "expected population >= 0, got -1; correct it"),
    ],
)
def test_impossible_settings(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        TransferConfig(**wrong)
