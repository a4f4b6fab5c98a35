"""An autoencoder of spectra: pixels to a few numbers and back (Gebran 2024, fig. 2; Mas-Buitrago 2024; METHODS 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maury.errors import UsageError
from maury.networks.mlp import StackedMlp

OUTPUTS = ("linear", "sigmoid")
"""What the pixels may be; see :class:`Autoencoder`."""


class Autoencoder(StackedMlp):
    """One perceptron whose layers narrow to the latent numbers and widen again, mirrored.

    It is one chain of layers, each but the last (the pixels) with its activation, the latent one included: with ReLU the latent
    numbers are at least 0.

    Parameters
    ----------
    n_pixels : inputs and outputs.
    hidden : neurons of the encoder's layers; the decoder has the same ones backwards.
    n_latent : numbers between the two.
    activation, generator, initial : see :class:`~maury.networks.mlp.StackedMlp`.
    output : of the pixels, "linear", or "sigmoid" for fluxes in [0, 1].

    Raises
    ------
    UsageError
        If there is no such output.

    Examples
    --------
    >>> import torch
    >>> network = Autoencoder(4000, (1024, 512, 256, 64, 32), 10, "relu", torch.Generator().manual_seed(1))
    >>> sum(p.numel() for p in network.parameters())
    9548010
    """

    def __init__(
        self,
        n_pixels: int,
        hidden: Sequence[int],
        n_latent: int,
        activation: str,
        generator: torch.Generator,
        *,
        initial: str = "uniform",
        output: str = "linear",
    ) -> None:
        if output not in OUTPUTS:
            raise UsageError(f"expected an output among {', '.join(OUTPUTS)}, got {output!r}; correct the name")
        sizes = (n_pixels, *hidden, n_latent, *hidden[::-1], n_pixels)
        super().__init__(1, sizes, activation, generator, initial=initial)
        self.n_encoder_layers, self.output = len(hidden) + 1, output

    def forward(self, x: Tensor) -> Tensor:
        """(n, pixels) -> (1, n, pixels)."""
        return self.decode(self.encode(x))

    def encode(self, x: Tensor) -> Tensor:
        """(n, pixels) -> (1, n, latent), after the activation."""
        return self.through(x, 0, self.n_encoder_layers)

    def before_activation(self, x: Tensor) -> Tensor:
        """(n, pixels) -> (1, n, latent), before it: what a smooth activation turns into the latent numbers."""
        i = self.n_encoder_layers - 1
        return torch.baddbmm(self.biases[i], self.through(x, 0, i), self.weights[i])

    def decode(self, latents: Tensor) -> Tensor:
        """(1, n, latent) -> (1, n, pixels)."""
        out = self.through(latents, self.n_encoder_layers, self.n_layers)
        return torch.sigmoid(out) if self.output == "sigmoid" else out

    def layer_outputs(self, x: Tensor) -> list[Tensor]:
        """What each layer gives, (1, n, its neurons), the last one the pixels: for penalties on the layers between."""
        out = [x]
        for i in range(self.n_layers):
            out.append(self.through(out[-1], i, i + 1))
        out[-1] = torch.sigmoid(out[-1]) if self.output == "sigmoid" else out[-1]
        return out[1:]
