"""The one training loop: batches, validation, best weights, patience, checkpoints. It knows neither data nor model.

Networks may be *stacked*: ``n_members`` independent networks whose parameters have the member as first axis
(:class:`maury.networks.mlp.StackedMlp`). Losses are then one number per member, best weights are kept per member, and a member
that has stopped improving simply keeps its best ones. A plain network is a stack of one.

Buffers (running means, say) are kept and restored like parameters; those of a stack have the member as first axis, too.
Dropout draws from torch's global generators: within the loop they are seeded by ``config.seed`` and belong to the checkpoint;
afterwards they are as they were before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maury import __version__
from maury.errors import UsageError
from maury.train.checkpoint import Arrays, Checkpoint, fingerprint_of
from maury.train.config import LoopConfig

Loss = Callable[[nn.Module, Tensor], Tensor]
Validate = Callable[[nn.Module], Tensor]
Progress = Callable[[int, int], None]

_OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
}


@dataclass(frozen=True, eq=False)
class History:
    """What happened: at each check the epoch (c,), training and validation loss (c, E), and each member's best epoch (E,)."""

    epoch: NDArray[np.int64]
    training: NDArray[np.float64]
    validation: NDArray[np.float64]
    best_epoch: NDArray[np.int64]


def train_network(
    network: nn.Module,
    loss: Loss,
    validate: Validate,
    n_samples: int,
    config: LoopConfig,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> History:
    """Train ``network`` in place; it ends with each member's best weights, in eval mode (train mode is for batches alone).

    Parameters
    ----------
    network : its parameters are trained where they lie (CPU or GPU), but for frozen ones (``requires_grad`` is False);
        ``n_members`` is read from it, 1 if it has none.
    loss : (network, indices of a batch) -> (E,) loss of each member.
    validate : network -> (E,) loss of each member on spectra it does not train on.
    n_samples : size of the training set.
    checkpoint : where state is kept; a state found there is continued, to the same end as an undisturbed training.
    progress : called with (epochs done, epochs at most).

    Raises
    ------
    UsageError
        If the loss is not finite between two checks, or a member's validation loss never is (a learning rate too high, usually).
    """
    run = _Run(network, config, n_samples)
    with torch.random.fork_rng(devices=run.cuda):
        run.seed_dropout()
        _epochs(run, loss, validate, checkpoint, progress)
    run.take_best()
    if progress is not None:
        progress(config.max_epochs, config.max_epochs)
    return run.history()


def checkpoint_in(
    folder: Path | None, network: nn.Module, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> Checkpoint | None:
    """Where this very training keeps its state: named by settings, data, first weights and versions; None without a folder."""
    if folder is None:
        return None
    start = {f"start.{name}": value.cpu().numpy() for name, value in network.state_dict().items()}
    named = {**settings, "torch": torch.__version__, "maury": __version__}
    return Checkpoint(folder, fingerprint_of(named, {**arrays, **start}))


def _epochs(run: _Run, loss: Loss, validate: Validate, checkpoint: Checkpoint | None, progress: Progress | None) -> None:
    """All epochs that are still to be done."""
    saved = None if checkpoint is None else checkpoint.load()
    if saved is not None:
        run.restore(*saved)
    while not run.finished:
        run.network.train()
        _check_epochs(run, loss)
        run.network.eval()
        with torch.no_grad():
            run.note(validate(run.network).detach().double().cpu())
        if progress is not None:
            progress(run.epoch, run.config.max_epochs)
        if checkpoint is not None and (run.finished or checkpoint.due()):
            checkpoint.save(*run.state())
    run.network.eval()


def _check_epochs(run: _Run, loss: Loss) -> None:
    """Train until the next check."""
    until = min(run.epoch + run.config.check_every, run.config.max_epochs)
    total, batches = torch.zeros(run.n_members, dtype=torch.float64, device=run.device), 0
    while run.epoch < until:
        for group in run.optimiser.param_groups:
            group["lr"] = run.learning_rate()
        for index in run.batches():
            run.optimiser.zero_grad(set_to_none=True)
            value = loss(run.network, index)
            value.sum().backward()  # type: ignore[no-untyped-call] # members do not share parameters: the gradient of the sum is each one's own
            run.optimiser.step()
            total += value.detach().double()  # where it lies: a graphics card is not waited for
            batches += 1
        run.epoch += 1
    run.training_loss = total.cpu() / max(batches, 1)
    if not bool(torch.isfinite(run.training_loss).all()):
        raise UsageError(f"expected a finite training loss, got none after {run.epoch} epochs; lower the learning rate")


class _Run:
    """The state of one training: all that a checkpoint must hold."""

    def __init__(self, network: nn.Module, config: LoopConfig, n_samples: int) -> None:
        self.network, self.config, self.n_samples = network, config, n_samples
        every = dict(network.named_parameters())
        self.parameters = {name: p for name, p in every.items() if p.requires_grad}  # frozen ones stay as they are
        self.kept = every | dict(network.named_buffers())  # what the best epoch and a checkpoint keep
        self.device = next(iter(self.parameters.values())).device
        self.n_members = int(getattr(network, "n_members", 1))
        options = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self.optimiser = _OPTIMISERS[config.optimiser](self.parameters.values(), **options)  # type: ignore[arg-type]
        self.generator = torch.Generator().manual_seed(config.seed)
        self.epoch = 0
        self.training_loss = torch.zeros(self.n_members, dtype=torch.float64)
        self.best = {name: p.detach().clone() for name, p in self.kept.items()}
        self.best_loss = torch.full((self.n_members,), math.inf, dtype=torch.float64)
        self.best_epoch = torch.zeros(self.n_members, dtype=torch.int64)
        self.log: list[tuple[int, list[float], list[float]]] = []
        self.stale = 0

    @property
    def finished(self) -> bool:
        out_of_patience = self.config.patience > 0 and self.stale >= self.config.patience
        return self.epoch >= self.config.max_epochs or out_of_patience

    @property
    def cuda(self) -> list[torch.device]:
        """The graphics card whose generator dropout draws from; none on the CPU."""
        return [self.device] if self.device.type == "cuda" else []

    def seed_dropout(self) -> None:
        """Seed the generators of the CPU and of the network's own card; other cards are left alone."""
        torch.default_generator.manual_seed(self.config.seed)
        if self.cuda:
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(self.config.seed)

    def learning_rate(self) -> float:
        if self.config.schedule == "constant":
            return self.config.learning_rate
        return 0.5 * self.config.learning_rate * (1.0 + math.cos(math.pi * self.epoch / self.config.max_epochs))

    def batches(self) -> list[Tensor]:
        size = self.config.batch_size
        if size == 0 or size >= self.n_samples:
            return [torch.arange(self.n_samples, device=self.device)]
        order = torch.randperm(self.n_samples, generator=self.generator).to(self.device)
        return list(torch.split(order, size))

    def note(self, validation: Tensor) -> None:
        """Keep the weights of the members that improved."""
        better = validation < self.best_loss
        self.best_loss = torch.where(better, validation, self.best_loss)
        self.best_epoch = torch.where(better, self.epoch, self.best_epoch)
        self.stale = 0 if bool(better.any()) else self.stale + 1
        self.log.append((self.epoch, self.training_loss.tolist(), validation.tolist()))
        rows = torch.nonzero(better)[:, 0].to(self.device)
        for name, p in self.kept.items():
            if self.n_members > 1:
                self.best[name][rows] = p.detach()[rows]
            elif bool(better[0]):
                self.best[name].copy_(p.detach())

    def take_best(self) -> None:
        if not bool(torch.isfinite(self.best_loss).all()):
            raise UsageError("expected a finite validation loss, got none at any check; lower the learning rate")
        with torch.no_grad():
            for name, p in self.kept.items():
                p.copy_(self.best[name])

    def history(self) -> History:
        epochs, training, validation = zip(*self.log, strict=True)
        return History(np.array(epochs, dtype=np.int64), np.array(training), np.array(validation), self.best_epoch.numpy().copy())

    # -- checkpoints --------------------------------------------------------------------------------------------

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays: dict[str, Any] = {"generator": self.generator.get_state(), "dropout": torch.random.get_rng_state()}
        if self.cuda:
            arrays["dropout.cuda"] = torch.cuda.get_rng_state(self.cuda[0])
        for name, p in self.kept.items():
            arrays[f"now.{name}"], arrays[f"best.{name}"] = p.detach(), self.best[name]
        for name, p in self.parameters.items():
            for key, value in self.optimiser.state[p].items():
                arrays[f"optimiser.{key}.{name}"] = value
        arrays["best_loss"], arrays["best_epoch"] = self.best_loss, self.best_epoch
        plain = {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}
        history = self.history()
        log = {"log.epoch": history.epoch, "log.training": history.training, "log.validation": history.validation}
        return plain | log, {"epoch": self.epoch, "stale": self.stale}

    def restore(self, arrays: Arrays, state: dict[str, Any]) -> None:
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        self.generator.set_state(tensors["generator"])
        torch.random.set_rng_state(tensors["dropout"])
        if self.cuda and "dropout.cuda" in tensors:  # one that was begun on the CPU goes on with the card's seed
            torch.cuda.set_rng_state(tensors["dropout.cuda"], self.cuda[0])
        with torch.no_grad():
            for name, p in self.kept.items():
                p.copy_(tensors[f"now.{name}"])
                self.best[name].copy_(tensors[f"best.{name}"])
            for name, p in self.parameters.items():
                slot = self.optimiser.state[p]
                for key, value in tensors.items():
                    kind, _, rest = key.partition(".")
                    setting, _, owner = rest.partition(".")
                    if kind == "optimiser" and owner == name:  # torch keeps the step count on the CPU
                        slot[setting] = value if setting == "step" else value.to(self.device)
        self.best_loss, self.best_epoch = tensors["best_loss"], tensors["best_epoch"]
        self.epoch, self.stale = int(state["epoch"]), int(state["stale"])
        lines = (arrays[f"log.{name}"].tolist() for name in ("epoch", "training", "validation"))
        self.log = list(zip(*lines, strict=True))
