"""Trained encoders and regressors on their latent numbers, in numpy: labels of spectra without torch (Mas-Buitrago 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.emulate.activations import ACTIVATIONS
from maury.errors import UsageError
from maury.files import part_of
from maury.labels import LabelSet
from maury.regress.cnn import CnnNetworks, Float32, FloatArray, Inputs, Layer
from maury.spectra import Spectra

_BLOCK = 256  # spectra whose hidden layers stay in the processor's cache
_CEILING = 0.999  # of the training fluxes, as 1 for a sigmoid output (METHODS 2)


@dataclass(frozen=True, eq=False)
class PixelScale:
    """What an autoencoder sees of a spectrum, and what a bad pixel counts as: the training spectra's mean.

    Parameters
    ----------
    inputs : flux minus mean over scale.
    clipped : flux over scale, clipped to [0, 1], instead.
    """

    inputs: Inputs
    clipped: bool = False

    @classmethod
    def of(cls, spectra: Spectra, rows: NDArray[np.bool_], clipped: bool) -> PixelScale:
        """From the training spectra ``rows`` (n,).

        Raises
        ------
        UsageError
            If there are none, all are alike, or their flux is not positive.
        """
        inputs = Inputs.of(spectra, rows)
        if not clipped:
            return cls(inputs)
        good = spectra.ivar[rows] > 0
        ceiling = float(np.quantile(spectra.flux[rows][good], _CEILING))
        if not ceiling > 0:
            raise UsageError(f"expected positive fluxes for a sigmoid output, got {ceiling:g} as their highest; take linear")
        return cls(Inputs(inputs.wavelength, inputs.mean, ceiling), clipped)

    @property
    def unit(self) -> float:
        """Flux that is 1 in the inputs."""
        return self.inputs.scale

    def __call__(self, flux: NDArray[Any], good: NDArray[np.bool_]) -> Float32:
        """(n, n_pixels) flux, and where it is usable -> inputs."""
        if not self.clipped:
            return self.inputs(flux, good)
        return np.clip(np.where(good, flux, self.inputs.mean) / np.float32(self.unit), 0.0, 1.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Encoder:
    """Spectra into latent numbers.

    Parameters
    ----------
    scale : pixels and their scaling.
    activation : after each layer.
    layers : (weights (n_in, n_out), bias (n_out,)) of each.
    """

    scale: PixelScale
    activation: str
    layers: tuple[Layer, ...]

    @property
    def n_latent(self) -> int:
        return int(self.layers[-1][0].shape[1])

    def encode(self, flux: NDArray[Any], good: NDArray[np.bool_]) -> Float32:
        """(n, n_pixels) prepared flux, and where it is usable -> (n, latent)."""
        act = ACTIVATIONS[self.activation]
        out = np.empty((len(flux), self.n_latent), dtype=np.float32)
        for first in range(0, len(flux), _BLOCK):
            rows = slice(first, first + _BLOCK)
            x = self.scale(flux[rows], good[rows])
            for weight, bias in self.layers:
                x = act(x @ weight + bias)[0]  # type: ignore[assignment, arg-type] # as precise as what it is given
            out[rows] = x
        return out

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings for a model file; inverse of :meth:`from_arrays`."""
        inputs = self.scale.inputs
        arrays: dict[str, NDArray[Any]] = {"wavelength": inputs.wavelength, "mean": inputs.mean}
        for i, (weight, bias) in enumerate(self.layers):
            arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"] = weight, bias
        config = {"scale": inputs.scale, "clipped": self.scale.clipped, "activation": self.activation}
        return arrays, {**config, "n_layers": len(self.layers)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> Encoder:
        """Inverse of :meth:`to_arrays`."""
        scale = PixelScale(Inputs(arrays["wavelength"], arrays["mean"], float(config["scale"])), bool(config["clipped"]))
        layers = tuple((arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"]) for i in range(int(config["n_layers"])))
        return cls(scale, config["activation"], layers)


@dataclass(frozen=True, eq=False)
class LatentNetworks:
    """An encoder and the networks on its latent numbers. They vote like :class:`~maury.regress.cnn.CnnNetworks`.

    Parameters
    ----------
    encoder : the one for observed spectra.
    heads : networks whose "pixels" are the latent numbers.
    """

    encoder: Encoder
    heads: CnnNetworks

    def __post_init__(self) -> None:
        if len(self.heads.wavelength) != self.encoder.n_latent:
            raise UsageError(
                f"expected regressors on {self.encoder.n_latent} latent numbers, got some on {len(self.heads.wavelength)}"
            )

    @property
    def labels(self) -> LabelSet:
        return self.heads.labels

    @property
    def wavelength(self) -> FloatArray:
        return self.encoder.scale.inputs.wavelength

    @property
    def n_members(self) -> int:
        """Networks for each label."""
        return self.heads.n_members

    def predict(self, flux: NDArray[Any], good: NDArray[np.bool_]) -> FloatArray:
        """(n, n_pixels) prepared flux, and where it is usable -> (n, members, K) labels, label units."""
        latents = self.encoder.encode(flux, good)
        return self.heads.predict(latents, np.ones(latents.shape, dtype=bool))

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings for a model file; inverse of :meth:`from_arrays`."""
        encoder, about = self.encoder.to_arrays()
        heads, config = self.heads.to_arrays()
        arrays = {f"encoder.{key}": array for key, array in encoder.items()} | {f"heads.{k}": a for k, a in heads.items()}
        return arrays, {"encoder": about, "heads": config}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> LatentNetworks:
        """Inverse of :meth:`to_arrays`."""
        return cls(
            Encoder.from_arrays(part_of(arrays, "encoder."), config["encoder"]),
            CnnNetworks.from_arrays(part_of(arrays, "heads."), config["heads"]),
        )
