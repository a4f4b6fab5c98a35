"""The Payne: a small network from labels to flux (Ting+2019; Imig+2022; METHODS 0.6), as an emulator. No torch needed here.

The network's last layer is linear, so a spectrum is a mean plus r vectors times r outputs of the network:

    flux = mean + z(labels) @ basis,   z = last hidden layer @ weights + bias.

That is the published architecture, written so that a fit projects each star's pixels onto the r vectors once
(:class:`maury.protocols.TermEmulator`) and never touches pixels again. A network trained in the space of r principal
components has this form by itself; for one trained on pixels :meth:`PayneEmulator.compressed` finds it. Several members
(an ensemble) are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.emulate.activations import ACTIVATIONS
from maury.errors import UsageError
from maury.labels import LabelSet
from maury.protocols import ModelCovariance

FloatArray = NDArray[np.float64]
Layer = tuple[FloatArray, FloatArray]

_ROWS = 1024  # label sets per pass: bounds the memory of hidden layers


@dataclass(frozen=True, eq=False)
class PayneEmulator:
    """A trained Payne.

    Parameters
    ----------
    labels : label set with scaling and training range.
    wavelength : (n_pixels,) Å.
    layers : (weights (E, n_in, n_out), bias (E, n_out)) of each layer of E members; the last one is linear, with r outputs.
    activation : a name of :data:`maury.emulate.activations.ACTIVATIONS`.
    mean : (n_pixels,); basis : (r, n_pixels).
    model_covariance : of the model's own error.
    """

    labels: LabelSet
    wavelength: FloatArray
    layers: tuple[Layer, ...]
    activation: str
    mean: FloatArray
    basis: FloatArray
    model_covariance: ModelCovariance

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {self.activation!r}; correct it")
        sizes = [len(self.labels), *(weight.shape[2] for weight, _ in self.layers)]
        inputs = [*(weight.shape[1] for weight, _ in self.layers), len(self.basis)]
        if sizes != inputs or self.basis.shape[1:] != self.wavelength.shape or self.mean.shape != self.wavelength.shape:
            raise UsageError(f"expected layers that fit each other, labels and basis, got inputs {inputs} for outputs {sizes}")

    @property
    def coefficients(self) -> FloatArray:
        """(1 + r, n_pixels): what the terms are multiplied with."""
        return np.vstack([self.mean, self.basis])

    @property
    def n_members(self) -> int:
        return int(self.layers[0][0].shape[0])

    def terms(self, scaled: FloatArray) -> FloatArray:
        """(..., K) scaled labels -> (..., 1 + r): 1 and the network's outputs."""
        return self._on_rows(scaled, lambda rows: self._forward(rows)[0])

    def terms_jacobian(self, scaled: FloatArray) -> FloatArray:
        """(..., K) scaled labels -> (..., 1 + r, K)."""
        return self._on_rows(scaled, self._slopes)

    def predict_flux(self, values: FloatArray) -> FloatArray:
        """(n, K) label units -> (n, n_pixels)."""
        terms = self.terms(self.labels.scale(np.atleast_2d(values)))
        return np.asarray(terms[:, 1:] @ self.basis + self.mean)

    def predict_jacobian(self, values: FloatArray) -> FloatArray:
        """(n, K) label units -> (n, n_pixels, K), per label unit."""
        scaled = self.labels.scale(np.atleast_2d(values))
        slopes = self.terms_jacobian(scaled)[:, 1:] / self.labels.unscale_slope(scaled)[:, None, :]
        return np.asarray(np.matmul(slopes.transpose(0, 2, 1), self.basis).transpose(0, 2, 1))

    def with_covariance(self, covariance: ModelCovariance) -> PayneEmulator:
        """The same network with another covariance (see :mod:`maury.emulate.covariance`)."""
        return replace(self, model_covariance=covariance)

    def member(self, number: int) -> PayneEmulator:
        """One network of the ensemble alone."""
        return replace(self, layers=tuple((weight[[number]], bias[[number]]) for weight, bias in self.layers))

    # -- the network --------------------------------------------------------------------------------------------

    def _on_rows(self, scaled: FloatArray, function: Any) -> FloatArray:
        array = np.asarray(scaled, dtype=np.float64)
        flat = array.reshape(-1, array.shape[-1])
        parts = [function(flat[i : i + _ROWS]) for i in range(0, max(len(flat), 1), _ROWS)]
        out = np.concatenate(parts)
        return np.asarray(out.reshape(*array.shape[:-1], *out.shape[1:]))

    def _forward(self, scaled: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        """(n, 1 + r) terms, and the slope of every activation (E, n, hidden)."""
        act = ACTIVATIONS[self.activation]
        out: FloatArray = scaled[None]
        slopes = []
        for weight, bias in self.layers[:-1]:
            out, slope = act(np.matmul(out, weight) + bias[:, None])
            slopes.append(slope)
        weight, bias = self.layers[-1]
        z = np.matmul(out, weight).mean(axis=0) + bias.mean(axis=0)
        return np.concatenate([np.ones((len(z), 1)), z], axis=1), slopes

    def _slopes(self, scaled: FloatArray) -> FloatArray:
        """(n, 1 + r, K): the chain rule, forward, for the K labels together."""
        _, slopes = self._forward(scaled)
        n, k = scaled.shape
        first = self.layers[0][0]  # (E, K, hidden)
        moved = first[:, None] * slopes[0][:, :, None]  # (E, n, K, hidden)
        for (weight, _), slope in zip(self.layers[1:-1], slopes[1:], strict=True):
            moved = np.matmul(moved.reshape(len(weight), n * k, -1), weight).reshape(len(weight), n, k, -1)
            moved *= slope[:, :, None]
        weight = self.layers[-1][0]
        z = np.matmul(moved.reshape(len(weight), n * k, -1), weight).mean(axis=0).reshape(n, k, -1)
        return np.asarray(np.concatenate([np.zeros((n, k, 1)), z], axis=2).transpose(0, 2, 1))

    # -- files --------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings for a model file; inverse of :meth:`from_arrays`."""
        arrays: dict[str, NDArray[Any]] = {
            "wavelength": self.wavelength,
            "mean": self.mean,
            "basis": self.basis,
            "covariance_diagonal": self.model_covariance.diagonal,
        }
        if self.model_covariance.factors is not None:
            arrays["covariance_factors"] = self.model_covariance.factors
        for i, (weight, bias) in enumerate(self.layers):
            arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"] = weight, bias
        config = {"kind": "payne", "activation": self.activation, "label_set": self.labels.to_config()}
        return arrays, {**config, "n_layers": len(self.layers)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> PayneEmulator:
        """Inverse of :meth:`to_arrays`."""
        layers = tuple((arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"]) for i in range(int(config["n_layers"])))
        covariance = ModelCovariance(arrays["covariance_diagonal"], arrays.get("covariance_factors"))
        labels = LabelSet.from_config(config["label_set"])
        return cls(labels, arrays["wavelength"], layers, config["activation"], arrays["mean"], arrays["basis"], covariance)
