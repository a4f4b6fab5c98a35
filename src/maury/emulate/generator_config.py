"""Settings of the generator of Gebran (2024): two networks and fine tuning. No torch, so that recipes can be checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from maury.emulate.activations import ACTIVATIONS
from maury.emulate.payne_config import Scaling
from maury.errors import UsageError
from maury.train.config import LoopConfig, expect_one_of

Initial = Literal["glorot", "uniform"]


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
        _expect_layers(self.hidden)
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
        _expect_layers(self.hidden)
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
    initial : first weights, "glorot" (Keras' own, which the paper used) or "uniform" (torch's own).
    scaling : of the labels: "range" (to [-0.5, 0.5]) or "percentile". The paper's is unstated; METHODS 3 takes min-max to [0, 1],
        which differs from "range" by a constant that the first biases take up.
    validation_fraction : of the spectra, by groups; held back in every stage.
    seed : of the split and of the first weights; each loop has its own, of batches and dropout.
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    label_network: LabelNetworkConfig = field(default_factory=LabelNetworkConfig)
    fine_tune: LoopConfig | None = None
    activation: str = "relu"
    initial: Initial = "glorot"
    scaling: Scaling = "range"
    validation_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        expect_one_of("activation", self.activation, tuple(ACTIVATIONS))
        expect_one_of("initial", self.initial, get_args(Initial))
        expect_one_of("scaling", self.scaling, get_args(Scaling))
        if not 0 < self.validation_fraction <= 0.5:
            raise UsageError(f"expected a validation_fraction above 0 and up to 0.5, got {self.validation_fraction}; correct it")
        if self.seed < 0:
            raise UsageError(f"expected seed >= 0, got {self.seed}; correct it")


def _expect_layers(hidden: tuple[int, ...]) -> None:
    if not hidden or min(hidden) < 1:
        raise UsageError(f"expected at least one hidden layer of at least one neuron, got {list(hidden)}; correct hidden")


_PUBLISHED = GeneratorConfig()
_FINE_TUNE = LoopConfig("adam", 3e-4, 0.0, "cosine", 512, 60, 1, 0)
_SMOOTH = GeneratorConfig(
    AutoencoderConfig((512, 128, 32), 10, True, LoopConfig("adam", 1e-3, 0.0, "cosine", 128, 60, 1, 0)),
    LabelNetworkConfig((300, 300, 128, 32), 0.0, 0, True, LoopConfig("adam", 2e-3, 0.0, "cosine", 128, 100, 1, 0)),
    LoopConfig("adam", 1e-3, 0.0, "cosine", 128, 100, 1, 0),
)
PRESETS: dict[str, GeneratorConfig] = {
    "gebran2024": _PUBLISHED,
    "gebran2024-tuned": replace(_PUBLISHED, fine_tune=_FINE_TUNE),
    "leaky_relu": replace(_SMOOTH, activation="leaky_relu"),
    "silu": replace(_SMOOTH, activation="silu"),
}
"""Named settings. ``gebran2024``: the paper's sizes, ReLU, optimisers, losses, batch of the label network, patience and split;
learning rates and the autoencoder's batch are unstated there: 1e-3 (Keras' own) and 512. ``gebran2024-tuned``: and fine tuning
end to end. ``leaky_relu`` and ``silu``: ours, without ReLU's dead latent units: standardised, smaller, no dropout, the learning
rates fall to zero, fine tuning."""
