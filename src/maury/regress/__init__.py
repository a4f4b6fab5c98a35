"""Flux -> labels without an emulator: inferrers that are networks.

* :mod:`~maury.regress.pca_mlp`: principal components of the spectrum, then a network per label or one for all (Gebran 2024);
  :mod:`~maury.regress.pca_mlp_config` its settings, :mod:`~maury.regress.pca_mlp_training` its training (the only one here
  that needs torch), :mod:`~maury.regress.scores` the likely scores of a spectrum with masked pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maury.regress.pca_mlp import PcaMlpInferrer
from maury.regress.pca_mlp_config import PcaMlpConfig

if TYPE_CHECKING:
    from maury.regress.pca_mlp_training import train_pca_mlp

__all__ = ["PcaMlpConfig", "PcaMlpInferrer", "train_pca_mlp"]


def __getattr__(name: str) -> Any:
    """``train_pca_mlp`` when it is first asked for: torch takes seconds to import (PEP 562)."""
    if name == "train_pca_mlp":
        from maury.regress.pca_mlp_training import train_pca_mlp

        return train_pca_mlp
    raise AttributeError(f"module 'maury.regress' has no attribute {name!r}")
