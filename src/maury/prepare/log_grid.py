"""Convolution with profiles that are velocities: on a grid of equal steps in ln λ, by closed-form Fourier transforms.

Between its pixels a spectrum is taken as band-limited (interpolated with polynomials of degree 15), and the profile is applied
as its exact transform. Profiles of the order of a pixel and narrower are applied on the spectrum's own pixels, as the series
g = f + Σ ⟨x²ᵏ⟩ w²ᵏ f⁽²ᵏ⁾ / (2k)! with w the width. No kernel is ever sampled, so a profile narrower than a pixel is as exact as
a broad one: constants stay constant and flux is conserved whatever the sampling.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import pairwise
from math import factorial

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.prepare.grid import FloatArray, IntArray, pixel_edges
from maury.prepare.interpolation import LocalSums, derivatives, interpolation
from maury.prepare.profiles import VelocityProfile, tabulated_transform

_ROWS_AT_ONCE, _NUMBERS_AT_ONCE = 64, 10_000_000
"""Rows per block, enough to make good use of the matrices, which are larger than the cache; fewer of long spectra (80 MB)."""
_TRANSFORMS_AT_ONCE = 8
"""Rows per block of Fourier transforms: small enough to stay in the cache."""
_BRIDGE = 64
"""Pixels over which the padding passes from the last value to the first."""
_NARROW_PIXELS = 2.1
"""Where two standard deviations of a profile are fewer pixels, the series is the more exact of the two ways."""
_FINEST = 8
"""The grid has at most so many times the pixels of the spectrum."""
_WIDE_GAP = 64
"""Gaps of more pixels divide a spectrum: a grid over them all would be mostly gap, and too coarse for the pixels."""


class BroadeningGrid:
    """A spectrum's range in windows that wide gaps divide, each convolved by itself; :func:`broadening_grid` caches it.

    Parameters
    ----------
    wavelength : (n_pixels,) increasing, Å; any spacing.
    """

    def __init__(self, wavelength: FloatArray) -> None:
        first = pieces(wavelength)
        wide = np.diff(wavelength)[first[1:] - 1] > _WIDE_GAP * pixel_edges(wavelength).width[first[1:] - 1]
        bounds = np.concatenate([[0], first[1:][wide], [wavelength.size]])
        within = [slice(int(low), int(high)) for low, high in pairwise(bounds)]
        self._windows = [(w, _Window(wavelength[w], pieces_within(first, w))) for w in within if w.stop - w.start > 1]

    def convolve(self, flux: FloatArray, width: FloatArray, profile: VelocityProfile) -> FloatArray:
        """Flux convolved with a profile.

        Parameters
        ----------
        flux : (n, n_pixels), or (1, n_pixels) for one spectrum with many widths.
        width : (n,) km/s, or (1,) for one width for all.

        Returns
        -------
        (n, n_pixels). Beyond its ends, and into gaps of more than 64 pixels, each spectrum is continued with its last value;
        narrower gaps are bridged by straight lines. Nothing is wrapped around. A pixel alone between wide gaps stays as it is.
        """
        n = width.size if len(flux) == 1 else len(flux)
        if len(self._windows) == 1 and self._windows[0][0] == slice(0, flux.shape[1]):
            return self._windows[0][1].convolve(flux, width, profile)
        out = np.array(np.broadcast_to(flux, (n, flux.shape[1])))
        for pixels, window in self._windows:
            out[:, pixels] = window.convolve(flux[:, pixels], width, profile)
        return out


class _Window:
    """Equal steps in ln λ over a range without wide gaps, with the way there and back.

    Parameters
    ----------
    wavelength : (n_pixels,) increasing, Å.
    first : (n_pieces,) the pixel with which each contiguous piece begins.
    """

    def __init__(self, wavelength: FloatArray, first: IntArray) -> None:
        self._position = position = np.log(wavelength)
        self._first = first
        span = position[-1] - position[0]
        self.step = max(float(np.diff(position).min()), float(span) / (_FINEST * wavelength.size))
        """The finest spacing of the spectrum, in ln λ."""
        self.size = int(np.ceil(span / self.step - 1e-9)) + 1
        uniform = position[0] + self.step * np.arange(self.size)
        self._there = interpolation(position, uniform, self._first)
        self._back = interpolation(uniform, position, np.zeros(1, np.int64))

    def convolve(self, flux: FloatArray, width: FloatArray, profile: VelocityProfile) -> FloatArray:
        """As :meth:`BroadeningGrid.convolve`."""
        n = width.size if len(flux) == 1 else len(flux)
        pixels = np.broadcast_to(width / (SPEED_OF_LIGHT_KM_S * self.step), n)
        narrow = 2 * np.sqrt(profile.moment(1)) * pixels < _NARROW_PIXELS
        out = np.empty((n, flux.shape[1]))
        if narrow.any():
            out[narrow] = self._series(flux if len(flux) < n else flux[narrow], pixels[narrow], profile)
        at_once = max(_TRANSFORMS_AT_ONCE, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // self.size))
        for rows, reach in _groups(pixels, profile.reach, np.flatnonzero(~narrow)):
            padding = _Padding(self.size, reach)
            frequency = np.linspace(0.0, np.pi, padding.total // 2 + 1)  # angular, per pixel; the total is even
            one = tabulated_transform(profile, frequency * pixels[rows[:1], None]) if width.size == 1 else None
            shared = padding.transform(self._there.apply(flux)) if len(flux) < n else None
            for some in _blocks(rows, at_once):
                values = np.empty((some.size, self.size)) if shared is not None else self._there.apply(_rows(flux, some))
                for part in _blocks(np.arange(some.size), _TRANSFORMS_AT_ONCE):
                    modes = padding.transform(values[part]) if shared is None else shared
                    kernel = tabulated_transform(profile, frequency * pixels[some[part], None]) if one is None else one
                    values[part] = padding.inverse(modes * kernel)
                out[some] = self._back.apply(values)
        return out

    def _series(self, flux: FloatArray, pixels: FloatArray, profile: VelocityProfile) -> FloatArray:
        """Flux convolved with narrow profiles of widths in pixels of this grid, (n,): by even derivatives of the flux."""
        out = np.repeat(flux, pixels.size // len(flux), axis=0)
        if pixels.any():
            for k, derivative in enumerate(self._derivatives, start=1):
                out += (profile.moment(k) / factorial(2 * k) * pixels ** (2 * k))[:, None] * derivative.apply(flux)
        return out

    @cached_property
    def _derivatives(self) -> tuple[LocalSums, ...]:
        return derivatives(self._position / self.step, self._first)


@lru_cache(maxsize=16)
def _broadening_grid(wavelength_bytes: bytes) -> BroadeningGrid:
    return BroadeningGrid(np.frombuffer(wavelength_bytes))


def broadening_grid(wavelength: FloatArray) -> BroadeningGrid:
    """The grid of a wavelength vector, made once."""
    return _broadening_grid(np.ascontiguousarray(wavelength, dtype=np.float64).tobytes())


def pieces(wavelength: FloatArray) -> IntArray:
    """(n_pieces,) the pixel with which each contiguous piece of a grid begins."""
    return np.append(0, np.flatnonzero(np.diff(pixel_edges(wavelength).bin_of_pixel) > 1) + 1)


def pieces_within(first: IntArray, window: slice) -> IntArray:
    """The beginnings of the contiguous pieces within a window, counted from its first pixel."""
    return np.append(0, first[(first > window.start) & (first < window.stop)] - window.start)


def _groups(pixels: FloatArray, reach: float, rows: IntArray) -> Iterator[tuple[IntArray, int]]:
    """Rows that share a padding (reaches within a factor of two, so that no spectrum depends on its neighbours)."""
    power = np.ceil(np.log2(np.maximum(pixels[rows] * reach, 1.0)))
    for value in np.unique(power):
        yield rows[power == value], int(2**value) + 1


def _blocks(rows: IntArray, size: int) -> Iterator[IntArray]:
    for low in range(0, rows.size, size):
        yield rows[low : low + size]


def _rows(values: FloatArray, rows: IntArray) -> FloatArray:
    """Some rows; neighbours are not copied."""
    together = rows[-1] - rows[0] + 1 == rows.size
    return values[rows[0] : rows[-1] + 1] if together else values[rows]


class _Padding:
    """A grid made periodic: after its end the last value, then a smooth bridge, then the first value.

    Parameters
    ----------
    size : pixels of the grid.
    reach : how many pixels beyond either end a profile sees.
    """

    def __init__(self, size: int, reach: int) -> None:
        from scipy.fft import next_fast_len

        self.size = size
        self.total = 2 * next_fast_len((size + 2 * reach + _BRIDGE + 1) // 2, real=True)
        place = np.linspace(0.0, 1.0, self.total - size - 2 * reach)
        bridge = place**2 * (3 - 2 * place)
        self._first_part = np.concatenate([np.zeros(reach), bridge, np.ones(reach)])

    def transform(self, values: FloatArray) -> NDArray[np.complex128]:
        """(n, size) -> (n, total / 2 + 1) Fourier modes."""
        from scipy.fft import rfft

        padded = np.empty((len(values), self.total))
        padded[:, : self.size] = values
        padded[:, self.size :] = values[:, -1:] + (values[:, :1] - values[:, -1:]) * self._first_part
        modes: NDArray[np.complex128] = rfft(padded, axis=1, overwrite_x=True)
        return modes

    def inverse(self, modes: NDArray[np.complex128]) -> FloatArray:
        from scipy.fft import irfft

        values: FloatArray = irfft(modes, n=self.total, axis=1, overwrite_x=True)[:, : self.size]
        return values
