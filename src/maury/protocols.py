"""The seams: what one room may know of another. No base classes; anything of the right shape fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.labels import LabelSet
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModelCovariance:
    """Covariance of the model's own error over pixels, diag(diagonal) + factors factors^T, in flux units squared.

    Parameters
    ----------
    diagonal : (n_pixels,), the variance that is independent between pixels (The Cannon's s^2). Infinite where the model
        knows nothing (too few training stars had that pixel): such pixels take no part in a fit.
    factors : (n_pixels, k) or None: correlated residuals, low rank. The fit uses both by the Woodbury identity.
    """

    diagonal: FloatArray
    factors: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.diagonal.ndim != 1 or np.isnan(self.diagonal).any() or (self.diagonal < 0).any():
            raise UsageError("expected a variance >= 0 per pixel (infinite where unknown) as the diagonal of a model covariance")
        if self.factors is not None and (self.factors.ndim != 2 or len(self.factors) != len(self.diagonal)):
            raise UsageError(f"expected covariance factors of shape ({len(self.diagonal)}, k), got {self.factors.shape}")

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n_pixels,) where the model knows anything."""
        return np.isfinite(self.diagonal)

    @property
    def rank(self) -> int:
        return 0 if self.factors is None else int(self.factors.shape[1])


@runtime_checkable
class Emulator(Protocol):
    """Labels -> flux. Label arrays are in label units; Jacobians per label unit."""

    @property
    def labels(self) -> LabelSet: ...
    @property
    def wavelength(self) -> FloatArray: ...
    @property
    def model_covariance(self) -> ModelCovariance: ...
    def predict_flux(self, values: FloatArray) -> FloatArray:
        """(n, K) -> (n, n_pixels)."""
        ...

    def predict_jacobian(self, values: FloatArray) -> FloatArray:
        """(n, K) -> (n, n_pixels, K), d flux / d label."""
        ...

    def with_covariance(self, covariance: ModelCovariance) -> Emulator:
        """The same emulator with another covariance."""
        ...

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings (with its ``kind``) for a model file."""
        ...


@runtime_checkable
class TermEmulator(Emulator, Protocol):
    """An emulator that is linear in known terms of the labels: flux = terms(labels) @ coefficients.

    A fitter may then project each star's pixels onto the terms once and never touch pixels again (PEERS.md, lesson 1).
    """

    @property
    def coefficients(self) -> FloatArray:
        """(n_terms, n_pixels)."""
        ...

    def terms(self, scaled: FloatArray) -> FloatArray:
        """(n, K) scaled labels -> (n, n_terms)."""
        ...

    def terms_jacobian(self, scaled: FloatArray) -> FloatArray:
        """(n, K) scaled labels -> (n, n_terms, K), d term / d scaled label."""
        ...


@runtime_checkable
class Inferrer(Protocol):
    """Prepared flux -> labels."""

    @property
    def labels(self) -> LabelSet: ...
    def infer(self, spectra: Spectra) -> LabelEstimates: ...


@runtime_checkable
class Fitter(Protocol):
    """Finds the labels at which an emulator describes a spectrum; knows no particular model."""

    def fit(self, spectra: Spectra, emulator: Emulator) -> LabelEstimates: ...


@runtime_checkable
class Step(Protocol):
    """One step of a preparation: a frozen dataclass of its parameters that maps Spectra to Spectra."""

    def __call__(self, spectra: Spectra) -> Spectra: ...
    def to_config(self) -> dict[str, Any]: ...
