"""Trained convolutional networks, in numpy: labels of spectra without torch.

Networks of one shape are evaluated together. A convolution is one matrix product over what each of its places sees, the first one
of all networks at once, as they look at the same pixels; float32, in blocks of spectra that stay in the processor's cache.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.labels import LabelSet
from maury.networks.topology import Topology
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
Float32 = NDArray[np.float32]
Layer = tuple[Float32, Float32]

_BLOCK_FLOATS = 1 << 17  # of the largest layer of a block: half a megabyte


@dataclass(frozen=True, eq=False)
class Inputs:
    """What networks see of a spectrum: its pixels minus the training spectra's mean, over their scatter; 0 where it has none.

    Parameters
    ----------
    wavelength, mean : (n_pixels,) Å and flux.
    scale : root mean square of flux - mean over training spectra and pixels.
    """

    wavelength: FloatArray
    mean: Float32
    scale: float

    @classmethod
    def of(cls, spectra: Spectra, rows: NDArray[np.bool_]) -> Inputs:
        """From the training spectra ``rows`` (n,).

        Raises
        ------
        UsageError
            If there are none, or all are alike.
        """
        good = spectra.ivar[rows] > 0
        count = good.sum(axis=0)
        if not count.any():
            raise UsageError("expected training spectra with usable pixels, got none; prepare some")
        mean = np.where(good, spectra.flux[rows], 0.0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
        scale = float(np.sqrt((np.where(good, spectra.flux[rows] - mean, 0.0) ** 2).sum(dtype=np.float64) / count.sum()))
        if not scale > 0:
            raise UsageError("expected training spectra that differ, got all alike; check their preparation")
        return cls(np.array(spectra.wavelength), mean.astype(np.float32), scale)

    def __call__(self, flux: NDArray[Any], good: NDArray[np.bool_]) -> Float32:
        """(n, n_pixels) flux, and where it is usable -> inputs."""
        return np.where(good, (flux - self.mean) / np.float32(self.scale), 0.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class CnnNetworks:
    """E trained networks of one topology on the same pixels.

    Parameters
    ----------
    labels : label set with scaling and training range.
    inputs : pixels and their scaling.
    topology : of each network.
    layers : (weights, offsets) of each layer, as :meth:`maury.networks.cnn1d.StackedCnn1d.numpy_layers` orders them. The last one
        has an output per label (joint networks), or one: the first E / K networks are then for the first label, and so on.
    """

    labels: LabelSet
    inputs: Inputs
    topology: Topology
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        t, n_labels = self.topology, len(self.labels)
        sizes = (t.lengths(len(self.inputs.wavelength))[-1] * t.filters[-1], *t.dense, self.layers[-1][0].shape[2])
        wanted = [(a * t.kernel, b) for a, b in zip((1, *t.filters), t.filters, strict=False)]
        wanted += list(pairwise(sizes))
        got = [weight.shape[1:] for weight, _ in self.layers]
        if got != wanted or not (sizes[-1] == n_labels or (sizes[-1] == 1 and self.n_networks % n_labels == 0)):
            raise UsageError(f"expected layers {wanted} of {n_labels} labels as the topology has it, got {got}; train it again")

    @property
    def wavelength(self) -> FloatArray:
        return self.inputs.wavelength

    @property
    def n_networks(self) -> int:
        return int(self.layers[0][0].shape[0])

    @property
    def is_joint(self) -> bool:
        """Whether each network has all labels as outputs."""
        return int(self.layers[-1][0].shape[2]) == len(self.labels)

    @property
    def n_members(self) -> int:
        """Networks for each label."""
        return self.n_networks if self.is_joint else self.n_networks // len(self.labels)

    def predict(self, flux: NDArray[Any], good: NDArray[np.bool_]) -> FloatArray:
        """(n, n_pixels) prepared flux, and where it is usable -> (n, members, K) labels, label units."""
        size = max(self.topology.lengths(len(self.wavelength))[0] * self.topology.filters[0] * self.n_networks, 1)
        step = max(1, _BLOCK_FLOATS // size)
        scaled = np.concatenate(
            [self._scaled(self.inputs(flux[i : i + step], good[i : i + step])) for i in range(0, len(flux), step)]
        )
        return self.labels.unscale(scaled.reshape(-1, len(self.labels))).reshape(scaled.shape)

    def only(self, label: str) -> CnnNetworks:
        """The networks of one label of networks that are not joint."""
        k = self.labels.index(label)
        rows = slice(k * self.n_members, (k + 1) * self.n_members)
        return CnnNetworks(
            self.labels.only([label]), self.inputs, self.topology, tuple((w[rows], b[rows]) for w, b in self.layers)
        )

    # -- layers -------------------------------------------------------------------------------------------------

    def _scaled(self, x: Float32) -> FloatArray:
        """(n, n_pixels) inputs -> (n, members, K) scaled labels."""
        t, n_convolutions = self.topology, len(self.topology.filters)
        weight, offset = self.layers[0]
        places = _places(x[None, :, :, None], t)  # (1, n, length, kernel)
        n, length = places.shape[1:3]
        merged = weight.transpose(1, 0, 2).reshape(weight.shape[1], -1)
        out = (places.reshape(n * length, -1) @ merged).reshape(n, length, self.n_networks, -1).transpose(2, 0, 1, 3)
        out = self._activated(np.ascontiguousarray(out), offset, 0)
        for layer in range(1, n_convolutions):
            places = _places(out, t)
            e, n, length, width = places.shape
            out = np.matmul(places.reshape(e, n * length, width), self.layers[layer][0]).reshape(e, n, length, -1)
            out = self._activated(out, self.layers[layer][1], layer)
        return self._dense(out.reshape(self.n_networks, len(x), -1))

    def _dense(self, out: Float32) -> FloatArray:
        """(E, n, length * filters) -> (n, members, K) scaled labels."""
        first, last = len(self.topology.filters), len(self.layers) - 1
        for layer in range(first, last + 1):
            weight, offset = self.layers[layer]
            out = np.matmul(out, weight) + offset[:, None]
            if layer < last:
                np.maximum(out, 0.0, out=out)
        if self.is_joint:
            return np.asarray(out.transpose(1, 0, 2), dtype=np.float64)
        return np.asarray(out[:, :, 0].reshape(len(self.labels), self.n_members, -1).transpose(2, 1, 0), dtype=np.float64)

    def _activated(self, out: Float32, offset: Float32, layer: int) -> Float32:
        """(E, n, length, filters) with offsets, ReLU and pooling."""
        out += offset[:, None, None]
        np.maximum(out, 0.0, out=out)
        if not self.topology.pools_after(layer):
            return out
        size = self.topology.pool_size
        length = out.shape[2] // size
        pooled = out[:, :, : length * size].reshape(*out.shape[:2], length, size, out.shape[3])
        return np.asarray(pooled.max(axis=3) if self.topology.pool == "max" else pooled.mean(axis=3))

    # -- files --------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings for a model file; inverse of :meth:`from_arrays`."""
        arrays: dict[str, NDArray[Any]] = {"wavelength": self.wavelength, "mean": self.inputs.mean}
        for i, (weight, offset) in enumerate(self.layers):
            arrays[f"layer{i}.weight"], arrays[f"layer{i}.offset"] = weight, offset
        config = {"label_set": self.labels.to_config(), "topology": asdict(self.topology), "scale": self.inputs.scale}
        return arrays, config

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> CnnNetworks:
        """Inverse of :meth:`to_arrays`."""
        shape: dict[str, Any] = config["topology"]
        topology = Topology(**{**shape, "filters": tuple(shape["filters"]), "dense": tuple(shape["dense"])})
        n_layers = len(topology.filters) + len(topology.dense) + 1
        layers = tuple((arrays[f"layer{i}.weight"], arrays[f"layer{i}.offset"]) for i in range(n_layers))
        inputs = Inputs(arrays["wavelength"], arrays["mean"], float(config["scale"]))
        return cls(LabelSet.from_config(config["label_set"]), inputs, topology, layers)


def _places(x: Float32, topology: Topology) -> Float32:
    """(E, n, length, channels) -> (E, n, places, kernel * channels): what each place of a filter sees, contiguous."""
    e, n, length, channels = x.shape
    left, right = topology.padding(length)
    if left or right:
        x = np.pad(x, ((0, 0), (0, 0), (left, right), (0, 0)))
    x = np.ascontiguousarray(x)
    places, width = -(-length // topology.stride), topology.kernel * channels
    strides = (*x.strides[:2], topology.stride * x.strides[2], x.itemsize)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(x, (e, n, places, width), strides, writeable=False))
