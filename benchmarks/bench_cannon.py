"""The Cannon against TheCannon 0.7.3, side by side: ``python -m benchmarks.bench_cannon``.

One thread, interleaved in one process; a ratio is the peer's time over the median of our times in the same round, and the
median over rounds is printed with its spread. The peer's functions are called as its users call them
(``CannonModel.train``, ``CannonModel.infer_labels``) and nothing in them is changed. Because they write into the arrays
they get, each call gets fresh copies, outside the time. Agreement is measured on the results of the same run.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from maury.emulate.cannon import CannonEmulator, train_cannon, training_objective
from maury.emulate.polynomial import PolynomialTerms
from maury.fit.fitter import ChiSquareFitter
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance
from maury.spectra import Spectra, empty_meta

PEER = "TheCannon"
PEER_ROUNDS = 3  # a full-size training of the peer takes 20 s and more
OURS_PER_ROUND = 3
FIT_ROUNDS = 5
OBJECTIVE_TOLERANCE = 1e-3  # of -2 ln likelihood, whose own scatter is of order 50: nothing anybody could measure
CHI2_TOLERANCE = 0.01
Row = dict[str, Any]
Timed = tuple[list[float], list[float], Any, Any]


def run() -> list[Row]:
    """Rows of name, peer, ratio, spread, agreement, ours_ms, peer_ms (for the whole job)."""
    return [*training(1388, 3000, 4), *training(542, 8575, 3), *fitting(1000, 3000, 4)]


@dataclass(frozen=True)
class Simulation:
    """Stars of a quadratic model: spectra, their labels, and the model they were drawn from."""

    spectra: Spectra
    labels: tuple[Label, ...]
    values: np.ndarray
    truth: CannonEmulator


def simulate(n_stars: int, n_pixels: int, n_labels: int, seed: int = 3) -> Simulation:
    """Normalised spectra with lines, S/N of 30 to 200 that varies along the spectrum, scatter of its own, 2 % masked."""
    rng = np.random.default_rng(seed)  # fixed: every run treats the same stars
    wavelength = 4500.0 + np.arange(n_pixels)
    labels = tuple(Label(f"label{k}", "dex") for k in range(n_labels))
    values = rng.normal(size=(n_stars, n_labels)).clip(-2.5, 2.5) * np.array([300.0, 0.5, 0.3, 0.1])[:n_labels]
    values += np.array([4800.0, 3.0, -0.2, 0.05])[:n_labels]
    label_set = LabelSet.from_training(labels, values)
    polynomial = PolynomialTerms.of_order(n_labels, 2)
    truth = _model(label_set, polynomial, wavelength, rng)
    flux = truth.predict_flux(values) + truth.scatter * rng.normal(size=(n_stars, n_pixels))
    shape = 0.7 + 0.6 * np.sin(np.pi * np.arange(n_pixels) / n_pixels)
    error = 1.0 / (np.exp(rng.uniform(np.log(30), np.log(200), (n_stars, 1))) * shape * rng.uniform(0.8, 1.2, flux.shape))
    flux += error * rng.normal(size=flux.shape)
    ivar = 1.0 / error**2
    masked = rng.random(flux.shape) < 0.02
    flux[masked], ivar[masked] = 1.0, 0.0
    ids = np.array([str(i) for i in range(n_stars)])
    spectra = Spectra(wavelength, flux, ivar, ids, "vacuum", "rest", empty_meta(n_stars))
    return Simulation(spectra, labels, values, truth)


def _model(labels: LabelSet, polynomial: PolynomialTerms, wavelength: np.ndarray, rng: np.random.Generator) -> CannonEmulator:
    """Lines whose depth depends on the labels; second-order terms a fifth of the first-order ones."""
    n = wavelength.size
    n_lines = n // 12
    profile = np.exp(-0.5 * ((wavelength[:, None] - rng.uniform(wavelength[0], wavelength[-1], n_lines)) / 2.5) ** 2)
    order = np.array([sum(powers) for powers in polynomial.powers])
    size = np.array([0.2, 0.03, 0.006])[order]
    coefficients = -(size[:, None] * rng.normal(size=(polynomial.n_terms, n_lines))) @ profile.T
    coefficients[0] = 1.0 - np.abs(coefficients[0])
    scatter = np.exp(rng.uniform(np.log(0.001), np.log(0.02), n))
    return CannonEmulator(labels, wavelength, coefficients, ModelCovariance(scatter**2), polynomial)


def _interleave(ours: Callable[[], Any], theirs: Callable[[], tuple[Any, float]], rounds: int) -> Timed:
    """Medians of our times per round, the peer's times, and the last results; both are warm before."""
    ours()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        round_times = []
        for _ in range(OURS_PER_ROUND):
            start = time.perf_counter()
            our_result = ours()
            round_times.append(time.perf_counter() - start)
        their_result, taken = theirs()
        times[0].append(statistics.median(round_times))
        times[1].append(taken)
    return times[0], times[1], our_result, their_result


def _row(name: str, timed: Timed, agreement: str) -> Row:
    ratios = [peer / ours for ours, peer in zip(timed[0], timed[1], strict=True)]
    return {
        "name": name,
        "peer": PEER,
        "ratio": statistics.median(ratios),
        "spread": (min(ratios), max(ratios)),
        "rounds": len(ratios),
        "agreement": agreement,
        "ours_ms": 1e3 * statistics.median(timed[0]),
        "peer_ms": 1e3 * statistics.median(timed[1]),
    }


def _skipped(name: str) -> Row:
    nan = float("nan")
    return {"name": name, "peer": PEER, "ratio": nan, "agreement": "not installed: skipped", "ours_ms": nan, "peer_ms": nan}


@contextlib.contextmanager
def _quietly() -> Any:
    """The peer prints, divides by zero and wants LaTeX for its plots; none of that is ours to show."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _peer_modules() -> tuple[Any, Any] | None:
    try:
        with _quietly():
            from TheCannon.dataset import Dataset
            from TheCannon.model import CannonModel
    except ImportError:
        return None
    return Dataset, CannonModel


def _peer_dataset(dataset: Any, stars: Simulation, test: Simulation | None = None) -> Any:
    """The peer's container, with copies: it writes into what it is given."""
    other = test or stars
    spectra, tested = stars.spectra, other.spectra if test else stars.spectra[:2]
    made = dataset(
        np.array(spectra.wavelength),
        np.arange(len(spectra)),
        np.array(spectra.flux),
        np.array(spectra.ivar),
        np.array(stars.values),
        np.arange(len(tested)),
        np.array(tested.flux),
        np.array(tested.ivar),
    )
    made.set_label_names([label.name for label in stars.labels])
    return made


# -- training -------------------------------------------------------------------------------------------------------


def training(n_stars: int, n_pixels: int, n_labels: int) -> list[Row]:
    """The quadratic Cannon of all pixels. The peer gives masked pixels sigma = 10, where they weigh 1e-5 of the others."""
    name = f"Cannon training {n_stars} x {n_pixels} x {n_labels}"
    modules = _peer_modules()
    if modules is None:
        return [_skipped(name)]
    stars = simulate(n_stars, n_pixels, n_labels)

    def theirs() -> tuple[Any, float]:
        with _quietly():
            data, model = _peer_dataset(modules[0], stars), modules[1](2, False)
            start = time.perf_counter()
            model.train(data)
            return model, time.perf_counter() - start

    timed = _interleave(lambda: train_cannon(stars.spectra, stars.labels, stars.values), theirs, PEER_ROUNDS)
    return [_row(name, timed, _training_agreement(stars, timed[2], timed[3]))]


def _training_agreement(stars: Simulation, ours: CannonEmulator, peer: Any) -> str:
    """Objective of METHODS 0.5 in every pixel, and coefficients in units of their errors."""
    theirs = CannonEmulator(
        ours.labels, ours.wavelength, np.array(peer.coeffs).T, ModelCovariance(np.array(peer.scatters) ** 2), ours.polynomial
    )
    excess = training_objective(ours, stars.spectra, stars.values) - training_objective(theirs, stars.spectra, stars.values)
    n_worse = int((excess > OBJECTIVE_TOLERANCE).sum())
    design = ours.terms(ours.labels.scale(stars.values))
    weight = stars.spectra.ivar / (1.0 + stars.spectra.ivar * ours.model_covariance.diagonal)
    normal = np.einsum("nt,np,nu->ptu", design, weight, design, optimize=True)
    error = np.sqrt(np.diagonal(np.linalg.inv(normal), axis1=1, axis2=2)).T
    largest = float((np.abs(ours.coefficients - theirs.coefficients) / error).max())
    verdict = "agreed" if n_worse == 0 and largest < 1.0 else "NOT AGREED"
    return (
        f"{verdict}: objective higher than the peer's by more than {OBJECTIVE_TOLERANCE:g} in {n_worse} of {excess.size} pixels "
        f"(largest {excess.max():+.1e}, median {np.median(excess):+.1e}); coefficients within {largest:.2f} of their errors"
    )


# -- fitting --------------------------------------------------------------------------------------------------------


def fitting(n_stars: int, n_pixels: int, n_labels: int) -> list[Row]:
    """Labels of stars that were not in the training set, with one model, trained here, for both."""
    name = f"Cannon fit {n_stars} x {n_pixels} x {n_labels}"
    modules = _peer_modules()
    if modules is None:
        return [_skipped(name)]
    stars = simulate(n_stars, n_pixels, n_labels, seed=4)
    emulator = stars.truth
    fitter = ChiSquareFitter()

    def theirs() -> tuple[Any, float]:
        with _quietly():
            data, model = _peer_dataset(modules[0], stars, stars), modules[1](2, False)
            model.coeffs, model.scatters = np.array(emulator.coefficients.T), np.array(emulator.scatter)
            model.pivots, model.scales = np.array(emulator.labels.pivot), np.array(emulator.labels.spread)
            start = time.perf_counter()
            _, chi2 = model.infer_labels(data)
            taken = time.perf_counter() - start
            return (np.array(data.test_label_vals), chi2), taken

    timed = _interleave(lambda: fitter.fit(stars.spectra, emulator), theirs, FIT_ROUNDS)
    return [_row(name, timed, _fit_agreement(stars, timed[2], timed[3]))]


def _fit_agreement(stars: Simulation, ours: Any, peer: tuple[np.ndarray, np.ndarray]) -> str:
    """Chi-square of both results by one formula, and labels where both found the same minimum."""
    theirs = _chi2(stars, peer[0])
    excess = _chi2(stars, ours.values) - theirs
    good = float((excess <= CHI2_TOLERANCE).mean())
    same = np.abs(excess) <= CHI2_TOLERANCE
    largest = float((np.abs(ours.values - peer[0]) / ours.errors)[same].max()) if same.any() else float("nan")
    verdict = "agreed" if good >= 0.999 and largest < 0.1 else "NOT AGREED"
    return (
        f"{verdict}: chi2 <= peer's + {CHI2_TOLERANCE} for {100 * good:.1f} % of stars; "
        f"same minimum for {100 * same.mean():.1f} %, labels there within {largest:.3f} of their errors"
    )


def _chi2(stars: Simulation, values: np.ndarray) -> np.ndarray:
    residual = stars.spectra.flux - stars.truth.predict_flux(values)
    ivar = stars.spectra.ivar
    return np.asarray((residual**2 * ivar / (1 + ivar * stars.truth.model_covariance.diagonal)).sum(axis=1))


def main() -> None:
    """Print the table."""
    for row in run():
        low, high = row.get("spread", (float("nan"), float("nan")))
        print(f"{row['name']} against {row['peer']}: x{row['ratio']:.0f} ({low:.0f} to {high:.0f}), ", end="")
        print(f"ours {row['ours_ms']:.1f} ms, peer {row['peer_ms']:.0f} ms\n    {row['agreement']}")


if __name__ == "__main__":
    sys.exit(main())
