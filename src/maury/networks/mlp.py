"""Multilayer perceptrons of one shape, side by side: an ensemble trains in the time its matrix products take, not one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
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


class StackedMlp(nn.Module):
    """``n_members`` independent perceptrons with linear output, evaluated together.

    Parameters
    ----------
    n_members : E, networks side by side.
    sizes : inputs, hidden layers..., outputs.
    activation : a name of :data:`ACTIVATIONS`, after every layer but the last.
    generator : source of the initial weights: uniform within 1/sqrt(inputs), as torch's own ``Linear`` has it.

    Examples
    --------
    >>> import torch
    >>> network = StackedMlp(3, (5, 300, 300, 4563), "leaky_relu", torch.Generator().manual_seed(1))
    >>> network(torch.zeros(2, 5)).shape  # (members, spectra, pixels)
    torch.Size([3, 2, 4563])
    """

    def __init__(self, n_members: int, sizes: Sequence[int], activation: str, generator: torch.Generator) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UsageError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {activation!r}; correct the name")
        self.n_members, self.activation = n_members, activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in pairwise(sizes):
            limit = n_in**-0.5
            for parameters, shape in ((self.weights, (n_members, n_in, n_out)), (self.biases, (n_members, 1, n_out))):
                drawn = torch.rand(shape, generator=generator, dtype=torch.float32)
                parameters.append(nn.Parameter((2.0 * drawn - 1.0) * limit))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs), the same for every member, or (E, n, inputs) -> (E, n, outputs)."""
        act = ACTIVATIONS[self.activation]
        out = x if x.ndim == 3 else x.expand(self.n_members, *x.shape)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(bias, out, weight)
            out = act(out) if i < last else out
        return out
