"""What autoencoders and regressors on latent numbers learn (needs torch): the losses, as functions of the networks alone.

Three stages on the one training loop: an autoencoder reconstructs spectra (:class:`Reconstruction`; synthetic ones first,
observed ones in the published transfer), regressors learn labels from an encoder that rests (:class:`Regression`), or both learn
together while features of the two domains are aligned (:class:`Joint`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maury.networks.autoencoder import Autoencoder
from maury.networks.cnn1d import StackedCnn1d
from maury.regress.cnn import Float32, Inputs
from maury.regress.latent import PixelScale
from maury.regress.latent_config import LIKE_OBSERVED, LatentConfig
from maury.spectra import Spectra
from maury.train.noise import white_noise
from maury.train.transfer import Critic, adversarial, coral, mmd
from maury.train.transfer_config import TransferConfig

FloatArray = NDArray[np.float64]

_ROWS = 2048  # spectra at a time where no gradient is needed


@dataclass(frozen=True, eq=False)
class Domain:
    """Spectra of one origin as an autoencoder sees them.

    Parameters
    ----------
    x : (n, p) inputs.
    weight : (n, p) of the pixels in reconstruction, 0 for bad ones.
    sigma : (n, p) noise in units of the inputs; 0 where the pixel is bad.
    """

    x: Float32
    weight: Float32
    sigma: Float32

    @classmethod
    def of(cls, spectra: Spectra, scale: PixelScale, weighted: bool) -> Domain:
        """From prepared spectra; ``weighted``: pixels count by ``1 / (1 + sigma^2)``, as 1 is the scatter of spectra."""
        good = spectra.ivar > 0
        sigma = np.where(good, 1.0 / np.sqrt(np.where(good, spectra.ivar, 1.0)), 0.0) / scale.unit
        weight = good / (1.0 + sigma**2) if weighted else good
        return cls(scale(spectra.flux, good), weight.astype(np.float32), sigma.astype(np.float32))

    def on(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """The three as tensors there."""
        x, weight, sigma = (torch.as_tensor(array, device=device) for array in (self.x, self.weight, self.sigma))
        return x, weight, sigma


class Noise:
    """Adds noise to synthetic inputs: white, like that of observed spectra drawn at random (bad pixels too), for half of them
    what observed spectra have beyond synthetic ones, or none.

    Parameters
    ----------
    observed : the spectra it is like; residuals : (m, p) of some of them in units of the inputs, with (m,) their rows.
    """

    def __init__(
        self,
        config: LatentConfig,
        scale: PixelScale,
        observed: Domain | None,
        residuals: tuple[Float32, NDArray[np.int64]] | None,
        device: str,
    ) -> None:
        self.kind, self.unit, self.clipped = config.noise, scale.unit, scale.clipped
        zero = np.zeros(len(scale.inputs.mean), dtype=np.float32)
        self.rest = torch.as_tensor(scale(zero[None], np.zeros((1, len(zero)), dtype=bool)), device=device)
        if config.noise in LIKE_OBSERVED:
            assert observed is not None  # train_latent has asked for some
            self.sigma = torch.as_tensor(observed.sigma, device=device)
            self.good = torch.as_tensor(observed.weight > 0, device=device)
        if config.noise == "residuals":
            assert residuals is not None  # as above
            self.residuals, self.rows = (torch.as_tensor(array, device=device) for array in residuals)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What tells this noise from another of the same settings, for the name of a checkpoint."""
        out: dict[str, NDArray[Any]] = {"noise.unit": np.array(self.unit)}
        if self.kind in LIKE_OBSERVED:
            out |= {"noise.sigma": self.sigma.cpu().numpy(), "noise.good": self.good.cpu().numpy()}
        if self.kind == "residuals":
            out |= {"noise.residuals": self.residuals.cpu().numpy()}
        return out

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, p) inputs with noise; without a generator from torch's own, which the loop has seeded and keeps."""
        if self.kind is None:
            return x
        noisy = x + white_noise(x, self.kind, self.unit, generator) if isinstance(self.kind, tuple) else self._like(x, generator)
        return noisy.clamp(0.0, 1.0) if self.clipped else noisy

    def _like(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Inputs with noise like that of observed spectra."""
        device = "cpu" if generator is not None else x.device

        def draw(n: int) -> Tensor:
            return torch.randint(n, (len(x),), generator=generator, device=device).to(x.device)

        of = draw(len(self.sigma))
        noise = self.sigma[of] * torch.randn(x.shape, generator=generator, device=device).to(x.device)
        if self.kind == "residuals":
            other = draw(len(self.residuals))
            second = draw(2) == 1
            noise = torch.where(second[:, None], self.residuals[other], noise)
            of = torch.where(second, self.rows[other], of)
        return torch.where(self.good[of], x + noise, self.rest)


class Reconstruction:
    """Mean squared error of an autoencoder's pixels against spectra without added noise, and the penalties of METHODS 2.

    Parameters
    ----------
    domain, held_back : spectra, and (n,) those that choose the epoch; noise : of the inputs, or None.
    bottleneck : weights of the latent layer as they are when the loss is made: those of the contractive penalty as released.
    """

    def __init__(
        self,
        domain: Domain,
        held_back: NDArray[np.bool_],
        noise: Noise | None,
        config: LatentConfig,
        bottleneck: Tensor,
        device: str,
    ) -> None:
        self.config, self.noise, self.bottleneck = config, noise, bottleneck.detach().clone()
        x, weight, _ = domain.on(device)
        train, held = (torch.as_tensor(np.flatnonzero(rows), device=device) for rows in (~held_back, held_back))
        self.x, self.weight, self.x_held, self.weight_held = x[train], weight[train], x[held], weight[held]
        self.noisy_held = self._noisy(self.x_held, torch.Generator().manual_seed(config.loop.seed + 1))
        self.n = len(self.x)
        self.arrays: dict[str, NDArray[Any]] = {"x": domain.x, "weight": domain.weight, "held_back": held_back}
        self.arrays |= {} if noise is None else noise.arrays

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        assert isinstance(network, Autoencoder)
        x = self.x[index]
        outputs = network.layer_outputs(self._noisy(x))
        error = squares(outputs[-1][0], x, self.weight[index]).mean()
        return (error + self._penalty(network, outputs)).reshape(1)

    def validate(self, network: nn.Module) -> Tensor:
        parts = torch.split(torch.arange(len(self.x_held), device=self.x_held.device), _ROWS)
        errors = [squares(network(self.noisy_held[i])[0], self.x_held[i], self.weight_held[i]) for i in parts]
        return torch.cat(errors).mean().reshape(1)

    def _noisy(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x if self.noise is None else self.noise(x, generator)

    def _penalty(self, network: Autoencoder, outputs: list[Tensor]) -> Tensor:
        config, latent = self.config, network.n_encoder_layers - 1
        total = outputs[0].new_zeros(())
        if config.activity > 0:  # per spectrum, as Keras has it
            hidden = [*outputs[1:latent], *outputs[latent + 1 : -1]]
            total = total + config.activity * torch.stack([out.abs().sum() for out in hidden]).sum() / outputs[0].shape[1]
        if config.contraction > 0:
            h = outputs[latent][0]
            if config.contraction_form == "as_released":
                slope, weight = (h * (1.0 - h)).square(), self.bottleneck[0]
            else:
                slope, weight = (h > 0).to(h), network.weights[latent][0]
            total = total + config.contraction * (slope * weight.square().sum(dim=0)).sum(dim=1).mean()
        return total


class Regression:
    """Mean square error of scaled labels of regressors on an encoder that rests; each network for itself.

    Parameters
    ----------
    encoder : whose latent numbers regressors learn from.
    inputs : scaling of the latent numbers.
    rows, held_back : (n_train,) and (n_held,) rows of the synthetic spectra to learn from and to choose the epoch by.
    """

    def __init__(
        self,
        encoder: Autoencoder,
        inputs: Inputs,
        domain: Domain,
        scaled: FloatArray,
        rows: NDArray[np.int64],
        held_back: NDArray[np.int64],
        noise: Noise,
        config: LatentConfig,
        device: str,
    ) -> None:
        self.encoder, self.noise, self.n = encoder, noise, len(rows)
        self.scale = _Scaling(inputs, device)
        x, _, _ = domain.on(device)
        y = targets(scaled, config, device)
        train, held = (torch.as_tensor(r, device=device) for r in (rows, held_back))
        self.x, self.y, self.y_held = x[train], y[:, train], y[:, held]
        self.held = self._latents(noise(x[held], torch.Generator().manual_seed(config.loop.seed + 1)))
        weights = {f"encoder.{name}": p.detach().cpu().numpy() for name, p in encoder.named_parameters()}
        self.arrays: dict[str, NDArray[Any]] = {"x": domain.x, "scaled": scaled, "rows": rows, "held": held_back, **weights}
        self.arrays |= noise.arrays

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        return label_squares(network, self._latents(self.noise(self.x[index])), self.y[:, index]).mean(dim=1)

    def validate(self, network: nn.Module) -> Tensor:
        parts = torch.split(torch.arange(len(self.held), device=self.held.device), _ROWS)
        return torch.cat([label_squares(network, self.held[i], self.y_held[:, i]) for i in parts], dim=1).mean(dim=1)

    def _latents(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.scale(self.encoder.encode(x)[0])


class Together(nn.Module):
    """Autoencoder, regressors and, for adversarial training, a critic: one network for the loop."""

    def __init__(self, autoencoder: Autoencoder, heads: StackedCnn1d, critic: Critic | None) -> None:
        super().__init__()
        self.autoencoder, self.heads, self.critic = autoencoder, heads, critic


class Joint:
    """Labels of synthetic spectra, reconstruction of both domains, and what the transfer's method adds.

    Parameters
    ----------
    inputs : scaling of the latent numbers, fixed.
    rows, held_back : rows of the synthetic spectra to learn from and to choose the epoch by.
    seen : rows of the observed spectra that the transfer sees.
    known : (m, K) scaled labels of the observed spectra, NaN where not known.
    """

    def __init__(
        self,
        inputs: Inputs,
        synthetic: Domain,
        scaled: FloatArray,
        rows: NDArray[np.int64],
        held_back: NDArray[np.int64],
        observed: Domain,
        seen: NDArray[np.int64],
        known: FloatArray | None,
        noise: Noise,
        config: LatentConfig,
        device: str,
    ) -> None:
        self.transfer: TransferConfig = config.transfer
        self.noise, self.n = noise, len(rows)
        self.scale = _Scaling(inputs, device)
        x, weight, _ = synthetic.on(device)
        y = targets(scaled, config, device)
        train, held, some = (torch.as_tensor(r, device=device) for r in (rows, _some(held_back), seen))
        self.x, self.weight, self.y = x[train], weight[train], y[:, train]
        self.held = (noise(x[held], torch.Generator().manual_seed(config.loop.seed + 1)), x[held], weight[held], y[:, held])
        x, weight, _ = observed.on(device)
        self.observed, self.observed_weight = x[some], weight[some]
        self.arrays: dict[str, NDArray[Any]] = {"x": synthetic.x, "scaled": scaled, "rows": rows, "held": held_back}
        self.arrays |= noise.arrays
        self.arrays |= {"observed": observed.x, "weight": observed.weight, "sigma": observed.sigma, "seen": seen}
        if known is not None:
            labelled = seen[np.isfinite(known[seen]).all(axis=1)]
            self.labelled, self.known = x[torch.as_tensor(labelled, device=device)], targets(known[labelled], config, device)
            self.arrays |= {"known": known}

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        assert isinstance(network, Together)
        x = self.x[index]
        of = torch.randint(len(self.observed), (len(x),), device=x.device)
        batch = (self.noise(x), x, self.weight[index], self.y[:, index])
        total, own, other = self._common(network, batch, self.observed[of], self.observed_weight[of])
        if self.transfer.weight == 0:
            return total.reshape(1)
        if self.transfer.method == "labels":
            of = torch.randint(len(self.labelled), (len(x),), device=x.device)
            extra = self._labelled(network, self.labelled[of], self.known[:, of])
            return (total + self.transfer.weight * extra).reshape(1)
        if self.transfer.method == "adversarial":
            assert network.critic is not None
            return (total + adversarial(network.critic, own, other, self.transfer.weight)).reshape(1)
        return (total + self.transfer.weight * self._distance(own, other)).reshape(1)

    def validate(self, network: nn.Module) -> Tensor:
        """The same on held-back synthetic spectra and the observed ones. What a critic finds counts as far as it beats chance."""
        assert isinstance(network, Together)
        look = torch.as_tensor(_some(np.arange(len(self.observed))), device=self.observed.device)
        total, own, other = self._common(network, self.held, self.observed[look], self.observed_weight[look])
        if self.transfer.method == "labels":
            extra = self._labelled(network, self.labelled, self.known)
        elif self.transfer.method == "adversarial":
            assert network.critic is not None
            extra = (math.log(2.0) - adversarial(network.critic, own, other, 0.0)).clamp(min=0.0)
        else:
            extra = self._distance(own, other)
        return (total + self.transfer.weight * extra).reshape(1)

    def _common(
        self, network: Together, batch: tuple[Tensor, ...], observed: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss without the method's own term, and the features of both domains."""
        noisy, x, own_weight, y = batch
        encoder = network.autoencoder
        latents, others = encoder.encode(noisy)[0], encoder.encode(observed)[0]
        own, other = self.scale(latents), self.scale(others)
        total = label_squares(network.heads, own, y).mean()
        if self.transfer.reconstruction > 0:
            error = squares(encoder.decode(latents[None])[0], x, own_weight).mean()
            error = error + squares(encoder.decode(others[None])[0], observed, weight).mean()
            total = total + self.transfer.reconstruction * error
        return total, own, other

    def _distance(self, own: Tensor, other: Tensor) -> Tensor:
        return mmd(own, other) if self.transfer.method == "mmd" else coral(own, other)

    def _labelled(self, network: Together, x: Tensor, y: Tensor) -> Tensor:
        return label_squares(network.heads, self.scale(network.autoencoder.encode(x)[0]), y).mean()


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most so many rows as are looked at without gradient at a time, spread over all."""
    return rows if len(rows) <= _ROWS else np.sort(np.random.default_rng(0).permutation(rows)[:_ROWS])


class _Scaling:
    """Latent numbers as regressors see them; :class:`maury.regress.cnn.Inputs` is the same in numpy."""

    def __init__(self, inputs: Inputs, device: str) -> None:
        self.mean, self.scale = torch.as_tensor(inputs.mean, device=device), inputs.scale

    def __call__(self, latents: Tensor) -> Tensor:
        return (latents - self.mean) / self.scale


def squares(found: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """(n,) weighted mean squared error of each spectrum."""
    return (weight * (found - x).square()).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-12)


def label_squares(heads: nn.Module, features: Tensor, y: Tensor) -> Tensor:
    """(E, n) mean squared error of each network and spectrum, over its labels."""
    found: Tensor = heads(features)
    return (found - y).square().mean(dim=2)


def targets(scaled: FloatArray, config: LatentConfig, device: str) -> Tensor:
    """(E, n, outputs) of the regressors: all labels, or one for each of ``members`` networks."""
    out = scaled[None] if config.head.joint else np.repeat(scaled.T[:, :, None], config.head.members, axis=0)
    return torch.as_tensor(np.ascontiguousarray(out), dtype=torch.float32, device=device)


def latent_numbers(encoder: Autoencoder, x: Float32, device: str) -> Float32:
    """(n, latent) of (n, p) inputs."""
    with torch.no_grad():
        parts = [encoder.encode(torch.as_tensor(x[i : i + _ROWS], device=device))[0].cpu() for i in range(0, len(x), _ROWS)]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


def reconstruction_error(autoencoder: Autoencoder, domain: Domain, rows: NDArray[np.int64], unit: float, device: str) -> float:
    """Mean squared error of the flux over usable pixels of these spectra; NaN for none."""
    if not len(rows):
        return math.nan
    total, count = 0.0, 0
    with torch.no_grad():
        for part in np.array_split(rows, max(1, len(rows) // _ROWS)):
            x, good = torch.as_tensor(domain.x[part], device=device), torch.as_tensor(domain.weight[part] > 0, device=device)
            error = (autoencoder(x)[0] - x).square()
            total, count = total + float(error[good].double().sum()), count + int(good.sum())
    return total / max(count, 1) * unit**2
