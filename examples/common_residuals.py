"""What a polynomial, a network and a kernel ridge get wrong alike: held-out MILES stars of 4000 to 7000 K.

python examples/common_residuals.py data

Three methods see the same stars in the same folds: The Cannon and The Payne (spectra from labels, fitted) and a kernel ridge
from principal components of ln(flux) to labels, which knows no emulator. Printed are the scatter of each and of the means of
two, the correlation of their residuals, and how far the spectra of either emulator are from those of unseen stars.
"""

from __future__ import annotations

import sys
from itertools import combinations
from typing import Any

import numpy as np
from cannon_against_payne import recipes
from numpy.typing import NDArray

from maury.assess.metrics import robust_std
from maury.fit.regional import RegionalInferrer, blend_weights
from maury.labels import LabelSet
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.recipes.training import Trainer
from maury.train.splits import k_folds

Array = NDArray[np.float64]
COMPONENTS, WIDTH, RIDGE, LINEAR = 60, 0.3, 0.02, 0.3  # the best in Teff of six settings tried on MILES stars below 9500 K
STUDENT_DEGREES = 4.0


def kernel_ridge(flux: Array, scaled: Array, unseen: Array) -> Array:
    """(n, K) scaled labels of unseen spectra; training stars with wild residuals fade as in the recipes."""
    known, other = np.log(np.maximum(flux, 1e-3)), np.log(np.maximum(unseen, 1e-3))
    mean = known.mean(axis=0)
    _, size, rows = np.linalg.svd(known - mean, full_matrices=False)
    basis = rows[:COMPONENTS].T / np.sqrt(size[:COMPONENTS] / np.sqrt(len(known)))
    x, z = (known - mean) @ basis, (other - mean) @ basis
    unit = np.sqrt((x**2).sum(axis=1).mean())
    x, z = x / unit, z / unit

    def kernel(a: Array, b: Array) -> Array:
        distance = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        return np.asarray(np.exp(-WIDTH * distance) + LINEAR * a @ b.T + 1.0)

    weight = np.ones(len(x))
    for _ in range(4):
        inverse = np.linalg.inv(kernel(x, x) + np.diag(RIDGE / weight))
        alpha = inverse @ scaled
        left_out = alpha / np.diag(inverse)[:, None]  # residuals of leaving one star out, in closed form
        distance = sum((left_out[:, k] / robust_std(left_out[:, k])) ** 2 for k in range(scaled.shape[1]))
        weight = (STUDENT_DEGREES + scaled.shape[1]) / (STUDENT_DEGREES + distance)
    return np.asarray(kernel(z, x) @ alpha)


def predicted(inferrer: RegionalInferrer, values: Array) -> Array:
    """(n, n_pixels) spectra at the true labels, regions blended as in the fit."""
    share = blend_weights(inferrer.labels, inferrer.label, inferrer.centres, values)
    parts = [w[:, None] * region.predict_flux(values) for region, w in zip(inferrer.regions, share.T, strict=True)]
    return np.asarray(np.sum(parts, axis=0))


def held_out(stars: TrainingSet, trainers: dict[str, Trainer], seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Residuals of labels (n, K), and of spectra (n, n_pixels), of every star from models that have not seen it."""
    labels = {name: np.full(stars.values.shape, np.nan) for name in (*trainers, "kernel ridge")}
    spectra = {name: np.zeros(stars.spectra.flux.shape) for name in trainers}
    for fold in k_folds(len(stars), 5, seed):
        known = np.setdiff1d(np.arange(len(stars)), fold)
        truth, flux = stars.values[fold], stars.spectra.flux
        for name, trainer in trainers.items():
            inferrer: Any = trainer.train(known)
            labels[name][fold] = inferrer.infer(stars.spectra[fold]).values - truth
            spectra[name][fold] = flux[fold] - predicted(inferrer, truth)
        scaling = LabelSet.from_training(trainers["Payne"].recipe.labels, stars.values[known])
        found = kernel_ridge(flux[known], scaling.scale(stars.values[known]), flux[fold])
        labels["kernel ridge"][fold] = scaling.unscale(found) - truth
    return labels, spectra


def main(folder: str) -> None:
    """Print the three tables."""
    every = recipes()
    payne = every["Payne (miles-payne)"]
    stars = load_training_set(payne, folder)
    trainers = {"Cannon": Trainer(every["Cannon, all stars"], stars), "Payne": Trainer(payne, stars)}
    residuals, spectra = held_out(stars, trainers, payne.validation.seed)
    inside = (stars.values[:, 0] >= 4000) & (stars.values[:, 0] < 7000)
    chosen = {name: r[inside] for name, r in residuals.items()}
    means = {f"mean of {a} and {b}": 0.5 * (chosen[a] + chosen[b]) for a, b in combinations(chosen, 2)}
    print(f"{inside.sum()} stars, scatter of Teff (K), log g, [Fe/H]")
    for name, r in (chosen | means).items():
        print(f"{name:32s} " + "  ".join(f"{robust_std(r[:, k]):7.3f}" for k in range(3)))
    print("correlation of the residuals, wild stars clipped at three times the scatter")
    for a, b in combinations(chosen, 2):
        pairs = [[np.clip(chosen[m][:, k], *(np.array([-3, 3]) * robust_std(chosen[m][:, k]))) for m in (a, b)] for k in range(3)]
        print(f"{a + ', ' + b:32s} " + "  ".join(f"{np.corrcoef(*pair)[0, 1]:7.2f}" for pair in pairs))
    print("spectra of unseen stars: root mean square over pixels of the median |residual|")
    known = np.median(stars.spectra.ivar > 0, axis=0) > 0
    for name, r in spectra.items():
        print(f"{name:32s} {np.sqrt(np.mean(np.median(np.abs(r[inside][:, known]), axis=0) ** 2)):.5f}")


if __name__ == "__main__":
    main(sys.argv[1])
