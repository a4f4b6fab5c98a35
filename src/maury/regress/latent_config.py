"""Settings of regression in an autoencoder's latent space, the published ones by name (METHODS 2); no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from maury.emulate.activations import ACTIVATIONS
from maury.errors import UsageError
from maury.networks.topology import PRESETS as TOPOLOGIES
from maury.regress.cnn_config import CnnConfig
from maury.train.config import LoopConfig, expect_fraction, expect_layers, expect_one_of, expect_snr
from maury.train.transfer_config import TransferConfig

Output = Literal["linear", "sigmoid"]
Contraction = Literal["correct", "as_released"]
Latents = Literal["reencoded", "pretrained"]
Noise = tuple[float, float] | Literal["observed", "residuals"] | None
"""Of synthetic spectra in training: S/N from lowest to highest; "observed": white, as large as an observed spectrum's;
"residuals": that for half of them, for the others what an observed spectrum has beyond its nearest synthetic one (noise that is
not white, sky lines, what the library lacks); or none."""

LIKE_OBSERVED = ("observed", "residuals")
"""Kinds of noise that observed spectra are needed for."""


_OUR_HEAD = LoopConfig("adam", 2e-3, 0.0, "cosine", 256, 60, 5, 0)


def hidden_layers(first: int) -> tuple[int, ...]:
    """Neurons of the published encoder's layers: N, 3/4 N, 1/2 N, 1/4 N, 1/8 N.

    >>> hidden_layers(1024)
    (1024, 768, 512, 256, 128)
    """
    return first, 3 * first // 4, first // 2, first // 4, first // 8


@dataclass(frozen=True)
class SearchConfig:
    """A grid search over the published family: those autoencoders that reconstruct unseen spectra best are kept.

    Parameters
    ----------
    widths : N of the first layer (:func:`hidden_layers`).
    penalties : strengths of the L1 penalty on what hidden layers give.
    fraction, folds, epochs : share of the training spectra that is searched on, its cross-validation, epochs in each fold.
    keep : combinations that are kept, each as an autoencoder of its own. The paper's number is unknown.
    """

    widths: tuple[int, ...] = (1024, 1280, 1536, 1792, 2048)
    penalties: tuple[float, ...] = (8e-8, 9e-8, 1e-7, 1.1e-7, 1.2e-7)
    fraction: float = 0.7
    folds: int = 4
    epochs: int = 15
    keep: int = 5

    def __post_init__(self) -> None:
        number = len(self.widths) * len(self.penalties)
        if not (number and min(self.widths) >= 8 and all(0 <= p < math.inf for p in self.penalties)):
            raise UsageError(f"expected widths of at least 8 and penalties >= 0, got {self.widths} and {self.penalties}")
        if not (0 < self.fraction <= 1 and self.folds >= 2 and self.epochs >= 1 and 1 <= self.keep <= number):
            raise UsageError(f"expected 0 < fraction <= 1, folds >= 2, epochs >= 1, keep from 1 to {number}, got {self}")


@dataclass(frozen=True)
class LatentConfig:
    """How autoencoders and the regressors on their latent numbers are trained.

    Parameters
    ----------
    hidden, latent : neurons of the encoder's layers, which the decoder mirrors, and numbers a spectrum becomes.
    activation : after every layer, the latent one included.
    output : "linear": pixels are flux minus the training spectra's mean over their scatter; "sigmoid": flux over the training
        spectra's 99.9th percentile, clipped to [0, 1] (published).
    activity : strength of an L1 penalty on what the encoder's layers from the second on and all hidden layers of the decoder
        give; the latent layer has none.
    contraction, contraction_form : strength of the contractive penalty, and its form: "correct" for ReLU, or "as_released".
    autoencoders : from different first weights, where there is no search.
    search : which autoencoders; None: of ``hidden`` and ``activity``.
    noise : of the synthetic spectra.
    weighted : observed pixels count by their noise in reconstruction; otherwise alike (published).
    validation_fraction : of the synthetic spectra, by groups: they choose the epoch (of regressors on a resting encoder those of
        ``head.validation_fraction`` do).
    loop : of the autoencoder on synthetic spectra.
    transfer : to observed spectra.
    latents : what regressors of a resting encoder learn from: synthetic spectra "reencoded" by the encoder that will see the
        observed ones, or by the "pretrained" one (published).
    head : the regressors; ``members`` of them on each autoencoder. Its noise is that of the spectra.
    min_pixels : spectra with fewer usable pixels get no labels.

    Raises
    ------
    UsageError
        If a value is impossible.
    """

    hidden: tuple[int, ...] = (128, 64)
    latent: int = 32
    activation: str = "silu"
    output: Output = "linear"
    activity: float = 0.0
    contraction: float = 0.0
    contraction_form: Contraction = "correct"
    autoencoders: int = 5
    search: SearchConfig | None = None
    noise: Noise = "observed"
    weighted: bool = True
    validation_fraction: float = 0.1
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("adam", 2e-3, 0.0, "cosine", 256, 60, 5, 0))
    transfer: TransferConfig = field(default_factory=TransferConfig)
    latents: Latents = "reencoded"
    head: CnnConfig = field(default_factory=lambda: CnnConfig(TOPOLOGIES["latent"], joint=True, loop=_OUR_HEAD))
    min_pixels: int = 50

    def __post_init__(self) -> None:
        expect_layers(self.hidden)
        expect_fraction(self.validation_fraction)
        expect_one_of("activation", self.activation, tuple(ACTIVATIONS))
        for name, allowed in (("output", Output), ("contraction_form", Contraction), ("latents", Latents)):
            expect_one_of(name, getattr(self, name), get_args(allowed))
        if not isinstance(self.noise, str):
            expect_snr(self.noise)
        elif self.noise not in LIKE_OBSERVED:
            raise UsageError(f"expected noise as two ratios, {' or '.join(LIKE_OBSERVED)}, got {self.noise!r}; correct it")
        for name, low in {"latent": 1, "activity": 0, "contraction": 0, "autoencoders": 1, "min_pixels": 1}.items():
            if not low <= getattr(self, name) < math.inf:
                raise UsageError(f"expected {name} >= {low}, got {getattr(self, name)}; correct it")
        if self.contraction > 0 and self.contraction_form == "correct" and self.activation != "relu":
            raise UsageError(f"expected the activation relu for contraction, got {self.activation!r}; set contraction = 0")
        if self.head.snr is not None:
            raise UsageError(
                f"expected no snr of the head, which sees what the encoder makes of noisy spectra, got {self.head.snr}"
            )
        if self.transfer.is_joint and self.latents == "pretrained":
            raise UsageError(f"expected latents = 'reencoded' for the transfer {self.transfer.method!r}, got 'pretrained'")


FROZEN = ("weights.[0-3]", "biases.[0-3]")
"""The first four layers of the encoder, which rest in the published transfer."""

PRESETS: dict[str, LatentConfig] = {
    "maury": LatentConfig(
        noise="residuals", transfer=TransferConfig("reconstruction", frozen=("weights.0", "biases.0"), population=2)
    ),
    "masbuitrago2024": LatentConfig(
        hidden=hidden_layers(1024),
        activation="relu",
        output="sigmoid",
        activity=1e-7,
        contraction=1e-4,
        search=SearchConfig(),
        noise=None,
        weighted=False,
        validation_fraction=0.2,
        loop=LoopConfig("adam", 1e-4, 0.0, "constant", 128, 120, 1, 0, 42),
        transfer=TransferConfig(
            "reconstruction", frozen=FROZEN, held_back=0.2, loop=LoopConfig("adam", 1e-4, 0.0, "constant", 128, 60, 1, 0, 42)
        ),
        head=CnnConfig(
            TOPOLOGIES["masbuitrago2024"],
            members=5,
            validation_fraction=0.3,
            loop=LoopConfig("adam", 0.01, 0.0, "constant", 32, 200, 5, 0, 42),
        ),
    ),
}
"""Named settings. ``masbuitrago2024``: the released ones, but for three choices of METHODS 2: the contractive penalty is the one
for ReLU, regressors learn from re-encoded latents (``latents = "pretrained"`` is what was released), and targets are scaled, as
the learning rate of 0.01 is fragile on kelvin. ``maury``: small, the published transfer with noise and a population like those of
the observed spectra (docs/results.md, where it is compared with the others)."""
