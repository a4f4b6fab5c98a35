"""Labels -> flux: emulators, and what they share.

* :mod:`~maury.emulate.cannon`: The Cannon, a polynomial of the labels per pixel.
* :mod:`~maury.emulate.polynomial`: its terms.
* :mod:`~maury.emulate.covariance`: the model's own covariance from cross-validated residuals, for every emulator.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from maury.emulate.cannon import CannonConfig, CannonEmulator, train_cannon
from maury.errors import ModelFileError

__all__ = ["EMULATORS", "CannonConfig", "CannonEmulator", "emulator_from_arrays", "train_cannon"]

EMULATORS = {"cannon": CannonEmulator}
"""Kinds of emulator that a model file may hold."""


def emulator_from_arrays(arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> CannonEmulator:
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
