"""The Payne: a small network from labels to flux (Ting+2019; Imig+2022; METHODS 0.6), as an emulator. No torch needed here.

The network's last layer is linear, so a spectrum is a mean plus r vectors times r outputs of the network:

    flux = mean + z(labels) @ basis,   z = last hidden layer @ weights + bias.

That is the published architecture, written so that a fit projects each star's pixels onto the r vectors once
(:class:`maury.protocols.TermEmulator`) and never touches pixels again. A network trained in the space of r principal
components has this form by itself; for one trained on pixels :meth:`PayneEmulator.compressed` finds it. Several members
(an ensemble) are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from maury.emulate.activations import ACTIVATIONS
from maury.errors import UsageError
from maury.labels import LabelSet
from maury.protocols import ModelCovariance

FloatArray = NDArray[np.float64]
Layer = tuple[FloatArray, FloatArray]

_ROWS = 64  # label sets per pass: bounds the memory of hidden layers and their slopes, and keeps them in cache
_SAMPLE = 4096  # label sets at which a shorter basis is found, and as many others at which it is tried
_SHORT = 96
_SAMPLE_MARGIN = 0.1  # of the training range: fits may go beyond it


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
        return self._on_rows(scaled, lambda rows: (self._forward(rows)[0],))[0]

    def terms_jacobian(self, scaled: FloatArray) -> FloatArray:
        """(..., K) scaled labels -> (..., 1 + r, K)."""
        return self.terms_and_jacobian(scaled)[1]

    def terms_and_jacobian(self, scaled: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Both at once, for little more than the Jacobian."""
        terms, jacobian = self._on_rows(scaled, self._slopes)
        return terms, jacobian

    def terms_gradient(self, scaled: FloatArray, pull: FloatArray) -> FloatArray:
        """(n, K) scaled labels and (n, 1 + r) numbers -> (n, K): the numbers times the Jacobian of the terms.

        The chain rule backwards: K times cheaper than :meth:`terms_jacobian`.
        """
        parts = []
        for i in range(0, len(scaled), _ROWS):
            rows = np.asarray(scaled[i : i + _ROWS], dtype=self.layers[0][0].dtype)
            weight = self.layers[-1][0]
            back = np.matmul(pull[None, i : i + _ROWS, 1:].astype(rows.dtype), weight.transpose(0, 2, 1))
            for slope, (weight, _) in zip(self._forward(rows)[1][::-1], self.layers[-2::-1], strict=True):
                back = np.matmul(back * slope, weight.transpose(0, 2, 1))
            parts.append(_mean_of_members(back))
        return np.concatenate(parts)

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

    @cached_property
    def single(self) -> PayneEmulator:
        """The same network in float32: for the steps of a fit, not for its result."""
        layers = tuple((weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in self.layers)
        return replace(self, layers=cast("tuple[Layer, ...]", layers))

    @cached_property
    def shortened(self) -> PayneEmulator:
        """The network itself, or one of 96 basis vectors where it has more: for the steps of a fit, too."""
        return self if len(self.basis) <= _SHORT else self.compressed(at_most=_SHORT)

    def compressed(self, tolerance: float = 1e-5, at_most: int | None = None) -> PayneEmulator:
        """The same spectra from fewer basis vectors, where the network needs fewer than its last hidden layer has neurons.

        Principal components of the spectra at labels all over the training range and a tenth beyond it, as few as leave less than
        ``tolerance`` of the flux (rms over pixels) at the worst of as many other labels; the last layer is multiplied by them.

        Parameters
        ----------
        tolerance : in units of the flux; 1e-5 is a hundredth of the noise at S/N 1000.
        at_most : basis vectors, whatever that loses: for the first steps of a fit.

        Raises
        ------
        UsageError
            If the tolerance is not positive.
        """
        if not tolerance > 0:
            raise UsageError(f"expected a tolerance above 0, got {tolerance}; 1e-5 of the flux is below any noise")
        orthonormal, triangle = np.linalg.qr(self.basis.T)  # basis = triangle' orthonormal'
        members = [self.member(number) for number in range(self.n_members)]  # each is kept, not only their mean
        first, second = self._sample_labels()
        found, tried = (np.concatenate([m.terms(p)[:, 1:] for m in members]) @ triangle.T for p in (first, second))
        centre = found.mean(axis=0)
        vectors = np.linalg.eigh(np.cov(found.T, bias=True))[1][:, ::-1]
        left = np.cumsum((((tried - centre) @ vectors) ** 2)[:, ::-1], axis=1)[:, ::-1]  # (n, r): squares from the i-th on
        worst = np.sqrt(left.max(axis=0) / len(self.wavelength))
        rank = min(int(np.count_nonzero(worst >= tolerance)), at_most or len(self.basis))
        if rank >= len(self.basis):
            return self
        kept = vectors[:, : max(rank, 1)]
        weight, bias = self.layers[-1]
        last = (weight @ (triangle.T @ kept), (bias @ triangle.T - centre) @ kept)
        mean, basis = self.mean + orthonormal @ centre, np.ascontiguousarray((orthonormal @ kept).T)
        return replace(self, layers=(*self.layers[:-1], last), mean=mean, basis=basis)

    def _sample_labels(self) -> tuple[FloatArray, FloatArray]:
        """Two sets of scaled labels, even over the box of the training range and a tenth beyond; always the same."""
        corners = np.sort(self.labels.scale(np.array([self.labels.lower, self.labels.upper])), axis=0)
        reach = _SAMPLE_MARGIN * (corners[1] - corners[0])
        unit = np.random.default_rng(1866).random((2, _SAMPLE, len(self.labels)))
        first, second = corners[0] - reach + unit * (corners[1] - corners[0] + 2.0 * reach)
        return first, second

    # -- the network --------------------------------------------------------------------------------------------

    def _on_rows(self, scaled: FloatArray, function: Callable[[FloatArray], tuple[FloatArray, ...]]) -> tuple[FloatArray, ...]:
        array = np.asarray(scaled, dtype=self.layers[0][0].dtype)
        flat = array.reshape(-1, array.shape[-1])
        parts = [function(flat[i : i + _ROWS]) for i in range(0, max(len(flat), 1), _ROWS)]
        joined = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
        return tuple(out.reshape(*array.shape[:-1], *out.shape[1:]) for out in joined)

    def _forward(self, scaled: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        """(n, 1 + r) terms, and the slope of every activation (E, n, hidden)."""
        act = ACTIVATIONS[self.activation]
        out: FloatArray = scaled[None]
        slopes = []
        for weight, bias in self.layers[:-1]:
            out, slope = act(np.matmul(out, weight) + bias[:, None])
            slopes.append(slope)
        weight, bias = self.layers[-1]
        terms = np.ones((len(scaled), 1 + weight.shape[2]), dtype=out.dtype)
        terms[:, 1:] = _mean_of_members(np.matmul(out, weight)) + bias.mean(axis=0)
        return terms, slopes

    def _slopes(self, scaled: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n, 1 + r) terms and (n, 1 + r, K) slopes: the chain rule, forward, for the K labels together."""
        terms, slopes = self._forward(scaled)
        n, k = scaled.shape
        first = self.layers[0][0]  # (E, K, hidden)
        moved = first[:, None] * slopes[0][:, :, None]  # (E, n, K, hidden)
        for (weight, _), slope in zip(self.layers[1:-1], slopes[1:], strict=True):
            moved = np.matmul(moved.reshape(len(weight), n * k, weight.shape[1]), weight).reshape(
                len(weight), n, k, weight.shape[2]
            )
            moved *= slope[:, :, None]
        weight = self.layers[-1][0]
        z = _mean_of_members(np.matmul(moved.reshape(len(weight), n * k, weight.shape[1]), weight))
        out = np.zeros((n, k, 1 + z.shape[1]), dtype=z.dtype)
        out[:, :, 1:] = z.reshape(n, k, z.shape[1])
        return terms, out.transpose(0, 2, 1)

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
        names = [f"layer{i}" for i in range(int(config["n_layers"]))]
        layers = tuple((arrays[f"{n}.weight"].astype(np.float64), arrays[f"{n}.bias"].astype(np.float64)) for n in names)
        covariance = ModelCovariance(arrays["covariance_diagonal"], arrays.get("covariance_factors"))
        labels = LabelSet.from_config(config["label_set"])
        return cls(labels, arrays["wavelength"], layers, config["activation"], arrays["mean"], arrays["basis"], covariance)


def _mean_of_members(outputs: FloatArray) -> FloatArray:
    """(E, n, r) -> (n, r)."""
    return outputs[0] if len(outputs) == 1 else np.asarray(outputs.mean(axis=0))
