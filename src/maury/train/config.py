"""How a network is trained: settings alone, so that recipes can be checked without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from maury.errors import UsageError

Optimiser = Literal["adam", "adamw", "radam", "adamax"]
Schedule = Literal["constant", "cosine"]
Scaling = Literal["range", "percentile"]
"""Of labels: to [-0.5, 0.5] of the training range, or that of The Cannon: outlying labels do not squeeze the rest."""
Initial = Literal["uniform", "glorot", "normal"]
"""First weights; see :class:`maury.networks.mlp.StackedMlp`."""


@dataclass(frozen=True)
class LoopConfig:
    """How a network is trained.

    Parameters
    ----------
    optimiser, learning_rate, weight_decay : of torch.optim.
    schedule : "constant", or "cosine": the learning rate falls to zero over ``max_epochs``.
    batch_size : spectra per step; 0, or more than there are: all (a last incomplete batch is used, not dropped).
    max_epochs : passes over the training set.
    check_every : epochs between two validations.
    patience : validations without improvement of any member after which training ends; 0: never.
    seed : of the order of batches and of dropout.
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    batch_size: int = 512
    max_epochs: int = 1000
    check_every: int = 10
    patience: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        expect_one_of("optimiser", self.optimiser, get_args(Optimiser))
        expect_one_of("schedule", self.schedule, get_args(Schedule))
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"expected learning_rate > 0, got {self.learning_rate}; correct it")
        lowest = {"weight_decay": 0, "batch_size": 0, "max_epochs": 1, "check_every": 1, "patience": 0, "seed": 0}
        for name, low in lowest.items():
            if not getattr(self, name) >= low:
                raise UsageError(f"expected {name} >= {low}, got {getattr(self, name)}; correct it")


def expect_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise UsageError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise UsageError(f"expected {name} among {', '.join(allowed)}, got {value!r}; correct the name")


def expect_layers(hidden: Sequence[int]) -> None:
    """Raise UsageError unless there is a hidden layer and all have neurons."""
    if not hidden or min(hidden) < 1:
        raise UsageError(f"expected at least one hidden layer of at least one neuron, got {list(hidden)}; correct hidden")


def expect_fraction(share: float, name: str = "validation_fraction") -> None:
    """Raise UsageError unless it leaves more to train on than to validate."""
    if not 0 < share <= 0.5:
        raise UsageError(f"expected a {name} above 0 and up to 0.5, got {share}; correct it")


def expect_snr(snr: Sequence[float] | None) -> None:
    """Raise UsageError unless it is the lowest and the highest signal-to-noise ratio of the noise in training, or None."""
    if snr is not None and not (len(snr) == 2 and 0 < snr[0] <= snr[1] < math.inf):
        raise UsageError(f"expected snr as two finite numbers 0 < lowest <= highest, got {snr}; correct it")
