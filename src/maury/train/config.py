"""How a network is trained: settings alone, so that recipes can be checked without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from maury.errors import UsageError

Optimiser = Literal["adam", "adamw", "radam"]
Schedule = Literal["constant", "cosine"]


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
    seed : of the order of batches.
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
        if self.optimiser not in get_args(Optimiser):
            raise UsageError(
                f"expected an optimiser among {', '.join(get_args(Optimiser))}, got {self.optimiser!r}; correct the name"
            )
        if not (self.learning_rate > 0 and self.max_epochs >= 1 and self.check_every >= 1 and self.batch_size >= 0):
            raise UsageError("expected learning_rate > 0, max_epochs >= 1, check_every >= 1 and batch_size >= 0, got others")
