"""The orders of a file become one spectrum of what a model wants to see: one file, one star, one row of the catalogue.

Readers give a Spectra for each order of an echelle spectrum (meta ``order``), because orders overlap and differ in level where
their blaze is not removed. A model wants a few windows. Each of them is taken from the order that holds most of it; what that
order lacks comes from its neighbours, scaled to its level. No pixel is averaged or interpolated, so that errors stay what they
were, and at no wavelength are there pixels of two orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.prepare.air import ToAir, ToVacuum, air_to_vacuum, vacuum_to_air
from maury.prepare.config import Ranges
from maury.prepare.grid import FloatArray, doppler_factor, pixel_edges, velocity_of, windows_of
from maury.prepare.resample import Resample
from maury.prepare.signal import snr
from maury.spectra import Medium, Spectra

if TYPE_CHECKING:
    from maury.prepare.preparation import Preparation
    from maury.prepare.velocity import Velocities
    from maury.read import ReadResult

_REACH = 500.0 / SPEED_OF_LIGHT_KM_S
"""Around each window, where there is room, so much of its wavelength is kept: for velocities that are yet to be measured."""
_AT_JOINT, _AT_LEAST = 50, 5
"""Good pixels beside the joint of two orders that tell their levels; in how many of them an overlap must be to count."""

Interval = tuple[float, float]


class Wanted(NamedTuple):
    """The wavelengths that are wanted of a spectrum.

    Parameters
    ----------
    ranges : windows, Å, increasing.
    medium : in which they are measured; None: in that of the spectra.
    at_rest : whether they are of the rest frame.
    """

    ranges: Ranges
    medium: Medium | None
    at_rest: bool

    @classmethod
    def by(cls, preparation: Preparation) -> Wanted | None:
        """What the ``resample`` step of a preparation makes pixels of; None where it has no such step."""
        medium: Medium | None = None
        for step in preparation.steps:
            if isinstance(step, ToVacuum | ToAir):
                medium = "vacuum" if isinstance(step, ToVacuum) else "air"
            if isinstance(step, Resample):
                return cls(_windows(step.grid()), medium, step.frame == "rest")
        return None

    def observed(self, spectra: Spectra) -> list[Interval]:
        """The ranges where one spectrum has them, as far as its velocity is known."""
        edges = np.array(self.ranges)
        if self.medium is not None and self.medium != spectra.medium:
            edges = vacuum_to_air(edges) if spectra.medium == "air" else air_to_vacuum(edges)
        if self.at_rest and spectra.frame == "observed":
            edges = edges * np.nan_to_num(doppler_factor(velocity_of(spectra)), nan=1.0)
        return [(float(low), float(high)) for low, high in edges]


def join_orders(result: ReadResult, wanted: Wanted | None) -> ReadResult:
    """The same spectra with one for each file in place of its orders; others as they are.

    Parameters
    ----------
    wanted : of which wavelengths; None: nothing is joined.

    Notes
    -----
    A joined spectrum has the name of its file, ``order`` = -1, its own S/N, and for the rest the meta of the order that most of
    it is from. Of a file without any of the wanted wavelengths the nearest order is left, so that what gets it can say so.
    """
    if wanted is None:
        return result
    orders: dict[str, list[int]] = {}
    for place, (batch, file) in enumerate(zip(result.spectra, result.files, strict=True)):
        if is_order(batch):
            orders.setdefault(file, []).append(place)
    several = {places[0]: places for places in orders.values() if len(places) > 1}
    gone = {place for first, places in several.items() for place in places if place != first}
    kept = [place for place in range(len(result.spectra)) if place not in gone]
    spectra = [_joined([result.spectra[i] for i in several.get(place, [place])], wanted) for place in kept]
    return replace(result, spectra=spectra, files=[result.files[place] for place in kept])


def is_order(batch: Spectra) -> bool:
    """Whether a batch is one order of a spectrum."""
    return len(batch) == 1 and "order" in batch.meta.colnames and bool(batch.meta["order"][0] >= 0)


def name_of_orders(order: Spectra) -> str:
    """The name of the spectrum that an order belongs to."""
    return str(order.ids[0]).removesuffix(f"#{order.meta['order'][0]}")


def velocity_of_orders(orders: Velocities) -> Velocities:
    """One velocity of a spectrum from those of its orders (n,): their mean, weighted by their errors.

    Orders with a flag have no part, nor have those that lie more than 5 standard errors from the weighted median, to which 1.48
    median absolute deviations are added in quadrature: orders full of tellurics agree with no other. Where the rest scatter more
    than their errors say, the error grows by as much. All else is that of the best order; without any velocity, of the first.
    """
    sound = np.flatnonzero((orders.flag == 0) & np.isfinite(orders.rv))
    if not sound.size:
        return orders[np.array([int(np.argmax(np.isfinite(orders.rv)))])]
    rv, error = orders.rv[sound], orders.e_rv[sound]
    order = np.argsort(rv)
    weight = np.cumsum(error[order] ** -2)
    centre = rv[order][np.searchsorted(weight, 0.5 * weight[-1])]
    spread = 1.4826 * np.median(np.abs(rv - centre))
    near = np.abs(rv - centre) <= 5.0 * np.hypot(error, spread)
    rv, weight = rv[near], error[near] ** -2
    mean = (weight * rv).sum() / weight.sum()
    inflation = max(1.0, float((weight * (rv - mean) ** 2).sum()) / max(1, rv.size - 1))
    best = orders[sound[[int(np.argmin(error))]]]
    return replace(
        best,
        rv=np.array([mean]),
        e_rv=np.array([np.sqrt(inflation / weight.sum())]),
        n_pixels=np.array([orders.n_pixels[sound[near]].sum()]),
    )


class _Piece(NamedTuple):
    """Neighbouring pixels of one order, and what their flux is multiplied by."""

    order: Spectra
    pixels: slice
    scale: float

    @property
    def first(self) -> float:
        return float(self.order.wavelength[self.pixels.start])

    @property
    def last(self) -> float:
        return float(self.order.wavelength[self.pixels.stop - 1])

    def fills(self, limit: float) -> bool:
        """Whether a limit on either side lies before the order's next pixel: less than that is left to fill."""
        after = self.order.wavelength[max(self.pixels.start - 1, 0) : self.pixels.stop + 1]
        return bool(after[0] <= limit < self.first or self.last < limit <= after[-1])


def _joined(orders: Sequence[Spectra], wanted: Wanted) -> Spectra:
    if len(orders) == 1:
        return orders[0]
    orders = sorted(orders, key=lambda order: float(order.wavelength[0]))
    ranges = wanted.observed(orders[0])
    pieces = [
        piece for window, room in zip(ranges, _rooms(ranges), strict=True) for piece in _of_window(orders, window, room)
    ] or [_nearest(orders, ranges[0])]
    most = max(pieces, key=lambda piece: piece.pixels.stop - piece.pixels.start).order
    masks = [np.zeros(p.order.flux.shape, np.uint32) if p.order.mask is None else p.order.mask for p in pieces]
    whole = most.with_pixels(
        wavelength=np.concatenate([p.order.wavelength[p.pixels] for p in pieces]),
        flux=np.concatenate([p.order.flux[:, p.pixels] * p.scale for p in pieces], axis=1),
        ivar=np.concatenate([p.order.ivar[:, p.pixels] / p.scale**2 for p in pieces], axis=1),
        mask=np.concatenate([mask[:, p.pixels] for mask, p in zip(masks, pieces, strict=True)], axis=1),
        ids=np.array([name_of_orders(most)], dtype=np.str_),
    )
    meta = whole.meta.copy()
    meta["order"], meta["snr"] = -1, snr(whole)
    return whole.with_pixels(meta=meta)


def _windows(wavelength: FloatArray) -> Ranges:
    """The stretches of a grid, to their pixels' edges."""
    half = 0.5 * pixel_edges(wavelength).width
    lows, highs = wavelength - half, wavelength + half
    return tuple((float(lows[i.start]), float(highs[i.stop - 1])) for i in windows_of(wavelength))


def _rooms(ranges: Sequence[Interval]) -> list[Interval]:
    """What each window may take beyond itself: up to the reach, and half of the way to its neighbours."""
    lows = [low * (1 - _REACH) for low, _ in ranges]
    highs = [high * (1 + _REACH) for _, high in ranges]
    for i in range(len(ranges) - 1):
        middle = 0.5 * (ranges[i][1] + ranges[i + 1][0])
        highs[i], lows[i + 1] = min(highs[i], middle), max(lows[i + 1], middle)
    return list(zip(lows, highs, strict=True))


def _of_window(orders: Sequence[Spectra], window: Interval, room: Interval) -> list[_Piece]:
    """Pieces of orders, sorted by wavelength, that make a window; none where no order has a good pixel in it."""
    held = [_held(order, window) for order in orders]
    best = int(np.argmax(held))
    pixels = _good_pixels(orders[best], room)
    if held[best] == 0 or pixels is None:
        return []
    pieces = [_Piece(orders[best], pixels, 1.0)]
    for order in orders[best + 1 :]:
        pixels = _good_pixels(order, (pieces[-1].last, room[1]))
        if pixels is not None and not pieces[-1].fills(room[1]):
            pieces.append(_Piece(order, pixels, _scale(pieces[-1], order, upwards=True)))
    for order in reversed(orders[:best]):
        pixels = _good_pixels(order, (room[0], pieces[0].first))
        if pixels is not None and not pieces[0].fills(room[0]):
            pieces.insert(0, _Piece(order, pixels, _scale(pieces[0], order, upwards=False)))
    return pieces


def _held(order: Spectra, window: Interval) -> float:
    """Å of a window that the good pixels of an order cover."""
    inside = (order.wavelength > window[0]) & (order.wavelength < window[1]) & (order.ivar[0] > 0)
    return float(np.gradient(order.wavelength)[inside].sum())


def _good_pixels(order: Spectra, between: Interval) -> slice | None:
    """From the first to the last good pixel between two wavelengths; None where there is none."""
    index = np.flatnonzero((order.wavelength > between[0]) & (order.wavelength < between[1]) & (order.ivar[0] > 0))
    return slice(int(index[0]), int(index[-1]) + 1) if index.size else None


def _scale(beside: _Piece, order: Spectra, *, upwards: bool) -> float:
    """What brings an order to the level of the piece beside it, which ends where the order is to go on.

    Medians of the flux at the joint are compared: where both orders are, else of what is nearest on either side.
    """
    wavelength, flux = _end(beside.order, beside.pixels, last=upwards)
    there = (order.wavelength >= wavelength[0]) & (order.wavelength <= wavelength[-1]) & (order.ivar[0] > 0)
    other = order.flux[0, there] if there.sum() >= _AT_LEAST else _end(order, slice(None), last=not upwards)[1]
    levels = float(np.median(flux)), float(np.median(other))
    return beside.scale * levels[0] / levels[1] if min(levels) > 0 else beside.scale


def _end(order: Spectra, pixels: slice, *, last: bool) -> tuple[FloatArray, FloatArray]:
    """Wavelengths and flux of the last or first good ones of some pixels."""
    good = order.ivar[0, pixels] > 0
    some = slice(-_AT_JOINT, None) if last else slice(_AT_JOINT)
    return order.wavelength[pixels][good][some], order.flux[0, pixels][good][some].astype(np.float64)


def _nearest(orders: Sequence[Spectra], window: Interval) -> _Piece:
    """The whole of the order whose middle is nearest to that of a window."""
    order = min(orders, key=lambda one: abs(float(one.wavelength[0] + one.wavelength[-1]) - window[0] - window[1]))
    return _Piece(order, slice(0, order.n_pixels), 1.0)
