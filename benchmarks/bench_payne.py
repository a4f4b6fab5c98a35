"""The Payne against the fit and the training of the published code, side by side: ``python -m benchmarks.bench_payne``.

One thread, interleaved in one process, medians over rounds of the ratio in the same round. The peer is rebuilt here from what
METHODS 0.6 says of it, with its own operations, because it does not install: every star through scipy's ``curve_fit`` (method
trf, start 0, bounds 0.5 of the scaled labels and the velocity's, tolerances 5e-4, masked pixels with an error of 999), a network
of float32 weights evaluated by ``np.einsum``, and ``np.interp`` at the shifted wavelengths. It fits a few stars a round, ours all
of them, with the setting up inside the time; a ratio is time per star.

Agreement is not with that fit, whose model has kinks at every pixel, but with scipy's ``least_squares`` on the model that ours
minimises: chi-square of both by one formula (:class:`Smooth`) that shares nothing with :mod:`maury.fit.moving`.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.interpolate import BSpline
from scipy.optimize import curve_fit, least_squares

from benchmarks.payne_cases import APOGEE, MASTAR, Survey, noisy_stars, own_network, published_network
from benchmarks.payne_training import training
from benchmarks.side_by_side import Row, row_of
from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.emulate.payne import PayneEmulator
from maury.fit.fitter import ChiSquareFitter
from maury.fit.velocity import VelocityLabel
from maury.spectra import Spectra

PEER = "curve_fit per star"
ROUNDS = 5
N_STARS = 1000
CHI2_TOLERANCE = 0.01


def run() -> list[Row]:
    """Rows of name, peer, ratio, spread, agreement, ours_ms, peer_ms: per star, per training, per spectrum."""
    rows = []
    for survey, n_peer, n_checked in ((MASTAR, 16, 200), (APOGEE, 4, 100)):
        published = published_network(survey)
        rows.append(fitting(f"Payne fit, {survey.name}", survey, published, n_peer, n_checked))
        rows.append(fitting("the same, 64-64 silu", survey, own_network(survey), n_peer, n_checked))
        if survey is MASTAR:
            rows.append(generation(survey, published))
    return [*rows, training()]


# -- fitting --------------------------------------------------------------------------------------------------------


def fitting(name: str, survey: Survey, emulator: PayneEmulator, n_peer: int, n_checked: int) -> Row:
    """Labels and velocity of ``N_STARS`` stars of the network itself."""
    stars = noisy_stars(survey, emulator, N_STARS, 3)
    fitter = ChiSquareFitter(velocity=VelocityLabel(survey.max_km_s))
    peer = PeerFit(survey, emulator)
    ours, theirs = [], []
    estimates = fitter.fit(stars, emulator)
    peer.fit(stars[:1])
    for number in range(ROUNDS):
        taken, estimates = _timed(lambda: fitter.fit(stars, emulator))
        ours.append(taken / len(stars))
        some = stars[number * n_peer : (number + 1) * n_peer]
        taken, _ = _timed(lambda some=some: peer.fit(some))
        theirs.append(taken / n_peer)
    told = _agreement(survey, emulator, stars[:n_checked], estimates.values[:n_checked])
    return row_of(name, PEER, (ours, theirs), told)


class PeerFit:
    """The published fit, star by star."""

    def __init__(self, survey: Survey, emulator: PayneEmulator) -> None:
        self.wavelength, self.silu = survey.wavelength, emulator.activation == "silu"
        *hidden, (weight, bias) = [(w[0], b[0]) for w, b in emulator.layers]
        pixels = (weight @ emulator.basis, bias @ emulator.basis + emulator.mean)
        self.layers = [(np.ascontiguousarray(w.T, dtype=np.float32), b.astype(np.float32)) for w, b in (*hidden, pixels)]
        edge = np.append(np.full(survey.n_labels, 0.5), survey.max_km_s)
        self.bounds = (-edge, edge)

    def spectrum(self, labels: tuple[float, ...]) -> np.ndarray:
        """Flux at scaled labels."""
        out: Any = labels
        for i, (weight, bias) in enumerate(self.layers):
            out = np.einsum("ij,j->i", weight, self._activation(out) if i else out) + bias
        return np.asarray(out)

    def _activation(self, x: np.ndarray) -> np.ndarray:
        return x / (1.0 + np.exp(-x)) if self.silu else np.maximum(0, x) + 0.01 * np.minimum(0, x)

    def moved(self, _: Any, *labels: float) -> np.ndarray:
        """Flux at scaled labels and a velocity in km/s."""
        ratio = labels[-1] / SPEED_OF_LIGHT_KM_S
        return np.interp(self.wavelength * np.sqrt((1 - ratio) / (1 + ratio)), self.wavelength, self.spectrum(labels[:-1]))

    def fit(self, stars: Spectra) -> list[np.ndarray]:
        """Scaled labels and velocity of every star."""
        found = []
        for flux, ivar in zip(stars.flux, stars.ivar, strict=True):
            error = np.where(ivar > 0, 1.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), 999.0)
            found.append(
                curve_fit(
                    self.moved,
                    [],
                    flux,
                    p0=np.zeros(len(self.bounds[0])),
                    sigma=error,
                    absolute_sigma=True,
                    bounds=self.bounds,
                    method="trf",
                    ftol=5e-4,
                    xtol=5e-4,
                )[0]
            )
        return found


class Smooth:
    """The model that ours minimises, written without it: a quintic spline of mean and basis at the shifted wavelengths."""

    def __init__(self, emulator: PayneEmulator, survey: Survey) -> None:
        self.emulator, self.wavelength = emulator, survey.wavelength
        moving = VelocityLabel(survey.max_km_s).extend(emulator)
        self.known = moving.model_covariance.known
        self.spline = moving.spline(emulator.coefficients)

    def flux(self, labels: np.ndarray) -> np.ndarray:
        """(n_pixels,) at scaled labels and a velocity."""
        return self._at(self.emulator.terms(labels[None, :-1])[0], labels[-1])

    def jacobian(self, labels: np.ndarray) -> np.ndarray:
        """(n_pixels, K + 1)."""
        factor = 1.0 + labels[-1] / SPEED_OF_LIGHT_KM_S
        slopes = self._at(self.emulator.terms_jacobian(labels[None, :-1])[0], labels[-1])
        along = self._at(self.emulator.terms(labels[None, :-1])[0], labels[-1], 1)
        return np.column_stack([slopes, -along * self.wavelength / factor**2 / SPEED_OF_LIGHT_KM_S])

    def _at(self, terms: np.ndarray, velocity: float, derivative: int = 0) -> np.ndarray:
        spline = BSpline(self.spline.t, self.spline.c @ terms, self.spline.k)
        return np.asarray(spline(self.wavelength / (1.0 + velocity / SPEED_OF_LIGHT_KM_S), derivative))

    def best(self, flux: np.ndarray, ivar: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, float]:
        """Scipy's minimum from the middle of the box, and its chi-square."""
        root = np.sqrt(np.where(self.known, ivar, 0.0), dtype=np.float64)
        found = least_squares(
            lambda p: (self.flux(p) - flux) * root,
            np.zeros(len(edge)),
            lambda p: self.jacobian(p) * root[:, None],
            bounds=(-edge, edge),
            x_scale=edge,
            ftol=1e-10,
            xtol=1e-10,
        )
        return found.x, 2.0 * float(found.cost)

    def chi2(self, labels: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> float:
        """Of one star."""
        return float((np.where(self.known, ivar, 0.0) * (self.flux(labels) - flux) ** 2).sum())


def _agreement(survey: Survey, emulator: PayneEmulator, stars: Spectra, values: np.ndarray) -> str:
    smooth = Smooth(emulator, survey)
    edge = np.append(np.full(survey.n_labels, 0.6), survey.max_km_s)  # the training range and a tenth, as ours
    excess = []
    for flux, ivar, value in zip(stars.flux, stars.ivar, values, strict=True):
        labels = np.append(emulator.labels.scale(value[:-1]), value[-1])
        excess.append(smooth.chi2(labels, flux, ivar) - smooth.best(flux, ivar, edge)[1])
    good = int((np.array(excess) <= CHI2_TOLERANCE).sum())
    verdict = "agreed" if good >= 0.999 * len(excess) else "NOT AGREED"
    return (
        f"{verdict}: chi2 <= that of scipy's least_squares on the same smooth model + {CHI2_TOLERANCE} "
        f"for {good} of {len(excess)} stars (largest excess {max(excess):+.4f}, median {statistics.median(excess):+.5f})"
    )


# -- generation -----------------------------------------------------------------------------------------------------


def generation(survey: Survey, emulator: PayneEmulator) -> Row:
    """Spectra for 2000 sets of labels in one call, against the published function once per set."""
    rng = np.random.default_rng(8)
    scaled = rng.uniform(-0.5, 0.5, (2000, survey.n_labels))
    values, peer = emulator.labels.unscale(scaled), PeerFit(survey, emulator)
    emulator.predict_flux(values)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        taken, flux = _timed(lambda: emulator.predict_flux(values))
        ours.append(taken / len(values))
        taken, single = _timed(lambda: np.stack([peer.spectrum(tuple(row)) for row in scaled[:100]]))
        theirs.append(taken / 100)
    largest = float(np.abs(flux[:100] - single).max())
    verdict = "agreed" if largest < 1e-5 else "NOT AGREED"
    told = f"{verdict}: flux within {largest:.0e} (theirs is float32)"
    return row_of("Payne spectra, 4563 px", "one at a time", (ours, theirs), told)


# -- common ---------------------------------------------------------------------------------------------------------


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main() -> None:
    """Print the table."""
    for row in run():
        low, high = row["spread"]
        print(f"{row['name']} against {row['peer']}: x{row['ratio']:.0f} ({low:.0f} to {high:.0f}), ", end="")
        print(f"ours {row['ours_ms']:.3f} ms, peer {row['peer_ms']:.3f} ms\n    {row['agreement']}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(main())
