"""Cross-correlation of spectra with templates as weighted least squares, for whole batches: exact sums by FFT in ln λ.

A spectrum d with inverse variances w is described by a template t, moved by s = ln(1 + v/c), and a polynomial:

    d_i = a t(x_i - s) + Σ_k b_k P_k(x_i),    x = ln λ

At every s the amplitude a and the b_k have closed forms, and chi-square falls from χ₀² (polynomial alone) by

    Δ(s) = N²/D,   N = Σ w (d - Σ α_k P_k) t,   D = Σ w t² - Mᵀ G⁻¹ M,   M_k = Σ w P_k t,   G_kl = Σ w P_k P_l,   α = G⁻¹ Σ w P d

C = N/√(D χ₀²) is the weighted correlation coefficient, between -1 and 1: the cross-correlation function in the sense of
Zucker (2003, MNRAS 342, 1291), with every pixel's own error instead of one for all.

**No spectrum is interpolated.** With t a cubic B-spline, t(x) = Σ_j c_j B(x/h - j), each sum at s = n h is

    Σ_i q_i t(x_i - n h) = Σ_m A_m c_(m-n),    A_m = Σ_i q_i B(x_i/h - m)

so the *weights* are spread over a fine grid in ln λ by the transpose of the template's interpolation, and FFTs do the rest.
Pixels may lie anywhere, noise stays uncorrelated, and what is found is the chi-square of the data as they are. Between two lags
the quartic through five points locates the peak; chi-square's curvature there is the error: σ_s² = -2/Δ''.

Few lags of a long grid are wanted. So the grid is cut into blocks a few times as long as the range of lags, each is transformed
with as much of the template as its lags reach, and the products are added up *before* the one short transform back. For many
spectra on one grid, products with the template moved to all lags give the same sums faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from maury.prepare.grid import FloatArray, IntArray

_SHORTEST_TRANSFORM = 512
_TRANSFORM_PER_LAG = 4  # shorter blocks overlap more, longer ones leave the cache

BoolArray = NDArray[np.bool_]
ComplexArray = NDArray[np.complex128]

MARGIN = 12  # nodes: what lies beyond an end of the template is damped by 0.27 per node in its spline


class LogGrid(NamedTuple):
    """Nodes even in ln λ."""

    start: float
    """ln Å of the first node."""
    step: float
    n_nodes: int

    @property
    def nodes(self) -> FloatArray:
        """(n_nodes,) ln Å."""
        return np.asarray(self.start + self.step * np.arange(self.n_nodes))

    def place(self, wavelength: FloatArray) -> FloatArray:
        """Wavelengths in Å as numbers of nodes."""
        return np.asarray((np.log(wavelength) - self.start) / self.step)


@dataclass(frozen=True, eq=False)
class TransformedTemplates:
    """Templates on a grid, ready to be correlated with at certain lags.

    Parameters
    ----------
    grid : of the templates.
    lags : (n_lags,) consecutive, in nodes.
    known : (n_nodes,) where all templates are known.
    block : nodes per block.
    length : of each block's transform.
    coefficients, squares : (n_templates, n_nodes) spline coefficients of t and of t².
    first, second : (n_templates, n_blocks, n_frequencies) Fourier transforms of these.
    """

    grid: LogGrid
    lags: IntArray
    known: BoolArray
    block: int
    length: int
    coefficients: FloatArray
    squares: FloatArray
    first: ComplexArray
    second: ComplexArray

    @classmethod
    def of(cls, grid: LogGrid, lags: IntArray, flux: FloatArray, known: BoolArray) -> TransformedTemplates:
        """From (n_templates, n_nodes) normalised flux; unknown nodes may hold anything finite."""
        from scipy.fft import next_fast_len
        from scipy.ndimage import spline_filter1d

        # the mean goes into the polynomial anyway; without it D is no small difference of large numbers
        mean = (flux * known).sum(axis=1, keepdims=True) / max(int(known.sum()), 1)
        values = np.where(known, flux - mean, 0.0)
        wanted = min(max(_SHORTEST_TRANSFORM, _TRANSFORM_PER_LAG * lags.size), grid.n_nodes + lags.size)
        length = int(next_fast_len(wanted, real=True))
        block = length - lags.size + 1
        splines = [spline_filter1d(v, order=3, axis=1, mode="mirror") for v in (values, values**2)]
        first, second = (_transformed_blocks(c, lags, block, length) for c in splines)
        return cls(grid, lags, known, block, length, splines[0], splines[1], first, second)

    def reached(self, wavelength: FloatArray) -> BoolArray:
        """(n_pixels,) which pixels meet known template at every lag."""
        place = self.grid.place(wavelength)
        low = np.floor(place - self.lags[-1]).astype(np.intp) - MARGIN
        high = np.ceil(place - self.lags[0]).astype(np.intp) + MARGIN + 1
        inside = (low >= 0) & (high <= self.grid.n_nodes)
        unknown = np.concatenate([[0], np.cumsum(~self.known)])
        last = self.grid.n_nodes
        return np.asarray(inside & (unknown[np.clip(high, 0, last)] == unknown[np.clip(low, 0, last)]))


def _transformed_blocks(coefficients: FloatArray, lags: IntArray, block: int, length: int) -> ComplexArray:
    """(n, n_nodes) -> (n, n_blocks, n_frequencies): of each block, and of as many nodes around it as the lags reach."""
    from scipy.fft import rfft

    n, n_nodes = coefficients.shape
    n_blocks = -(-n_nodes // block)
    start = np.arange(n_blocks) * block - int(lags[-1])
    index = start[:, None] + np.arange(block + lags.size - 1)
    inside = (index >= 0) & (index < n_nodes)
    pieces = np.where(inside, coefficients[:, np.clip(index, 0, n_nodes - 1)], 0.0)
    return np.asarray(rfft(pieces.reshape(n, n_blocks, -1), length, axis=2))


def interpolation(grid: LogGrid, wavelength: FloatArray) -> csr_matrix:
    """(n_pixels, n_nodes) from spline coefficients to the values at these wavelengths, all of them within the grid."""
    place = grid.place(wavelength)
    node = np.floor(place).astype(np.int32)
    u = place - node
    weights = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1) / 6.0
    nodes = node[:, None] + np.arange(-1, 3, dtype=np.int32)
    return csr_matrix((weights.ravel(), nodes.ravel(), np.arange(0, 4 * node.size + 1, 4)), shape=(node.size, grid.n_nodes))


class Sums(Protocol):
    """The sums over pixels at every lag, for each template in turn."""

    def __call__(self, rows: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Rows q (1 + n_terms, n, n_pixels) -> Σ q t (1 + n_terms, n, n_lags), and Σ q t² (n, n_lags) of the second."""
        ...


@dataclass(frozen=True, eq=False)
class SumsByTransform:
    """Sums by FFT: nothing but the interpolation is made for a new grid of wavelengths."""

    templates: TransformedTemplates
    at_pixels: csr_matrix

    def __call__(self, rows: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """See :class:`Sums`."""
        parts, n = rows.shape[:2]
        transformed = self._blocks(self.at_pixels.T @ rows.reshape(parts * n, -1).T)
        for first, second in zip(self.templates.first, self.templates.second, strict=True):
            sums = self._back(transformed, first)
            yield sums.T.reshape(parts, n, -1), self._back(transformed[..., n : 2 * n], second).T

    def _blocks(self, spread: FloatArray) -> ComplexArray:
        """(n_nodes, m) -> (n_blocks, n_frequencies, m): conjugate Fourier transforms of each block."""
        from scipy.fft import rfft

        n_blocks, block = self.templates.first.shape[1], self.templates.block
        whole = np.zeros((n_blocks * block, spread.shape[1]))
        whole[: len(spread)] = spread
        transformed = rfft(whole.reshape(n_blocks, block, -1), self.templates.length, axis=1)
        return np.asarray(np.conj(transformed, out=transformed))

    def _back(self, spectra: ComplexArray, template: ComplexArray) -> FloatArray:
        """(n_lags, m) the correlations, in the order of the lags."""
        from scipy.fft import irfft

        product = np.einsum("bfm,bf->fm", spectra, template)
        return np.asarray(irfft(product, self.templates.length, axis=0)[self.templates.lags.size - 1 :: -1])


@dataclass(frozen=True, eq=False)
class SumsByProduct:
    """The same sums by products with templates moved to every lag: faster for many spectra on one grid and few lags.

    Parameters
    ----------
    first, second : (n_templates, n_pixels, n_lags) t and t² at the pixels.
    """

    first: tuple[FloatArray, ...]
    second: tuple[FloatArray, ...]

    @classmethod
    def of(cls, templates: TransformedTemplates, at_pixels: csr_matrix) -> SumsByProduct:
        """From templates and the interpolation to the pixels."""
        first, second = (
            tuple(at_pixels @ _at_lags(row, templates.lags) for row in rows)
            for rows in (templates.coefficients, templates.squares)
        )
        return cls(first, second)

    def __call__(self, rows: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """See :class:`Sums`."""
        for first, second in zip(self.first, self.second, strict=True):
            yield (rows.reshape(-1, rows.shape[-1]) @ first).reshape(*rows.shape[:2], -1), rows[1] @ second


def _at_lags(coefficients: FloatArray, lags: IntArray) -> FloatArray:
    """(n_nodes,) -> (n_nodes, n_lags): moved by each lag."""
    n, low, high = coefficients.size, int(lags[0]), int(lags[-1])
    index = np.arange(n)[:, None] - lags
    padded = np.pad(coefficients, (max(high, 0), max(-low, 0)))
    return np.asarray(padded[index + max(high, 0)])


class Data(NamedTuple):
    """Spectra as the correlation takes them."""

    flux: FloatArray
    """(n, n_pixels) normalised."""
    weight: FloatArray
    """(n, n_pixels) inverse variances, 0 where a pixel is not used."""
    polynomials: FloatArray
    """(n_terms, n_pixels), the first of them 1."""


class Correlation(NamedTuple):
    """What one template explains of n spectra at every lag."""

    gain: FloatArray
    """(n, n_lags) Δ, with the sign of the amplitude: a template upside down explains nothing."""
    chi2: FloatArray
    """(n,) χ₀²."""


def correlate(data: Data, sums: Sums) -> list[Correlation]:
    """Δ of every spectrum at every lag, for each template in turn.

    Spectra need at least as many pixels of non-zero weight as there are polynomials.
    """
    terms = data.polynomials
    weighted = data.weight * terms[:, None]  # (n_terms, n, n_pixels)
    gram = np.moveaxis(weighted @ terms.T, 0, 1)
    moment = np.einsum("knp,np->nk", weighted, data.flux)
    left = data.flux - np.linalg.solve(gram, moment[..., None])[..., 0] @ terms
    rows = np.concatenate([(data.weight * left)[None], weighted])
    chi2 = np.einsum("np,np->n", rows[0], left)
    out = []
    for product, square in sums(rows):
        cross = np.moveaxis(product[1:], 0, 1)  # (n, n_terms, n_lags)
        remaining = square - np.einsum("nks,nks->ns", cross, np.linalg.solve(gram, cross))
        # where the template has no structure under the pixels, what remains of D is rounding: it explains nothing there
        sound = remaining > 1e-9 * np.abs(square)
        out.append(
            Correlation(np.divide(product[0] * np.abs(product[0]), remaining, out=np.zeros(square.shape), where=sound), chi2)
        )
    return out


class Peak(NamedTuple):
    """The highest peak of each row, all (n,); NaN where a row has none."""

    place: FloatArray
    """Position, in columns."""
    height: FloatArray
    curvature: FloatArray
    """Second derivative there, per column squared; negative."""
    second: FloatArray
    """Height of the next highest peak; NaN where there is no other."""
    edge: FloatArray
    """The higher of the two ends of the range."""
    at_edge: BoolArray
    """Whether that is higher than any peak."""


def find_peak(gain: FloatArray) -> Peak:
    """The highest peak of each row (n, n_lags), refined by the quartic through five points.

    The first and last two columns serve the refinement only; a peak must lie between them.
    """
    inner = gain[:, 2:-2]
    is_peak = (inner > gain[:, 1:-3]) & (inner >= gain[:, 3:-1]) & (inner > 0)
    heights = np.where(is_peak, inner, -np.inf)
    best = heights.argmax(axis=1)
    rows = np.arange(len(gain))
    found = np.isfinite(heights[rows, best])
    edge = np.maximum(inner[:, 0], inner[:, -1])
    at_edge = (edge > 0) & (edge > np.where(found, heights[rows, best], 0.0))
    heights[rows, best] = -np.inf
    second = heights.max(axis=1)
    y = gain[rows[:, None], best[:, None] + np.arange(5)]
    offset, height, curvature = _quartic_peak(y)
    nan = np.nan
    return Peak(
        np.where(found, best + 2 + offset, nan),
        np.where(found, height, nan),
        np.where(found, curvature, nan),
        np.where(np.isfinite(second), second, nan),
        edge,
        at_edge,
    )


def _quartic_peak(y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(n, 5) values at -2 ... 2 -> place, height and second derivative of the maximum near 0.

    A parabola through three points is biased towards them by 1e-2 of a step at three steps per line width, the quartic 1e-4.
    """
    even1, even2, odd1, odd2 = y[:, 3] + y[:, 1], y[:, 4] + y[:, 0], y[:, 3] - y[:, 1], y[:, 4] - y[:, 0]
    c1, c3 = (8 * odd1 - odd2) / 12, (odd2 - 2 * odd1) / 12
    c2, c4 = (16 * even1 - even2 - 30 * y[:, 2]) / 24, (even2 - 4 * even1 + 6 * y[:, 2]) / 24
    bend = even1 - 2 * y[:, 2]  # of the parabola; below zero at a peak
    bend = np.where(bend < 0, bend, -1.0)
    u = np.clip(-0.5 * odd1 / bend, -1.0, 1.0)
    for _ in range(4):
        curvature = 2 * c2 + 6 * c3 * u + 12 * c4 * u**2
        slope = c1 + 2 * c2 * u + 3 * c3 * u**2 + 4 * c4 * u**3
        u = np.clip(np.where(curvature < 0, u - slope / np.where(curvature < 0, curvature, -1.0), u), -1.0, 1.0)
    curvature = 2 * c2 + 6 * c3 * u + 12 * c4 * u**2
    height = y[:, 2] + u * (c1 + u * (c2 + u * (c3 + u * c4)))
    return u, height, np.where(curvature < 0, curvature, bend)
