"""Labels -> flux: emulators, and what they share.

* :mod:`~maury.emulate.cannon`: The Cannon, a polynomial of the labels per pixel; :mod:`~maury.emulate.polynomial`: its terms.
* :mod:`~maury.emulate.payne`: The Payne, a network; :mod:`~maury.emulate.payne_config` its settings,
  :mod:`~maury.emulate.payne_training` its training (needs torch).
* :mod:`~maury.emulate.generator`: decoder of an autoencoder behind a label network (Gebran 2024), joined to a Payne;
  :mod:`~maury.emulate.generator_config` its settings, :mod:`~maury.emulate.generator_training` its training (needs torch).
* :mod:`~maury.emulate.covariance`: the model's own covariance from cross-validated residuals, for every emulator.
* :mod:`~maury.emulate.robust`: weights of training stars whose spectrum does not go with their labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from maury.emulate.cannon import CannonConfig, CannonEmulator, train_cannon
from maury.emulate.generator import GeneratorTraining, generate_flux, train_generator
from maury.emulate.generator_config import GeneratorConfig
from maury.emulate.payne import PayneEmulator
from maury.emulate.payne_config import PayneConfig
from maury.errors import ModelFileError

if TYPE_CHECKING:
    from maury.emulate.payne_training import train_payne

__all__ = [
    "EMULATORS",
    "CannonConfig",
    "CannonEmulator",
    "GeneratorConfig",
    "GeneratorTraining",
    "PayneConfig",
    "PayneEmulator",
    "emulator_from_arrays",
    "generate_flux",
    "train_cannon",
    "train_generator",
    "train_payne",
]

EMULATORS: dict[str, type[CannonEmulator] | type[PayneEmulator]] = {"cannon": CannonEmulator, "payne": PayneEmulator}
"""Kinds of emulator that a model file may hold; a generator is a Payne."""


def __getattr__(name: str) -> Any:
    """``train_payne`` when it is first asked for: torch takes seconds to import (PEP 562)."""
    if name == "train_payne":
        from maury.emulate.payne_training import train_payne

        return train_payne
    raise AttributeError(f"module 'maury.emulate' has no attribute {name!r}")


def emulator_from_arrays(arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> CannonEmulator | PayneEmulator:
    """The emulator that was saved as ``arrays`` and ``config``.

    Raises
    ------
    ModelFileError
        If its kind is not one of :data:`EMULATORS`.
    """
    kind = config.get("kind")
    if kind not in EMULATORS:
        raise ModelFileError(f"expected a model of kind {', '.join(EMULATORS)}, got {kind!r}; update maury")
    return EMULATORS[kind].from_arrays(arrays, config)
