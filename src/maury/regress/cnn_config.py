"""Settings of convolutional networks from spectra to labels, the published ones by name; no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from maury.errors import UsageError
from maury.networks.topology import PRESETS as TOPOLOGIES
from maury.networks.topology import Topology
from maury.train.config import LoopConfig, expect_fraction, expect_snr


@dataclass(frozen=True)
class CnnConfig:
    """How convolutional networks are trained.

    Parameters
    ----------
    topology : of each network.
    joint : one network for all labels (approach B of Passegger+2020) instead of one per label (approach A).
    members : networks for each label (or for all, if joint), from different first weights.
    validation_fraction : of the stars: they choose the epoch, and are in no training batch.
    snr : lowest and highest signal-to-noise ratio per pixel (at flux 1) of noise that each spectrum gets anew in each epoch,
        drawn evenly in the logarithm; None: the spectra as they are, as the paper has it.
    min_pixels : spectra with fewer usable pixels get no labels (FEW_PIXELS).
    loop : optimiser, epochs, patience.
    """

    topology: Topology = TOPOLOGIES["small"]
    joint: bool = False
    members: int = 1
    validation_fraction: float = 0.05
    snr: tuple[float, float] | None = None
    min_pixels: int = 50
    loop: LoopConfig = field(default_factory=lambda: LoopConfig("adam", 5e-3, 0.0, "cosine", 256, 60, 1, 0))

    def __post_init__(self) -> None:
        expect_fraction(self.validation_fraction)
        for name in ("members", "min_pixels"):
            if not getattr(self, name) >= 1:
                raise UsageError(f"expected {name} >= 1, got {getattr(self, name)}; correct it")
        expect_snr(self.snr)


PRESETS: dict[str, CnnConfig] = {
    "maury": CnnConfig(),
    "passegger2020": CnnConfig(
        TOPOLOGIES["5-rising-max-3"], validation_fraction=0.05, loop=LoopConfig("adam", 1e-3, 0.0, "constant", 256, 50, 1, 15)
    ),
    "starnet": CnnConfig(
        TOPOLOGIES["starnet"],
        joint=True,
        validation_fraction=0.1,
        loop=LoopConfig("adam", 7e-4, 0.0, "constant", 64, 30, 1, 4),
    ),
}
"""Named settings. ``passegger2020``: the middle of the family; 35 to 50 epochs and 95/5 per cent are the paper's, the rest is
METHODS 1's choice. ``starnet``: Fabbro+2018 as released, but that its learning rate is not halved on a plateau."""
