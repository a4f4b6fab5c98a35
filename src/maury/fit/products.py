"""Where the large matrix products of a fit are computed: numpy, or a GPU through torch.

Only the sums over pixels are large; what is left of a fit is small matrices on the CPU. A device is a choice of the moment and is
not saved with a model.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError

Array = NDArray[Any]

DEVICES = ("cpu", "cuda")


class Products(Protocol):
    """Products of many left-hand sides with a matrix that stays where it is."""

    def hold(self, matrix: Array) -> Any:
        """The matrix (p, q), ready for :meth:`times`."""
        ...

    def times(self, left: Array, held: Any, *, turned: bool = False) -> Array:
        """(n, p) times the held (p, q), or (n, q) times its transpose."""
        ...


class NumpyProducts:
    """In the precision of the matrices given."""

    def hold(self, matrix: Array) -> Array:
        return np.ascontiguousarray(matrix)

    def times(self, left: Array, held: Array, *, turned: bool = False) -> Array:
        return np.asarray(left @ (held.T if turned else held))


class TorchProducts:
    """On a torch device, always in float64: there it costs little, and results do not depend on the device."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch, self.device = torch, device

    def hold(self, matrix: Array) -> Any:
        return self._torch.as_tensor(np.ascontiguousarray(matrix), dtype=self._torch.float64, device=self.device)

    def times(self, left: Array, held: Any, *, turned: bool = False) -> Array:
        there = self._torch.as_tensor(np.ascontiguousarray(left), device=self.device).to(self._torch.float64)
        return np.asarray((there @ (held.T if turned else held)).cpu().numpy())


def check_device(device: str) -> None:
    """Raise UsageError unless ``device`` is "cpu" or a CUDA device that is there ("torch-cpu", for tests, passes too)."""
    if device in ("cpu", "torch-cpu"):
        return
    if device.split(":", maxsplit=1)[0] != "cuda":
        raise UsageError(f"expected a device among {', '.join(DEVICES)}, got {device!r}; correct it")
    try:
        import torch
    except ImportError:
        raise UsageError(
            "expected torch for the device 'cuda', got none; install maury[networks] or use the device 'cpu'"
        ) from None
    if not torch.cuda.is_available():
        raise UsageError("expected a CUDA GPU that torch can use, got none; use the device 'cpu'")


def products_on(device: str) -> Products:
    """The products of a device: "cpu" is numpy."""
    if device == "cpu":
        return NumpyProducts()
    return TorchProducts("cpu" if device == "torch-cpu" else device)
