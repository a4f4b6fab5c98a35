"""The training loop: best weights, patience, schedule, order of batches, losses, checkpoints; and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maury.emulate.payne_config import PRESETS, PayneConfig
from maury.emulate.payne_training import _Objective, _Target
from maury.errors import ModelFileError, UsageError
from maury.networks.mlp import StackedMlp
from maury.train.checkpoint import Checkpoint, fingerprint_of
from maury.train.config import LoopConfig
from maury.train.loop import train_network

CONFIG = LoopConfig("adam", 0.1, 0.0, "constant", 0, 20, 1, 0, 0)


class Two(nn.Module):
    """Two members with one number each, w (2, 1)."""

    n_members = 2

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, 1))


class Plain(nn.Module):
    """One number, and no word of members."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))


def to_four(network: nn.Module, index: Tensor) -> Tensor:
    """(E,) loss that pulls every number towards 4."""
    return (network.w - 4.0).square().reshape(-1, 1).mean(dim=1)


class TestBestWeights:
    def test_each_member_keeps_its_own(self) -> None:
        """Both run towards 4; validation wants 1 of the first and 3 of the second."""
        network, seen = Two(), []

        def validate(network: nn.Module) -> Tensor:
            seen.append(network.w.detach().clone()[:, 0])
            return (seen[-1] - torch.tensor([1.0, 3.0])).abs()

        history = train_network(network, to_four, validate, 1, replace(CONFIG, max_epochs=60))
        path = torch.stack(seen)
        best = (path - torch.tensor([1.0, 3.0])).abs().argmin(dim=0)
        assert best[0] < best[1] < 59
        assert history.best_epoch.tolist() == (best + 1).tolist()
        torch.testing.assert_close(network.w.detach()[:, 0], path[best, torch.arange(2)], rtol=0, atol=0)

    def test_a_plain_module_is_a_stack_of_one(self) -> None:
        network, seen = Plain(), []

        def validate(network: nn.Module) -> Tensor:
            seen.append(network.w.detach().clone())
            return (network.w - 2.0).square().mean().reshape(1)

        def loss(network: nn.Module, index: Tensor) -> Tensor:
            return (network.w - 4.0).square().mean().reshape(1)

        history = train_network(network, loss, validate, 1, replace(CONFIG, max_epochs=60))
        assert history.validation.shape == (60, 1)
        best = int(history.best_epoch[0]) - 1
        assert 0 < best < 59
        torch.testing.assert_close(network.w.detach(), seen[best], rtol=0, atol=0)

    def test_the_first_of_equal_ones_stays(self) -> None:
        history = train_network(Two(), to_four, lambda network: torch.ones(2), 1, CONFIG)
        assert history.best_epoch.tolist() == [1, 1]


class TestEnd:
    @pytest.mark.parametrize(("patience", "epochs"), [(3, 5), (0, 20), (30, 20)])
    def test_patience_counts_checks_without_any_improvement(self, patience: int, epochs: int) -> None:
        """The second member improves until the second check, the first never after the first."""
        losses = iter([torch.tensor([1.0, 2.0]), *[torch.tensor([1.0, 1.0])] * 30])
        history = train_network(Two(), to_four, lambda network: next(losses), 1, replace(CONFIG, patience=patience))
        assert history.epoch[-1] == epochs
        assert history.best_epoch.tolist() == [1, 2]

    def test_checks_come_every_so_many_epochs_and_at_the_end(self) -> None:
        calls: list[tuple[int, int]] = []
        config = replace(CONFIG, max_epochs=10, check_every=4)
        history = train_network(
            Two(), to_four, lambda network: torch.ones(2), 1, config, progress=lambda done, total: calls.append((done, total))
        )
        assert history.epoch.tolist() == [4, 8, 10]
        assert calls == [(4, 10), (8, 10), (10, 10), (10, 10)]
        assert history.training.shape == history.validation.shape == (3, 2)

    def test_progress_ends_at_the_end_when_patience_does_it(self) -> None:
        calls: list[tuple[int, int]] = []
        config = replace(CONFIG, patience=2)
        train_network(
            Two(), to_four, lambda network: torch.ones(2), 1, config, progress=lambda done, total: calls.append((done, total))
        )
        assert calls[-1] == (20, 20)

    def test_history_holds_the_mean_loss_since_the_last_check(self) -> None:
        """The number stays at 0 where the learning rate is as good as none: the loss is 16 all the time."""
        history = train_network(Two(), to_four, lambda network: torch.ones(2), 1, replace(CONFIG, learning_rate=1e-12))
        np.testing.assert_allclose(history.training, 16.0, rtol=1e-6)
        assert history.training.dtype == history.validation.dtype == np.float64

    def test_a_loss_that_is_not_finite(self) -> None:
        def loss(network: nn.Module, index: Tensor) -> Tensor:
            return to_four(network, index) * float("nan")

        with pytest.raises(UsageError, match="finite training loss, got none after 1 epochs; lower the learning rate"):
            train_network(Two(), loss, lambda network: torch.ones(2), 1, CONFIG)

    def test_a_member_whose_validation_loss_never_is_finite(self) -> None:
        """The first weights would come back as the best ones."""
        with pytest.raises(UsageError, match="finite validation loss, got none at any check; lower the learning rate"):
            train_network(Two(), to_four, lambda network: torch.tensor([1.0, float("nan")]), 1, CONFIG)


class TestSteps:
    def test_cosine(self) -> None:
        """Adam's steps along a constant slope are the learning rate itself."""
        rates: list[float] = []
        previous = 0.0

        def validate(network: nn.Module) -> Tensor:
            nonlocal previous
            rates.append(float(network.w[0]) - previous)
            previous = float(network.w[0])
            return torch.ones(2)

        def loss(network: nn.Module, index: Tensor) -> Tensor:
            return -network.w[:, 0]

        train_network(Two(), loss, validate, 1, replace(CONFIG, schedule="cosine", max_epochs=8))
        wanted = 0.05 * (1 + np.cos(np.pi * np.arange(8) / 8))
        np.testing.assert_allclose(rates, wanted, rtol=1e-5)

    def test_batches_hold_every_star_once_in_an_order_that_the_seed_decides(self) -> None:
        def order(seed: int) -> list[list[int]]:
            seen: list[list[int]] = []

            def loss(network: nn.Module, index: Tensor) -> Tensor:
                seen.append(index.tolist())
                return to_four(network, index)

            train_network(Two(), loss, lambda network: torch.ones(2), 10, replace(CONFIG, batch_size=4, max_epochs=3, seed=seed))
            return seen

        first = order(1)
        assert [len(batch) for batch in first] == [4, 4, 2] * 3
        epochs = [sum(first[i : i + 3], []) for i in (0, 3, 6)]  # noqa: RUF017
        assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
        assert epochs[0] != epochs[1]
        assert order(1) == first
        assert order(2) != first

    def test_one_batch_holds_all(self) -> None:
        for size in (0, 10, 11):
            seen: list[list[int]] = []

            def loss(network: nn.Module, index: Tensor, seen: list[list[int]] = seen) -> Tensor:
                seen.append(index.tolist())
                return to_four(network, index)

            train_network(Two(), loss, lambda network: torch.ones(2), 10, replace(CONFIG, batch_size=size, max_epochs=2))
            assert seen == [list(range(10))] * 2

    @pytest.mark.parametrize("optimiser", ["adam", "adamw", "radam", "adamax"])
    def test_every_optimiser_finds_the_minimum(self, optimiser: Any) -> None:
        network = Two()
        config = LoopConfig(optimiser, 0.1, 0.0, "cosine", 0, 400, 10, 0, 0)
        train_network(network, to_four, lambda net: to_four(net, torch.arange(1)), 1, config)
        torch.testing.assert_close(network.w.detach(), torch.full((2, 1), 4.0), rtol=0, atol=1e-2)


class TestLosses:
    """Means over stars by weight, of errors by share, against closed forms."""

    def objective(self, loss: Any, good: np.ndarray | None) -> _Objective:
        network = StackedMlp(2, (1, 3), "tanh", torch.Generator().manual_seed(0))
        with torch.no_grad():
            network.weights[0].zero_()
            network.biases[0].copy_(torch.tensor([[[0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0]]]))
        scores = np.array([[1.0, 2.0, 0.5], [0.0, -2.0, 3.0]])
        target = _Target(np.zeros(3), None, np.ones(3), scores, np.array([0.5, 0.25, 0.25]), good, 1.0)
        config = replace(PayneConfig(), loss=loss)
        weights, held = np.array([3.0, 1.0]), np.array([[False, False], [False, True]])
        self.network = network
        return _Objective(config, np.zeros((2, 1)), target, weights, held, "cpu")

    def test_mse_by_share_and_star_weight(self) -> None:
        objective = self.objective("mse", None)
        first, second = 0.5 * 1 + 0.25 * 4 + 0.25 * 0.25, 0.25 * 4 + 0.25 * 9  # of the member that says 0
        other = 0.25 * 1 + 0.25 * 0.25  # of the first star, by the member that says 1 and trains on that star alone
        found = objective.loss(self.network, torch.arange(2))
        np.testing.assert_allclose(found.detach(), [(3 * first + second) / 4, other], rtol=1e-6)
        held = objective.validate(self.network).detach()
        np.testing.assert_allclose(held, [0.0, 0.5 * 1 + 0.25 * 9 + 0.25 * 4], rtol=1e-6)

    def test_l1_and_huber(self) -> None:
        l1 = self.objective("l1", None).loss(self.network, torch.tensor([0]))
        np.testing.assert_allclose(l1.detach(), [0.5 * 1 + 0.25 * 2 + 0.25 * 0.5, 0.25 * 1 + 0.25 * 0.5], rtol=1e-6)
        huber = self.objective("huber", None).loss(self.network, torch.tensor([0]))
        np.testing.assert_allclose(huber.detach(), [0.5 * 0.5 + 0.25 * 1.5 + 0.25 * 0.125, 0.25 * 0.5 + 0.25 * 0.125], rtol=1e-6)

    def test_masked_pixels_do_not_count(self) -> None:
        good = np.array([[True, False, True], [True, True, False]])
        found = self.objective("mse", good).loss(self.network, torch.tensor([0]))
        np.testing.assert_allclose(found.detach(), [(1 + 0.25) / 2, (0 + 0.25) / 2], rtol=1e-6)

    @pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
    def test_pixels_that_all_are_good_count_as_with_a_mask(self, loss: Any) -> None:
        """Whether one pixel anywhere is masked must not change the size of the loss."""
        rng = np.random.default_rng(3)
        from maury.spectra import Spectra

        flux = 1 + 0.1 * rng.normal(size=(6, 5))
        spectra = Spectra.from_arrays(5000.0 + np.arange(5), flux, ivar=np.ones((6, 5)), medium="vacuum", frame="rest")
        config = PayneConfig(components=0, loss=loss, members=2)
        network = StackedMlp(2, (1, 5), "tanh", torch.Generator().manual_seed(0))
        target = _Target.of(spectra, np.ones(6), config)
        held = np.arange(6) % 2 == np.arange(2)[:, None]
        plain = _Objective(config, np.zeros((6, 1)), target, np.ones(6), held, "cpu")
        masked = replace(target, good=np.ones((6, 5), dtype=bool))
        other = _Objective(config, np.zeros((6, 1)), masked, np.ones(6), held, "cpu")
        index = torch.arange(6)
        torch.testing.assert_close(plain.loss(network, index), other.loss(network, index), rtol=1e-5, atol=0)


class TestSettings:
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"optimiser": "sgd"}, "optimiser among adam, adamw, radam, adamax, got 'sgd'"),
            ({"schedule": "cosin"}, "schedule among constant, cosine, got 'cosin'"),
            ({"learning_rate": 0.0}, "learning_rate > 0, got 0.0"),
            ({"learning_rate": float("nan")}, "learning_rate > 0, got nan"),
            ({"weight_decay": -1.0}, "weight_decay >= 0, got -1.0"),
            ({"max_epochs": 0}, "max_epochs >= 1, got 0"),
            ({"check_every": 0}, "check_every >= 1, got 0"),
            ({"batch_size": -1}, "batch_size >= 0, got -1"),
            ({"patience": -1}, "patience >= 0, got -1"),
            ({"seed": -1}, "seed >= 0, got -1"),
        ],
    )
    def test_of_the_loop(self, change: dict[str, Any], text: str) -> None:
        with pytest.raises(UsageError, match=text):
            replace(CONFIG, **change)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"activation": "swish"}, "activation among leaky_relu, relu, sigmoid, tanh, silu, got 'swish'"),
            ({"loss": "mae"}, "loss among mse, l1, huber, got 'mae'"),
            ({"scaling": "rang"}, "scaling among range, percentile, got 'rang'"),
            ({"hidden": ()}, r"at least one hidden layer of at least one neuron, got \[\]"),
            ({"hidden": (3, 0)}, r"at least one hidden layer of at least one neuron, got \[3, 0\]"),
            ({"members": 0}, "members >= 1, got 0"),
            ({"components": -1}, "components >= 0, got -1"),
            ({"power": -0.5}, "power >= 0, got -0.5"),
            ({"validation_fraction": 0.0}, "validation_fraction above 0 and up to 0.5, got 0.0"),
            ({"validation_fraction": 0.9}, "validation_fraction above 0 and up to 0.5, got 0.9"),
        ],
    )
    def test_of_the_payne(self, change: dict[str, Any], text: str) -> None:
        with pytest.raises(UsageError, match=text):
            replace(PayneConfig(), **change)

    def test_the_published_ones(self) -> None:
        """METHODS 0.6: two layers of 300, LeakyReLU, L1, RAdam at 1e-4, batches of 512, 10^4 epochs, a check every hundred."""
        published = PRESETS["ting2019"]
        assert (published.hidden, published.activation, published.loss) == ((300, 300), "leaky_relu", "l1")
        assert (published.scaling, published.components, published.members) == ("range", 0, 1)
        assert published.loop == LoopConfig("radam", 1e-4, 0.0, "constant", 512, 10_000, 100, 0, 0)
        assert PRESETS["imig2022"] == published


class TestCheckpoints:
    """Killed at any check and started again, a training ends with the same numbers; tests/cli/test_resume.py does so for real."""

    class KilledError(Exception):
        pass

    def network(self) -> StackedMlp:
        return StackedMlp(3, (2, 4, 3), "tanh", torch.Generator().manual_seed(5))

    def train(self, config: LoopConfig, checkpoint: Checkpoint | None = None, die_at: int = 0) -> tuple[StackedMlp, Any]:
        network = self.network()
        x = torch.linspace(-1, 1, 40).reshape(20, 2)
        y = torch.stack([x[:, 0], x[:, 1] ** 2, x.sum(dim=1)], dim=1)
        checks = 0

        def loss(network: nn.Module, index: Tensor) -> Tensor:
            return (network(x[index]) - y[index]).square().mean(dim=(1, 2))

        def progress(done: int, total: int) -> None:
            nonlocal checks
            checks += 1
            if checks == die_at:
                raise self.KilledError

        def validate(network: nn.Module) -> Tensor:
            return (network(x + 0.1) - y).square().mean(dim=(1, 2))

        return network, train_network(network, loss, validate, 20, config, checkpoint=checkpoint, progress=progress)

    @pytest.mark.parametrize("optimiser", ["adam", "adamw", "radam", "adamax"])
    @pytest.mark.parametrize("schedule", ["constant", "cosine"])
    def test_the_end_is_the_same(self, tmp_path: Path, optimiser: Any, schedule: Any) -> None:
        config = LoopConfig(optimiser, 0.02, 0.01, schedule, 6, 30, 2, 0, 3)
        wanted, history = self.train(config)
        for die_at in (2, 3, 5):
            with pytest.raises(self.KilledError):
                self.train(config, Checkpoint(tmp_path, "f", 0.0), die_at)
        found, again = self.train(config, Checkpoint(tmp_path, "f", 0.0))
        for a, b in zip(wanted.parameters(), found.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        for name in ("epoch", "training", "validation", "best_epoch"):
            np.testing.assert_array_equal(getattr(history, name), getattr(again, name))

    def test_patience_is_remembered(self, tmp_path: Path) -> None:
        config = LoopConfig("adam", 0.3, 0.0, "constant", 6, 200, 1, 4, 3)
        _, history = self.train(config)
        assert history.epoch[-1] < 200
        with pytest.raises(self.KilledError):
            self.train(config, Checkpoint(tmp_path, "f", 0.0), len(history.epoch) - 1)
        assert self.train(config, Checkpoint(tmp_path, "f", 0.0))[1].epoch[-1] == history.epoch[-1]

    def test_a_finished_training_is_not_done_again(self, tmp_path: Path) -> None:
        config = replace(CONFIG, check_every=5)
        wanted, _ = self.train(config, Checkpoint(tmp_path, "f"))
        calls = 0

        def never(network: nn.Module, index: Tensor) -> Tensor:
            raise AssertionError

        def counted(done: int, total: int) -> None:
            nonlocal calls
            calls += 1

        found = self.network()
        history = train_network(found, never, never, 20, config, checkpoint=Checkpoint(tmp_path, "f"), progress=counted)
        assert history.epoch.tolist() == [5, 10, 15, 20]
        assert calls == 1
        for a, b in zip(wanted.parameters(), found.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    def test_written_only_when_it_is_time(self, tmp_path: Path) -> None:
        with pytest.raises(self.KilledError):
            self.train(CONFIG, Checkpoint(tmp_path / "new", "f", 3600.0), 5)
        assert not (tmp_path / "new").exists()

    def test_round_trip(self, tmp_path: Path) -> None:
        arrays = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3).T, "step": np.array(3.0), "none": np.zeros((0, 2))}
        Checkpoint(tmp_path / "deep", "f").save(arrays, {"epoch": 3})
        loaded = Checkpoint(tmp_path / "deep", "f").load()
        assert loaded is not None
        assert loaded[1] == {"epoch": 3}
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[0][name], array)
            assert (loaded[0][name].shape, loaded[0][name].dtype) == (array.shape, array.dtype)
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["f.safetensors"]
        assert Checkpoint(tmp_path / "deep", "g").load() is None

    def test_one_of_an_earlier_form_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before dropout its state was not kept: such a training starts anew and ends as an undisturbed one."""
        config = replace(CONFIG, max_epochs=4, batch_size=6)
        wanted, _ = self.train(config)
        with monkeypatch.context() as earlier:
            earlier.setattr("maury.train.checkpoint._META", "maury_checkpoint")
            Checkpoint(tmp_path, "f").save({"generator": np.zeros(5056, np.uint8)}, {"epoch": 2, "stale": 0})
        assert Checkpoint(tmp_path, "f").load() is None
        found, _ = self.train(config, Checkpoint(tmp_path, "f", 0.0))
        for a, b in zip(wanted.parameters(), found.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    def test_any_damage_is_noticed(self, tmp_path: Path) -> None:
        """300 flipped bits or cuts with a fixed seed; a checkpoint that is not whole is none."""
        checkpoint = Checkpoint(tmp_path, "f")
        checkpoint.save({"a": np.arange(40.0), "b": np.ones(3, np.int64)}, {"epoch": 3, "stale": 0})
        original = checkpoint.path.read_bytes()
        rng = np.random.default_rng(7)
        for _ in range(300):
            raw = bytearray(original)
            raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
            if rng.random() < 0.2:
                raw = raw[: rng.integers(len(raw))]
            checkpoint.path.write_bytes(bytes(raw))
            assert checkpoint.load() is None
        checkpoint.path.write_bytes(original)
        assert checkpoint.load() is not None

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "f.safetensors").mkdir()
        with pytest.raises(ModelFileError, match="got the folder"):
            Checkpoint(tmp_path, "f").save({"a": np.ones(2)}, {})

    def test_the_fingerprint_changes_with_every_setting_and_number(self) -> None:
        arrays = {"x": np.arange(3.0), "y": np.zeros((2, 2))}
        one = fingerprint_of({"a": 1}, arrays)
        others = [
            fingerprint_of({"a": 2}, arrays),
            fingerprint_of({"a": 1}, {**arrays, "x": np.array([0.0, 1.0, np.nextafter(2.0, 3.0)])}),
            fingerprint_of({"a": 1}, {**arrays, "x": np.arange(3.0, dtype=np.float32)}),
            fingerprint_of({"a": 1}, {**arrays, "y": np.zeros((4, 1))}),
            fingerprint_of({"a": 1}, {"x": arrays["x"], "z": arrays["y"]}),
        ]
        assert len({one, *others}) == 6
        assert fingerprint_of({"a": 1}, dict(reversed(arrays.items()))) == one


class Random(nn.Module):
    """A number, dropout, and a buffer that counts the batches of training."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(50))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self) -> Tensor:
        if self.training:
            self.seen += 1
        return nn.functional.dropout(self.w - 4.0, 0.5, self.training)


class TestDropoutAndBuffers:
    CONFIG = replace(CONFIG, batch_size=3, max_epochs=6)

    def train(self, checkpoint: Checkpoint | None = None, die_at: int = 0, seed: int = 0) -> tuple[Random, Any]:
        network = Random()

        def progress(done: int, total: int) -> None:
            if done == die_at:
                raise TestCheckpoints.KilledError

        def loss(network: nn.Module, index: Tensor) -> Tensor:
            assert network.training
            return network().square().mean().reshape(1)

        def validate(network: nn.Module) -> Tensor:
            assert not network.training
            return (network.seen - 6.0).abs().reshape(1)  # best after the third epoch of two batches

        config = replace(self.CONFIG, seed=seed)
        return network, train_network(network, loss, validate, 6, config, checkpoint=checkpoint, progress=progress)

    def test_killed_and_started_again_it_ends_the_same(self, tmp_path: Path) -> None:
        wanted, history = self.train()
        for die_at in (2, 4):
            with pytest.raises(TestCheckpoints.KilledError):
                self.train(Checkpoint(tmp_path, "f", 0.0), die_at)
            torch.rand(7, generator=torch.Generator().manual_seed(1))
        found, again = self.train(Checkpoint(tmp_path, "f", 0.0))
        torch.testing.assert_close(found.w, wanted.w, rtol=0, atol=0)
        np.testing.assert_array_equal(again.training, history.training)

    def test_the_seed_decides(self) -> None:
        one, same, other = (self.train(seed=seed)[1].training for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)

    def test_buffers_are_those_of_the_best_epoch_and_dropout_ends_with_training(self) -> None:
        network, history = self.train()
        assert history.best_epoch.tolist() == [3]
        assert float(network.seen) == 6.0
        assert not network.training


def test_torch_is_left_as_it_was() -> None:
    """conftest guards every test alike; here it is said for the loop and for the network's first weights."""
    before = torch.random.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    network = StackedMlp(2, (1, 4, 2), "silu", torch.Generator().manual_seed(0))
    x = torch.linspace(-1, 1, 9)[:, None]
    train_network(
        network,
        lambda net, index: net(x[index]).square().mean(dim=(1, 2)),
        lambda net: net(x).square().mean(dim=(1, 2)),
        9,
        replace(CONFIG, batch_size=4),
    )
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.get_default_dtype()) == before[1:]


def test_the_same_seed_gives_the_same_first_weights() -> None:
    one, same, other = (StackedMlp(2, (3, 4, 2), "silu", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.weights[0], same.weights[0])
    assert not torch.equal(one.weights[0], other.weights[0])
    assert not torch.equal(one.weights[0][0], one.weights[0][1])  # members start at different places
    assert float(one.weights[0].detach().abs().max()) <= 3**-0.5


def test_an_unknown_activation() -> None:
    with pytest.raises(UsageError, match=r"activation among .*, got 'swish'"):
        StackedMlp(1, (2, 2), "swish", torch.Generator())
