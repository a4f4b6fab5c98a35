"""What carries a network from synthetic to observed spectra, whichever network: frozen layers, and three ways to align features.

Features are what the network makes of spectra, latent numbers say. Each way gives one number that is small where the features of
two batches, synthetic and observed, are alike; a loss adds it to its own terms. All compare whole batches, never pairs of stars.
They also make the distributions of labels alike, so the synthetic batch has to be of such stars as the observed one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from maury.errors import UsageError

_KERNELS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Variances of the kernels of :func:`mmd`, in medians of the squared distances."""


@contextmanager
def frozen(network: nn.Module, patterns: Sequence[str]) -> Iterator[None]:
    """Within it, parameters whose names match one of the shell-style patterns are not trained.

    Raises
    ------
    UsageError
        If a pattern matches no parameter, or nothing is left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"expected patterns of parameters among {', '.join(names)}, got {pattern!r}; correct frozen")
    chosen = [p for name, p in network.named_parameters() if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if len(chosen) == len(names):
        raise UsageError(f"expected parameters that are left to train, got all {len(names)} frozen; freeze fewer")
    before = [p.requires_grad for p in chosen]
    for p in chosen:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p, was in zip(chosen, before, strict=True):
            p.requires_grad_(was)


def coral(first: Tensor, second: Tensor) -> Tensor:
    """Distance of the means and of the covariances of two batches (n, f) and (m, f) of features.

    ``|m1 - m2|^2 / f + |C1 - C2|^2 / (4 f)``, Frobenius: correlation alignment (Sun & Saenko 2016, eq. 1) with the means that it
    takes to be equal, and over f instead of f^2, so that its size does not fall with the number of features.
    """
    f = first.shape[1]
    means = (first.mean(dim=0) - second.mean(dim=0)).square().mean()
    if min(len(first), len(second)) < 2:  # the last batch of an epoch may be one spectrum, which has no covariance
        return means
    return means + (torch.cov(first.T) - torch.cov(second.T)).square().sum() / (4.0 * f)


def mmd(first: Tensor, second: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two batches (n, f) and (m, f) of features (Gretton+2012, eq. 5), at least 0.

    Of a sum of Gaussian kernels whose widths follow the median distance, so that it has no scale of its own.
    """
    joined = torch.cat([first, second])
    squares = torch.cdist(joined, joined, compute_mode="donot_use_mm_for_euclid_dist").square()
    median = squares.detach().median().clamp(min=1e-12)
    kernel = torch.stack([torch.exp(-squares / (width * median)) for width in _KERNELS]).sum(dim=0)
    n = len(first)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2.0 * kernel[:n, n:].mean()


class Critic(nn.Module):
    """A small perceptron that tells the domains of features apart, for :func:`adversarial`.

    Parameters
    ----------
    n_features : f; hidden : neurons of its one hidden layer; generator : source of its first weights.
    """

    def __init__(self, n_features: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        bare = torch.nn.utils.skip_init  # torch's own first weights would draw from its global generator
        sizes = ((n_features, hidden), (hidden, 1))
        first, last = (bare(nn.Linear, *size) for size in sizes)  # type: ignore[no-untyped-call] # torch has no types for it
        self.layers = nn.Sequential(first, nn.ReLU(), last)
        with torch.no_grad():
            for p in self.parameters():
                limit = p.shape[-1] ** -0.5
                p.copy_((2.0 * torch.rand(p.shape, generator=generator) - 1.0) * limit)

    def forward(self, features: Tensor) -> Tensor:
        """(n, f) -> (n,) logarithm of the odds that they are of the second domain."""
        out: Tensor = self.layers(features)
        return out[:, 0]


def adversarial(critic: nn.Module, first: Tensor, second: Tensor, strength: float) -> Tensor:
    """Cross-entropy with which a critic tells two batches of features apart (Ganin+2016, eq. 9).

    The critic learns to make it small, at full rate; what made the features gets the opposite gradient, times ``strength``.
    """
    features = _Reversed.apply(torch.cat([first, second]), strength)  # type: ignore[no-untyped-call] # torch has no types for it
    domain = torch.cat([torch.zeros(len(first)), torch.ones(len(second))]).to(first)
    return nn.functional.binary_cross_entropy_with_logits(critic(features), domain)


class _Reversed(torch.autograd.Function):
    """The same numbers, whose gradient is turned round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None
