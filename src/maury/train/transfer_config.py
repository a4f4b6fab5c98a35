"""How a network that was trained on one domain (synthetic spectra) is carried over to another (observed ones); no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from maury.errors import UsageError
from maury.train.config import LoopConfig, expect_fraction, expect_one_of

Transfer = Literal["none", "reconstruction", "labels", "coral", "mmd", "adversarial"]

JOINT: tuple[Transfer, ...] = ("labels", "coral", "mmd", "adversarial")
"""Methods by which encoder and regressors learn together; with the others, regressors learn from an encoder that rests."""


@dataclass(frozen=True)
class TransferConfig:
    """How synthetic and observed spectra are brought together.

    Parameters
    ----------
    method : "none"; "reconstruction": the autoencoder is trained on, on observed spectra without labels (Mas-Buitrago 2024);
        "labels": it is trained on with regressors on synthetic and on a few observed spectra with labels; "coral", "mmd",
        "adversarial": with regressors on synthetic spectra while the latent numbers of observed ones, whose labels nobody knows,
        are drawn to those of synthetic ones (:mod:`maury.train.transfer`).
    weight : of what the method adds to the loss. 0 leaves regressors on synthetic spectra alone.
    reconstruction : weight of both domains' reconstruction in the methods with regressors.
    frozen : parameters that stay, as patterns of names: "weights.[0-3]" is the weights of the first four layers.
    population : times that all is trained again on synthetic spectra drawn anew, as often as the labels found of the observed
        ones say that there are such stars.
    held_back : share of the observed spectra (one in 1 / share, rounded) that the transfer does not learn from. In
        "reconstruction" they choose the epoch. Visits of one star are not kept together.
    loop : optimiser, epochs, patience.

    Raises
    ------
    UsageError
        If a value is impossible.
    """

    method: Transfer = "none"
    weight: float = 1.0
    reconstruction: float = 0.3
    frozen: tuple[str, ...] = ()
    population: int = 0
    held_back: float = 0.2
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("adam", 2e-3, 0.0, "cosine", 256, 60, 5, 0))

    def __post_init__(self) -> None:
        expect_one_of("method", self.method, get_args(Transfer))
        expect_fraction(self.held_back, "held_back")
        for name in ("weight", "reconstruction", "population"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"expected {name} >= 0, got {getattr(self, name)}; correct it")

    @property
    def is_joint(self) -> bool:
        """Whether encoder and regressors learn together."""
        return self.method in JOINT
