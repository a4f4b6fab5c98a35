"""One-dimensional convolutional networks of one topology, side by side (Passegger 2020, StarNet; METHODS 1)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maury.networks.topology import Topology


class StackedCnn1d(nn.Module):
    """``n_members`` independent networks, evaluated together: grouped convolutions, batched dense layers.

    Parameters
    ----------
    n_members : E, networks side by side.
    topology : convolutions and dense layers.
    n_pixels : of a spectrum.
    n_outputs : of each network.
    generator : source of the first weights: normal, of variance 2 / inputs (He+2015, eq. 10), biases 0, as StarNet has it.

    Raises
    ------
    UsageError
        If the topology leaves nothing of so few pixels.

    Examples
    --------
    >>> import torch
    >>> from maury.networks.topology import PRESETS
    >>> network = StackedCnn1d(3, PRESETS["starnet"], 512, 1, torch.Generator().manual_seed(1))
    >>> network(torch.zeros(2, 512)).shape  # (members, spectra, outputs)
    torch.Size([3, 2, 1])
    """

    def __init__(self, n_members: int, topology: Topology, n_pixels: int, n_outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.n_members, self.topology = n_members, topology
        lengths = topology.lengths(n_pixels)
        self.kernels, self.offsets = nn.ParameterList(), nn.ParameterList()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        n_in = 1
        for n_out in topology.filters:
            self.kernels.append(_he((n_members, n_out, n_in, topology.kernel), n_in * topology.kernel, generator))
            self.offsets.append(nn.Parameter(torch.zeros(n_members, n_out)))
            n_in = n_out
        n_in *= lengths[-1]
        for n_out in (*topology.dense, n_outputs):
            self.weights.append(_he((n_members, n_in, n_out), n_in, generator))
            self.biases.append(nn.Parameter(torch.zeros(n_members, 1, n_out)))
            n_in = n_out

    def forward(self, x: Tensor) -> Tensor:
        """(n, pixels) -> (E, n, outputs)."""
        out = x[:, None]  # the first convolution is the same for all members but for its weights: one group
        for layer, (kernel, offset) in enumerate(zip(self.kernels, self.offsets, strict=True)):
            out = nn.functional.pad(out, self.topology.padding(out.shape[2]))
            groups = 1 if layer == 0 else self.n_members
            out = nn.functional.conv1d(out, kernel.flatten(0, 1), offset.flatten(), self.topology.stride, groups=groups)
            out = torch.relu(out)
            if self.topology.pools_after(layer):
                pool = nn.functional.max_pool1d if self.topology.pool == "max" else nn.functional.avg_pool1d
                out = pool(out, self.topology.pool_size)
        out = out.reshape(len(x), self.n_members, -1).transpose(0, 1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(bias, out, weight)
            out = torch.relu(out) if layer < len(self.weights) - 1 else out
        return out

    def numpy_layers(self) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
        """(weights, offsets) of each layer, float32 copies as :class:`maury.regress.cnn.CnnNetworks` holds them.

        Of a convolution (E, kernel * n_in, n_out): what one place sees, pixel by pixel. Of a dense layer (E, n_in, n_out); the
        first one's inputs are ordered pixel by pixel, too.
        """
        layers = []
        for kernel, offset in zip(self.kernels, self.offsets, strict=True):
            layers.append((kernel.permute(0, 3, 2, 1).flatten(1, 2), offset))
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            layers.append((self._by_pixel(weight) if number == 0 else weight, bias[:, 0]))
        return tuple((w.detach().cpu().numpy().copy(), b.detach().cpu().numpy().copy()) for w, b in layers)

    def _by_pixel(self, weight: Tensor) -> Tensor:
        """Weights of the first dense layer with its inputs ordered pixel by pixel instead of filter by filter."""
        by_filter = weight.reshape(self.n_members, self.topology.filters[-1], -1, weight.shape[2])
        return by_filter.transpose(1, 2).flatten(1, 2)


def _he(shape: tuple[int, ...], n_inputs: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter((2.0 / n_inputs) ** 0.5 * torch.randn(shape, generator=generator))
