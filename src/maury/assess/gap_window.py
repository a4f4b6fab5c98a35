"""Training spectra of one window as a cloud of directions, and how far from it other spectra lie.

Correlation distance is 1 - r, with r the cosine of the angle between two spectra that are orthogonal to a constant. Directions of
training spectra fill few dimensions; what lies outside those is the same for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.protocols import ModelCovariance

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

NEIGHBOUR = 10  # METHODS 1: k = 10
MIN_SPECTRA = 10 * NEIGHBOUR  # with fewer the tenth neighbour is no neighbour

_SIGMA = 5.0
_MIN_GOOD = 0.5  # of a window's pixels: what a spectrum needs to be judged, and a pixel of the training spectra to be used
_LEFT = 1e-4  # of the variance: what the components may leave of noise-free training spectra
_MAX_COMPONENTS = 100
_QUANTILE = 0.99
_TAIL = float(-np.log(1.0 - _QUANTILE)) - 1.0  # of an exponential distribution beyond its mean, in units of that
_TINY = 1e-300
_FEW_BAD, _FEW_FILLS, _FILLS = 0.05, 2, 8  # each fill leaves of the error about the share of pixels that are bad
_ARRAYS = ("pixels", "modes", "basis", "references", "level")


class Noise(NamedTuple):
    """Expectation (n,) of the squared length of an error in some dimensions, and trace (n,) of its squared covariance."""

    mean: FloatArray
    square: FloatArray


class Projected(NamedTuple):
    """Spectra in a window.

    Parameters
    ----------
    scores : (n, r); power : (n,) squared length of the flux without all modes; whole : (n,) the same without a constant alone.
    variance : (n, m) of the noise, with the model's; enough : (n,) whether there are enough good pixels.
    """

    scores: FloatArray
    power: FloatArray
    whole: FloatArray
    variance: FloatArray
    enough: BoolArray


@dataclass(frozen=True, eq=False)
class ErrorModes:
    """A model error's share of the dimensions inside and outside the components, and all of them.

    Parameters
    ----------
    diagonal : (m,) variance; infinite where the model knows nothing.
    inside : (r, k) factors in the components.
    length : three arrays (m,): squared length of the factors' rows inside, outside, altogether.
    product : three arrays (k, k): their products.
    """

    diagonal: FloatArray
    inside: FloatArray
    length: tuple[FloatArray, FloatArray, FloatArray]
    product: tuple[FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True, eq=False)
class GapWindow:
    """The cloud of the training spectra's directions in one window.

    Parameters
    ----------
    low, high : ends of the window, Å.
    pixels : (m,) places of its pixels in the model's grid; those that half of the training spectra lack are left out.
    modes : (q, m) orthonormal, float32: what spectra may differ by without being different: a constant, then a fit's continuum.
    basis : (r, m) orthonormal, float32: principal components of the directions, their mean among them.
    references : (N, r) float32: directions of training spectra in the components, of length 1.
    level : (N,) float32: mean flux of the references over the length of what is left of them without modes.
    limit : share of a spectrum's squared length that its tenth neighbour leaves, beyond noise, and 99 % of the references do not
        exceed among themselves. It is 1 - r² with the correlation r where a constant is the only mode.
    """

    low: float
    high: float
    pixels: NDArray[np.int32]
    modes: NDArray[np.float32]
    basis: NDArray[np.float32]
    references: NDArray[np.float32]
    level: NDArray[np.float32]
    limit: float

    # -- ratios ---------------------------------------------------------------------------------------------------

    def ratio(self, flux: FloatArray, ivar: FloatArray, errors: ErrorModes | None) -> FloatArray:
        """(n,) largest excess over its limit, of the distance to the tenth neighbour and its parts in and outside the components.

        With Q the squared length of what the neighbour's direction leaves of a spectrum without modes, C the covariance of noise
        and model error, and n² = |flux - mean|² - tr C: (Q - tr C) / (limit n² + 5 sqrt(2 tr C² (1 + 2 limit n² / tr C))). NaN
        where the spectrum has less than half of the pixels.

        Parameters
        ----------
        flux, ivar : (n, n_pixels) on the model's grid.
        errors : of the model, or None.
        """
        found = self.project(flux, ivar, errors)
        left = self._left(found, self.cosines(found.scores))
        noises = self.noises(found, errors)
        size = np.maximum(found.whole - noises[2].mean - found.variance @ self._shares[3], 0.0)
        ratios = []
        for part, noise in zip((*left, left[0] + left[1]), noises, strict=True):
            crossed = 1.0 + 2.0 * self.limit * size / np.maximum(noise.mean, _TINY)
            margin = _SIGMA * np.sqrt(2.0 * noise.square * crossed)
            ratios.append((part - noise.mean) / (self.limit * size + margin + _TINY))
        return np.where(found.enough, np.max(ratios, axis=0), np.nan)

    def cosines(self, scores: FloatArray, *, skip_self: bool = False) -> FloatArray:
        """(n,) projection of (n, r) scores on the direction of the tenth nearest reference; 0 where it looks the other way."""
        along = scores @ self._references.T
        if skip_self:
            np.fill_diagonal(along, -np.inf)
        place = along.shape[1] - NEIGHBOUR
        return np.asarray(np.maximum(np.partition(along, place, axis=1)[:, place], 0.0))

    @staticmethod
    def _left(found: Projected, along: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) squared length of what is left inside the components, and outside."""
        inside = (found.scores**2).sum(axis=1)
        return np.maximum(inside - along**2, 0.0), np.maximum(found.power - inside, 0.0)

    def project(self, flux: FloatArray, ivar: FloatArray, errors: ErrorModes | None = None) -> Projected:
        """Spectra (n, n_pixels) on the model's grid in the window; bad pixels filled from their nearest references."""
        own, level, variance, share = self.without_modes(flux, ivar, errors)
        power = (own**2).sum(axis=1)
        return Projected(own @ self._basis.T, power, power + (level[:, 1:] ** 2).sum(axis=1), variance, share >= _MIN_GOOD)

    def without_modes(
        self, flux: NDArray[Any], ivar: NDArray[Any], errors: ErrorModes | None = None
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """(n, m) flux in the window without modes, their (n, q) levels, (n, m) variance, and the (n,) share of good pixels."""
        own, weight = np.asarray(flux[:, self.pixels], dtype=np.float64), ivar[:, self.pixels]
        good = weight > 0
        variance = np.divide(1.0, weight, out=np.zeros(weight.shape), where=good, dtype=np.float64)
        if errors is not None:
            known = np.isfinite(errors.diagonal)
            good = good & known
            variance = np.where(good, variance + np.where(known, errors.diagonal, 0.0), 0.0)
        share = good.mean(axis=1)
        if not good.all():
            own = self._filled(own, good, 1.0 - share)
        level = own @ self._modes.T
        return own - level @ self._modes, level, variance, share

    def _filled(self, flux: FloatArray, good: BoolArray, bad_share: FloatArray) -> FloatArray:
        """Bad pixels filled so that they add nothing to the distance from the ten nearest references."""
        count = np.maximum(good.sum(axis=1), 1)
        mean = np.where(good, flux, 0.0).sum(axis=1) / count
        out = np.where(good, flux, mean[:, None])
        few = bad_share <= _FEW_BAD
        for rows, times in ((np.flatnonzero(few & (bad_share > 0)), _FEW_FILLS), (np.flatnonzero(~few), _FILLS)):
            columns = np.flatnonzero(~good[rows].all(axis=0))
            bad = ~good[np.ix_(rows, columns)]
            modes, basis = self._modes[:, columns], self._basis[:, columns]
            level, scores = (out[rows] - mean[rows, None]) @ self._modes.T, (out[rows] - mean[rows, None]) @ self._basis.T
            filled = np.zeros(bad.shape)
            for _ in range(times if rows.size else 0):
                new = np.where(bad, level @ modes + self._nearest(scores) @ basis, 0.0)
                level, scores = level + (new - filled) @ modes.T, scores + (new - filled) @ basis.T
                filled = new
            out[np.ix_(rows, columns)] += filled
        return out

    def _nearest(self, scores: FloatArray) -> FloatArray:
        """(n, r) scores replaced by those of the mean direction of the ten nearest references, as long as fits best."""
        direction = self._references[self.neighbours(scores, NEIGHBOUR)[0]].mean(axis=1)
        length = (scores * direction).sum(axis=1) / np.maximum((direction**2).sum(axis=1), _TINY)
        return np.asarray(np.maximum(length, 0.0)[:, None] * direction)

    # -- noise ----------------------------------------------------------------------------------------------------

    def error_modes(self, covariance: ModelCovariance) -> ErrorModes:
        """A model error in the window."""
        diagonal = covariance.diagonal[self.pixels]
        factors = np.zeros((len(diagonal), 0)) if covariance.factors is None else covariance.factors[self.pixels]
        factors = np.where(np.isfinite(diagonal)[:, None], factors, 0.0)
        factors = factors - self._modes.T @ (self._modes @ factors)
        inside = self._basis @ factors
        parts = (self._basis.T @ inside, factors - self._basis.T @ inside, factors)
        lengths = [(part**2).sum(axis=1) for part in parts]
        products = [part.T @ part for part in parts]
        return ErrorModes(diagonal, inside, (lengths[0], lengths[1], lengths[2]), (products[0], products[1], products[2]))

    def noises(self, found: Projected, errors: ErrorModes | None) -> tuple[Noise, Noise, Noise]:
        """Noise and model error inside the components, outside, and altogether; what lies along the spectrum does not count."""
        square = found.variance**2
        plain = [Noise(found.variance @ share, square @ share) for share in self._shares[:3]]
        if errors is None or not errors.inside.shape[1]:
            return plain[0], plain[1], plain[2]
        unit = found.scores / np.maximum(np.sqrt((found.scores**2).sum(axis=1, keepdims=True)), _TINY)
        along = unit @ errors.inside
        length = (along**2).sum(axis=1)
        out = []
        for noise, row, product, removed in zip(plain, errors.length, errors.product, (1.0, 0.0, 1.0), strict=True):
            mean = noise.mean + np.trace(product) - removed * length
            own = (product**2).sum() - removed * (2.0 * ((along @ product) * along).sum(axis=1) - length**2)
            out.append(Noise(np.maximum(mean, noise.mean), noise.square + 2.0 * found.variance @ row + np.maximum(own, 0.0)))
        return out[0], out[1], out[2]

    @cached_property
    def _shares(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Four arrays (m,): a pixel's share of noise inside the components, outside, in both, and in modes but the first."""
        inside, modes = (self._basis**2).sum(axis=0), (self._modes**2).sum(axis=0)
        outside = np.maximum(1.0 - inside - modes, 0.0)
        return inside, outside, inside + outside, (self._modes[1:] ** 2).sum(axis=0)

    @cached_property
    def _modes(self) -> FloatArray:
        return self.modes.astype(np.float64)

    @cached_property
    def _basis(self) -> FloatArray:
        return self.basis.astype(np.float64)

    @cached_property
    def _references(self) -> FloatArray:
        return self.references.astype(np.float64)

    def reference_flux(self, snr: float, random: np.random.Generator) -> FloatArray:
        """(N, m) references over the pixels, of length 1, with white noise of this S/N at their mean flux (infinite: none)."""
        flux = self._references @ self._basis
        if np.isfinite(snr):
            flux = self.bare(flux + random.standard_normal(flux.shape) * (self.level.astype(np.float64) / snr)[:, None])
        return np.asarray(flux / np.maximum(np.sqrt((flux**2).sum(axis=1, keepdims=True)), _TINY))

    def neighbours(self, scores: FloatArray, number: int) -> tuple[NDArray[np.intp], FloatArray]:
        """(n, number) nearest references of (n, r) scores, and how far the scores reach along each."""
        along = scores @ self._references.T
        chosen = np.argpartition(along, -number, axis=1)[:, -number:]
        return chosen, np.take_along_axis(along, chosen, axis=1)

    def bare(self, flux: FloatArray) -> FloatArray:
        """(n, m) flux without modes."""
        return flux - (flux @ self._modes.T) @ self._modes

    # -- training -------------------------------------------------------------------------------------------------

    @classmethod
    def of(
        cls, ends: tuple[float, float], pixels: NDArray[np.int32], flux: FloatArray, ivar: FloatArray, modes: FloatArray
    ) -> GapWindow | None:
        """The window of training spectra; None if fewer than 100 of them have features that stand out of their noise.

        Parameters
        ----------
        ends : Å; pixels : (m,).
        flux, ivar : (n, m) of the window, bad pixels filled.
        modes : (q, m) in any normalisation, a constant first.
        """
        modes = _orthonormal(modes)
        mean, level = flux.mean(axis=1), flux @ modes.T
        flux = flux - level @ modes
        good = ivar > 0
        noise = np.divide(1.0, ivar, out=np.zeros(ivar.shape), where=good, dtype=np.float64)
        power = (flux**2).sum(axis=1)
        kept = power - noise.sum(axis=1) > _SIGMA * np.sqrt(2.0 * (noise**2).sum(axis=1))
        if kept.sum() < MIN_SPECTRA:
            return None
        flux, noise, power = flux[kept], noise[kept], power[kept]
        whole = power + (level[kept, 1:] ** 2).sum(axis=1)
        direction = flux / np.sqrt(power)[:, None]
        basis = _components(direction, noise.sum(axis=1) / power)
        scores = direction @ basis.T
        references = scores / np.sqrt((scores**2).sum(axis=1, keepdims=True))
        arrays = {"modes": modes, "basis": basis, "references": references, "level": mean[kept] / np.sqrt(power)}
        small = {name: array.astype(np.float32) for name, array in arrays.items()}
        bare = cls(*ends, pixels, **small, limit=np.inf)
        found = Projected(flux @ basis.T, power, whole, noise, np.ones(len(flux), dtype=bool))
        return replace(bare, limit=bare._own_limit(found))

    def _own_limit(self, found: Projected) -> float:
        """The 99th percentile of what is left of the references by one another, beyond their noise.

        Outside the components noise rules, where there is any: values there are drawn to their mean by as much of their variance
        as noise explains, and the tail of an exponential distribution is put in place of the one that noise hides. Errors that
        are larger than what is left there are no errors of these spectra (synthetic ones may carry some): they count in
        proportion.
        """
        inside, outside, _ = self.noises(found, None)
        left = self._left(found, self.cosines(found.scores, skip_self=True))
        real = min(1.0, float(left[1].sum() / max(outside.mean.sum(), _TINY)))
        size = np.maximum(found.whole - real * (inside.mean + outside.mean), 0.1 * found.whole)
        beyond = (left[1] - real * outside.mean) / size
        explained = (2.0 * real**2 * outside.square / size**2).mean() / max(float(beyond.var()), _TINY)
        mean, hidden = max(float(beyond.mean()), 0.0), min(explained, 1.0)
        beyond = mean * (1.0 + hidden * _TAIL) + (1.0 - hidden) * (beyond - beyond.mean())
        within = (left[0] - real * inside.mean) / size
        return max(float(np.quantile(within + beyond, _QUANTILE)), 1e-9)

    # -- files ----------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings for a model file."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return arrays, {"low": self.low, "high": self.high, "limit": self.limit}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> GapWindow:
        """Inverse of :meth:`to_arrays`."""
        ends = float(config["low"]), float(config["high"])
        pixels, modes, basis, references, level = (arrays[name] for name in _ARRAYS)
        return cls(*ends, pixels, modes, basis, references, level, float(config["limit"]))


def usable_pixels(ivar: NDArray[Any], inside: BoolArray) -> NDArray[np.int32]:
    """(m,) pixels of a window that half of the training spectra have."""
    return np.flatnonzero(inside & ((ivar > 0).mean(axis=0) >= _MIN_GOOD)).astype(np.int32)


def _orthonormal(modes: FloatArray) -> FloatArray:
    """(q, m) rows that span the modes, each as far as those before it do not; the first keeps its direction."""
    rows, size = np.linalg.qr((modes / np.sqrt((modes**2).sum(axis=1, keepdims=True))).T)
    return np.asarray(rows.T[np.abs(np.diagonal(size)) > 1e-6])


def _components(direction: FloatArray, noise: FloatArray) -> FloatArray:
    """(r, m) leading components of (n, m) directions about 0: as many as stand out of noise of (n,) squared lengths, at most 100.

    Spectra noisier than the median count less, so that their noise is as large as that of the others.
    """
    n, m = direction.shape
    typical = float(np.median(noise))
    weight = np.minimum(1.0, typical / np.maximum(noise, max(typical, _TINY))) if typical > 0 else np.ones(n)
    rows = direction * np.sqrt(weight / weight.mean())[:, None]
    values, vectors = np.linalg.eigh((rows @ rows.T if n <= m else rows.T @ rows) / n)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    edge = typical / weight.mean() / m * (1.0 + np.sqrt(m / n)) ** 2  # noise alone has no larger one (Marchenko & Pastur 1967)
    signal = np.maximum(values - edge, 0.0)
    varying = signal.sum() - float((rows.mean(axis=0) ** 2).sum())
    left = signal.sum() - np.cumsum(signal)
    r = int(np.clip(np.count_nonzero(left > _LEFT * max(varying, 0.0)) + 1, 2, min(_MAX_COMPONENTS, min(n, m) - 1)))
    chosen = vectors[:, :r].T @ rows if n <= m else vectors[:, :r].T
    return np.ascontiguousarray(np.linalg.qr(chosen.T)[0].T)
