"""The shape of a convolutional network as data: no torch, so that recipes can be checked and networks run without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from maury.errors import UsageError

Pool = Literal["none", "max", "average"]
PoolAfter = Literal["last", "each"]


@dataclass(frozen=True)
class Topology:
    """Convolutions over the pixels, then dense layers; ReLU after each but the outputs.

    Parameters
    ----------
    filters : of each convolution.
    kernel : pixels that a filter sees.
    stride : pixels from one place of a filter to the next; above 1 each convolution shortens the spectrum by so much.
    pool, pool_size : what happens to each ``pool_size`` neighbouring pixels: "max", "average", or "none".
    pool_after : after the "last" convolution alone, or after "each".
    dense : neurons of the dense layers between the convolutions and the outputs.

    Raises
    ------
    UsageError
        If there is no convolution or no dense layer, or a number is below 1.
    """

    filters: tuple[int, ...]
    kernel: int = 5
    stride: int = 1
    pool: Pool = "max"
    pool_size: int = 2
    pool_after: PoolAfter = "last"
    dense: tuple[int, ...] = (256, 128, 64)

    def __post_init__(self) -> None:
        if not self.filters or not self.dense or min(*self.filters, *self.dense, self.kernel, self.stride, self.pool_size) < 1:
            raise UsageError(f"expected convolutions and dense layers, and all sizes at least 1, got {self}; correct them")
        for name, allowed in (("pool", get_args(Pool)), ("pool_after", get_args(PoolAfter))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"expected {name} among {', '.join(allowed)}, got {getattr(self, name)!r}; correct the name")

    def lengths(self, n_pixels: int) -> tuple[int, ...]:
        """Pixels after each convolution and its pooling.

        Raises
        ------
        UsageError
            If nothing is left of so few pixels.
        """
        out, length = [], n_pixels
        for layer in range(len(self.filters)):
            length = -(-length // self.stride)
            length = length // self.pool_size if self.pools_after(layer) else length
            out.append(length)
        if length < 1:
            raise UsageError(f"expected more than {n_pixels} pixels for {self}, of which nothing is left; take a longer chunk")
        return tuple(out)

    def pools_after(self, layer: int) -> bool:
        """Whether pixels are pooled after the convolution of this number."""
        return self.pool != "none" and (self.pool_after == "each" or layer == len(self.filters) - 1)

    def padding(self, n_pixels: int) -> tuple[int, int]:
        """Zeros left and right of ``n_pixels`` with which a convolution has an output for each ``stride`` of them ("same")."""
        total = max((-(-n_pixels // self.stride) - 1) * self.stride + self.kernel - n_pixels, 0)
        return total // 2, total - total // 2

    def n_parameters(self, n_pixels: int, n_outputs: int) -> int:
        """Weights and biases of one network."""
        channels = (1, *self.filters)
        sizes = (self.lengths(n_pixels)[-1] * channels[-1], *self.dense, n_outputs)
        convolutions = sum((a * self.kernel + 1) * b for a, b in pairwise(channels))
        return convolutions + sum((a + 1) * b for a, b in pairwise(sizes))


def _steps(first: int, last: int, n: int) -> tuple[int, ...]:
    """n filter counts from one to the other, in equal ratios."""
    return tuple(round(first * (last / first) ** (i / (n - 1))) for i in range(n))


_DENSE = {3: (256, 128, 64), 5: (512, 256, 128, 64, 32)}

PASSEGGER2020: Mapping[str, Topology] = {
    f"{n}-{way}-{pool}-{n_dense}": Topology(
        _steps(8, 64, n) if way == "rising" else _steps(64, 8, n), pool=pool, dense=_DENSE[n_dense]
    )
    for n in (3, 5, 8)
    for way in ("rising", "falling")
    for pool in get_args(Pool)
    for n_dense in (3, 5)
}
"""The family between the two ends of which Passegger+2020 (Sect. 3) speak: 3 to 8 convolutions, filters rising or falling with
depth, no pooling or one (max or average), 3 or 5 dense layers. Kernel, filter counts and neurons are not in the paper: METHODS 1
chooses 5, 8 to 64 and halving from 256 or 512. Names are ``convolutions-filters-pooling-dense``."""

PRESETS: Mapping[str, Topology] = {
    "starnet": Topology((4, 16), kernel=8, pool_size=4, dense=(256, 128)),
    "fast": Topology((8, 16), kernel=8, stride=8, pool="none", dense=(64, 32)),
    "small": Topology((8, 16), kernel=8, stride=4, pool="none", dense=(64, 32)),
    "small-wide": Topology((16, 32), kernel=8, stride=4, pool="none", dense=(128, 32)),
    "small-deep": Topology((8, 16, 32), kernel=8, stride=2, pool="none", dense=(64, 32)),
    "small-falling": Topology((16, 8), kernel=8, stride=4, pool="none", dense=(64, 32)),
    "masbuitrago2024": Topology((64, 32), kernel=2, pool="none", dense=(256, 128, 64)),
    "latent": Topology((16, 16), kernel=2, pool="none", dense=(128, 64)),
    **PASSEGGER2020,
}
"""Topologies by name. ``starnet``: that of Fabbro+2018, as released (METHODS 1). ``small`` and its relatives: strides instead of
pooling; ``fast``: each convolution sees each pixel once, for large ensembles. ``masbuitrago2024``: on latent numbers, for Teff
(METHODS 2; 307,937 parameters on 32 of them; for other labels unknown, taken to be the same); ``latent``: smaller."""
