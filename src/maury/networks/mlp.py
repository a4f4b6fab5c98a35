"""Multilayer perceptrons of one shape, side by side: an ensemble trains in the time its matrix products take, not one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maury.errors import UsageError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": lambda x: nn.functional.leaky_relu(x, 0.01),
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": nn.functional.silu,
}
"""Activations by name; :data:`maury.emulate.activations.ACTIVATIONS` has the same ones for numpy, with their slopes."""


INITIAL = ("uniform", "glorot", "normal")
"""First weights by name; see :class:`StackedMlp`."""

_NORMAL_SIGMA = 0.05  # Keras' default


class StackedMlp(nn.Module):
    """``n_members`` independent perceptrons with linear output, evaluated together.

    Parameters
    ----------
    n_members : E, networks side by side.
    sizes : inputs, hidden layers..., outputs.
    activation : a name of :data:`ACTIVATIONS`, after every layer but the last.
    generator : source of the initial weights.
    dropout, n_dropped : share of the neurons left out of each of the first ``n_dropped`` layers while training.
    initial : first weights. "uniform": within 1/sqrt(inputs), biases too, as torch's own ``Linear`` has it; "glorot": within
        sqrt(6/(inputs + outputs)), biases 0, as Keras has it (Glorot & Bengio 2010, eq. 16): deep networks keep their signal;
        "normal": of standard deviation 0.05, biases 0: RandomNormal of Keras.

    Raises
    ------
    UsageError
        If the activation or the first weights have no such name, or ``dropout`` is not in [0, 1).

    Examples
    --------
    >>> import torch
    >>> network = StackedMlp(3, (5, 300, 300, 4563), "leaky_relu", torch.Generator().manual_seed(1))
    >>> network(torch.zeros(2, 5)).shape  # (members, spectra, pixels)
    torch.Size([3, 2, 4563])
    """

    def __init__(
        self,
        n_members: int,
        sizes: Sequence[int],
        activation: str,
        generator: torch.Generator,
        *,
        dropout: float = 0.0,
        n_dropped: int = 0,
        initial: str = "uniform",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UsageError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {activation!r}; correct the name")
        if initial not in INITIAL:
            raise UsageError(f"expected initial weights among {', '.join(INITIAL)}, got {initial!r}; correct the name")
        if not 0 <= dropout < 1:
            raise UsageError(f"expected a dropout of at least 0 and below 1, got {dropout}; correct it")
        self.n_members, self.activation, self.dropout, self.n_dropped = n_members, activation, dropout, n_dropped
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in pairwise(sizes):
            weight, bias = (n_members, n_in, n_out), (n_members, 1, n_out)
            if initial == "normal":
                self.weights.append(nn.Parameter(_NORMAL_SIGMA * torch.randn(weight, generator=generator)))
            else:
                limit = n_in**-0.5 if initial == "uniform" else (6.0 / (n_in + n_out)) ** 0.5
                self.weights.append(nn.Parameter(_even(weight, limit, generator)))
            self.biases.append(nn.Parameter(_even(bias, n_in**-0.5, generator) if initial == "uniform" else torch.zeros(bias)))

    @property
    def n_layers(self) -> int:
        return len(self.weights)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs), the same for every member, or (E, n, inputs) -> (E, n, outputs)."""
        return self.through(x, 0, self.n_layers)

    def through(self, x: Tensor, first: int, stop: int) -> Tensor:
        """Layers ``first`` to ``stop`` - 1 alone, each but the network's last one with its activation."""
        act = ACTIVATIONS[self.activation]
        out = x if x.ndim == 3 else x.expand(self.n_members, *x.shape)
        for i in range(first, stop):
            out = torch.baddbmm(self.biases[i], out, self.weights[i])
            out = act(out) if i < self.n_layers - 1 else out
            if self.dropout > 0 and i < self.n_dropped:
                out = nn.functional.dropout(out, self.dropout, self.training)
        return out

    def numpy_layers(self) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
        """(weights (E, n_in, n_out), bias (E, n_out)) of each layer, float32 copies: what emulators and inferrers hold."""
        pairs = zip(self.weights, self.biases, strict=True)
        return tuple((w.detach().cpu().numpy().copy(), b.detach().cpu().numpy()[:, 0].copy()) for w, b in pairs)


def _even(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> Tensor:
    """Numbers drawn evenly from -limit to limit."""
    return (2.0 * torch.rand(shape, generator=generator) - 1.0) * limit
