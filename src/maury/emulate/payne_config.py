"""Settings of The Payne and the published ones by name; no torch, so that recipes can be checked without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from maury.emulate.activations import ACTIVATIONS
from maury.errors import UsageError
from maury.train.config import LoopConfig, Scaling, expect_fraction, expect_layers, expect_one_of

LossName = Literal["mse", "l1", "huber"]


@dataclass(frozen=True)
class PayneConfig:
    """How a Payne is trained.

    Parameters
    ----------
    hidden : neurons of the hidden layers.
    activation : "silu", "tanh", "sigmoid", "relu" or "leaky_relu".
    components : principal components that the network learns; 0: the pixels themselves.
    members : networks of the ensemble; with one, ``validation_fraction`` of the stars are held back.
    loss : "mse", "l1" (published) or "huber" (square up to one standard deviation of an output over the stars, then linear).
    scaling : of the labels: "range" (to [-0.5, 0.5], published) or "percentile" (that of The Cannon; outlying labels do not
        squeeze the rest).
    power : each component's error counts by its variance to this power: 1 is the plain error of the flux, 0 weighs all alike.
    loop : optimiser, epochs, patience.
    """

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "silu"
    components: int = 40
    members: int = 5
    validation_fraction: float = 0.1
    loss: LossName = "mse"
    scaling: Scaling = "percentile"
    power: float = 0.5
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("adamw", 1.5e-2, 0.1, "cosine", 0, 500, 10, 0))

    def __post_init__(self) -> None:
        expect_one_of("activation", self.activation, tuple(ACTIVATIONS))
        expect_one_of("loss", self.loss, get_args(LossName))
        expect_one_of("scaling", self.scaling, get_args(Scaling))
        expect_layers(self.hidden)
        expect_fraction(self.validation_fraction)
        for name, low in {"members": 1, "components": 0, "power": 0}.items():
            if not getattr(self, name) >= low:
                raise UsageError(f"expected {name} >= {low}, got {getattr(self, name)}; correct it")


_PUBLISHED = PayneConfig(
    hidden=(300, 300),
    activation="leaky_relu",
    components=0,
    members=1,
    loss="l1",
    scaling="range",
    loop=LoopConfig("radam", 1e-4, 0.0, "constant", 512, 10_000, 100, 0),
)
PRESETS: dict[str, PayneConfig] = {"maury": PayneConfig(), "ting2019": _PUBLISHED, "imig2022": _PUBLISHED}
"""Named settings. ``ting2019``: the published code, version 1.1 (its "steps" are epochs; a last incomplete batch is used here,
dropped there). ``imig2022``: the paper names "two hidden layers as The Payne" and PyTorch only, so it is the same network."""
