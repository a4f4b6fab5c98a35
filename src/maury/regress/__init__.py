"""Flux -> labels without an emulator: inferrers that are networks. What trains them needs torch, what uses them does not.

* :mod:`~maury.regress.pca_mlp`: principal components of the spectrum, then a network per label or one for all (Gebran 2024);
  :mod:`~maury.regress.pca_mlp_config` its settings, :mod:`~maury.regress.pca_mlp_training` its training,
  :mod:`~maury.regress.scores` the likely scores of a spectrum with masked pixels.
* :mod:`~maury.regress.cnn`: convolutional networks over the pixels (Passegger 2020); :mod:`~maury.regress.cnn_config` their
  settings, :mod:`~maury.regress.cnn_training` their training, :mod:`~maury.regress.noise` noise for what judges them.
* :mod:`~maury.regress.latent`: encoders and networks on their latent numbers (Mas-Buitrago 2024);
  :mod:`~maury.regress.latent_config` their settings, :mod:`~maury.regress.latent_training` their training, one autoencoder after
  another (:mod:`~maury.regress.latent_run`) by the losses of :mod:`~maury.regress.latent_stages`.
* :mod:`~maury.regress.ensemble`: many of them vote; :mod:`~maury.regress.votes` mode and interval of the votes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from maury.regress.cnn_config import CnnConfig
from maury.regress.ensemble import EnsembleInferrer
from maury.regress.latent_config import LatentConfig
from maury.regress.pca_mlp import PcaMlpInferrer
from maury.regress.pca_mlp_config import PcaMlpConfig

if TYPE_CHECKING:
    from maury.regress.cnn_training import train_cnn
    from maury.regress.latent_training import train_latent
    from maury.regress.pca_mlp_training import train_pca_mlp

__all__ = [
    "CnnConfig",
    "EnsembleInferrer",
    "LatentConfig",
    "PcaMlpConfig",
    "PcaMlpInferrer",
    "train_cnn",
    "train_latent",
    "train_pca_mlp",
]

_TRAINING = {
    "train_cnn": "maury.regress.cnn_training",
    "train_latent": "maury.regress.latent_training",
    "train_pca_mlp": "maury.regress.pca_mlp_training",
}


def __getattr__(name: str) -> Any:
    """What trains when it is first asked for: torch takes seconds to import (PEP 562)."""
    if name in _TRAINING:
        return getattr(import_module(_TRAINING[name]), name)
    raise AttributeError(f"module 'maury.regress' has no attribute {name!r}")
