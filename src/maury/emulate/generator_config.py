"""Settings of the generator of Gebran (2024): two networks and fine tuning. No torch, so that recipes can be checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import get_args

from maury.emulate.activations import ACTIVATIONS
from maury.errors import UsageError
from maury.train.config import Initial, LoopConfig, Scaling, expect_fraction, expect_layers, expect_one_of


@dataclass(frozen=True)
class AutoencoderConfig:
    """The first stage: pixels -> latent numbers -> pixels, least mean squared error.

    Parameters
    ----------
    hidden : neurons of the encoder's layers; the decoder mirrors them.
    latent : numbers a spectrum becomes.
    standardise : train on (flux - mean spectrum)/rms, undone by the outer layers afterwards, instead of on the flux itself.
    loop : optimiser, epochs, patience (in checks).
    """

    hidden: tuple[int, ...] = (1024, 512, 256, 64, 32)
    latent: int = 10
    standardise: bool = False
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("adam", 1e-3, 0.0, "constant", 512, 1000, 1, 15))

    def __post_init__(self) -> None:
        expect_layers(self.hidden)
        if self.latent < 1:
            raise UsageError(f"expected latent >= 1, got {self.latent}; correct it")


@dataclass(frozen=True)
class LabelNetworkConfig:
    """The second stage: labels -> latent numbers, least mean squared error.

    Parameters
    ----------
    hidden : neurons of the hidden layers.
    dropout, dropped_layers : share of neurons left out, and after how many of the first layers, while training.
    standardise : train on latent numbers over their standard deviations, so that each counts alike.
    loop : optimiser, epochs, patience (in checks).
    """

    hidden: tuple[int, ...] = (5000, 2000, 512, 32)
    dropout: float = 0.3
    dropped_layers: int = 3
    standardise: bool = False
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("adamax", 1e-3, 0.0, "constant", 512, 1000, 1, 15))

    def __post_init__(self) -> None:
        expect_layers(self.hidden)
        if not 0 <= self.dropout < 1:
            raise UsageError(f"expected a dropout of at least 0 and below 1, got {self.dropout}; correct it")
        if not 0 <= self.dropped_layers <= len(self.hidden):
            raise UsageError(f"expected dropped_layers from 0 to {len(self.hidden)}, got {self.dropped_layers}; correct it")


@dataclass(frozen=True)
class GeneratorConfig:
    """How a generator is trained.

    Parameters
    ----------
    autoencoder, label_network : the two stages.
    fine_tune : a third stage: the joined network learns flux from labels end to end, without dropout; None: no such stage.
    activation : "relu" (published), "leaky_relu", "silu", ...; of both networks, because joined they are one.
    initial : first weights, "glorot" (Keras' own, which the paper used), "uniform" (torch's own) or "normal".
    scaling : of the labels: "range" (to [-0.5, 0.5]) or "percentile". The paper's is unstated; METHODS 3 takes min-max to [0, 1],
        which differs from "range" by a constant that the first biases take up.
    components : principal components of the training spectra to which the finished generator's spectra are confined; 0: none
        (published). A decoder keeps something of its random first weights in every pixel: 0.0002 of the flux in a trial, a
        seventh of its error, and more than enough to be no smooth function of a velocity that is fitted.
    validation_fraction : of the spectra, by groups; held back in every stage.
    seed : of the split and of the first weights; each loop has its own, of batches and dropout.
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    label_network: LabelNetworkConfig = field(default_factory=LabelNetworkConfig)
    fine_tune: LoopConfig | None = None
    activation: str = "relu"
    initial: Initial = "glorot"
    scaling: Scaling = "range"
    components: int = 0
    validation_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        expect_one_of("activation", self.activation, tuple(ACTIVATIONS))
        expect_one_of("initial", self.initial, get_args(Initial))
        expect_one_of("scaling", self.scaling, get_args(Scaling))
        expect_fraction(self.validation_fraction)
        for name in ("seed", "components"):
            if getattr(self, name) < 0:
                raise UsageError(f"expected {name} >= 0, got {getattr(self, name)}; correct it")


_PUBLISHED = GeneratorConfig(AutoencoderConfig(standardise=True))
_FINE_TUNE = LoopConfig("adam", 3e-4, 0.0, "cosine", 512, 60, 1, 0)
_SMOOTH = GeneratorConfig(
    AutoencoderConfig((512, 128, 32), 10, True, LoopConfig("adam", 1e-3, 0.0, "cosine", 128, 60, 1, 0)),
    LabelNetworkConfig((300, 300, 128, 32), 0.0, 0, True, LoopConfig("adam", 2e-3, 0.0, "cosine", 128, 100, 1, 0)),
    LoopConfig("adam", 1e-3, 0.0, "cosine", 128, 100, 1, 0),
    components=150,
)
PRESETS: dict[str, GeneratorConfig] = {
    "gebran2024": _PUBLISHED,
    "gebran2024-tuned": replace(_PUBLISHED, fine_tune=_FINE_TUNE),
    "leaky_relu": replace(_SMOOTH, activation="leaky_relu"),
    "silu": replace(_SMOOTH, activation="silu"),
}
"""Named settings. ``gebran2024``: the paper's sizes, ReLU, optimisers, losses, batch of the label network, patience and split;
learning rates and the autoencoder's batch are unstated there: 1e-3 (Keras' own) and 512. Whether spectra are standardised is
unstated too: they are here, because on the flux itself, near 1 everywhere, the latent units die or learn one shape only (mean
squared error 1.3e-3 of a variance of 1.8e-3 after 1500 steps, at learning rates of 1e-4, 3e-4 and 1e-3). ``gebran2024-tuned``:
and fine tuning end to end. ``leaky_relu`` and ``silu``: ours, without ReLU's dead latent units: standardised, smaller, no
dropout, the learning rates fall to zero, fine tuning, spectra confined to principal components."""
