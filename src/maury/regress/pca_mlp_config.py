"""Settings of the PCA + network inversion and the published ones by name; no torch, so that recipes can be checked without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from maury.emulate.activations import ACTIVATIONS
from maury.errors import UsageError
from maury.train.config import Initial, LoopConfig, Scaling, expect_fraction, expect_layers, expect_one_of, expect_snr


@dataclass(frozen=True)
class PcaMlpConfig:
    """How a PCA + network inversion is trained.

    Parameters
    ----------
    components : principal components of the spectra that the networks see.
    hidden : neurons of the hidden layers.
    activation : "silu", "tanh", "sigmoid", "relu" or "leaky_relu".
    joint : one network for all labels instead of one per label.
    members : networks of the ensemble, each holding back another fold; with one, ``validation_fraction`` of the stars.
    initial : first weights: "uniform" (torch's own), "normal" (Keras' RandomNormal, published) or "glorot".
    scaling : of the labels: "range" (to [-0.5, 0.5]) or "percentile" (that of The Cannon).
    snr : lowest and highest signal-to-noise ratio per pixel (at flux 1) of noise that each spectrum gets anew in each epoch,
        drawn evenly in the logarithm; None: the spectra as they are.
    min_pixels : spectra with fewer usable pixels get no labels (FEW_PIXELS).
    loop : optimiser, epochs, patience.
    """

    components: int = 80
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    joint: bool = False
    members: int = 5
    validation_fraction: float = 0.2
    initial: Initial = "uniform"
    scaling: Scaling = "percentile"
    snr: tuple[float, float] | None = (30.0, 1000.0)
    min_pixels: int = 50
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("adamw", 8e-3, 1e-2, "cosine", 512, 60, 5, 0))

    def __post_init__(self) -> None:
        expect_one_of("activation", self.activation, tuple(ACTIVATIONS))
        expect_one_of("initial", self.initial, get_args(Initial))
        expect_one_of("scaling", self.scaling, get_args(Scaling))
        expect_layers(self.hidden)
        expect_fraction(self.validation_fraction)
        for name in ("components", "members", "min_pixels"):
            if not getattr(self, name) >= 1:
                raise UsageError(f"expected {name} >= 1, got {getattr(self, name)}; correct it")
        expect_snr(self.snr)


PRESETS: dict[str, PcaMlpConfig] = {
    "maury": PcaMlpConfig(),
    "gebran2024": PcaMlpConfig(
        components=15,
        hidden=(5000, 2000, 1000, 512, 64),
        activation="relu",
        members=1,
        validation_fraction=0.2,
        initial="normal",
        scaling="range",
        snr=None,
        loop=LoopConfig("adamax", 1e-3, 0.0, "constant", 512, 200, 1, 15),
    ),
}
"""Named settings. ``gebran2024``: Table 4 and Sect. 3 of the paper (METHODS 3); learning rate (Keras's default), patience and
the scaling of the labels are not stated there and are choices. ``maury``: smooth, small, on more components, chosen by
cross-validation."""
