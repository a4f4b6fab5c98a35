"""Activations of networks in numpy, with their slopes: inference needs no torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Activation = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

_LEAK = 0.01  # The Payne's LeakyReLU (METHODS 0.6)


def _leaky_relu(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    slope = np.where(x > 0, x.dtype.type(1.0), x.dtype.type(_LEAK))  # of the same precision
    return x * slope, slope


def _relu(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    slope = np.where(x > 0, x.dtype.type(1.0), x.dtype.type(0.0))
    return x * slope, slope


def _logistic(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))  # never overflows


def _sigmoid(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    s = _logistic(x)
    return s, s * (1.0 - s)


def _tanh(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    t = np.tanh(x)
    return t, 1.0 - t * t


def _silu(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    s = _logistic(x)
    return x * s, s * (1.0 + x * (1.0 - s))


ACTIVATIONS: dict[str, Activation] = {
    "leaky_relu": _leaky_relu,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "silu": _silu,
}
"""Name -> (value, slope) of the activation; the torch side is :data:`maury.networks.mlp.ACTIVATIONS`."""
