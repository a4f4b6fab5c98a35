"""Which small generator is the best? Cross-validation of candidates for the second generator of the recipe ``gebran2024``.

python examples/small_generators.py --data data

4000 of the recipe's 16,590 draws, spread evenly over all. The tenth of the base spectra that the recipe keeps for its test is
left out; the others are dealt into five folds, all draws of one base spectrum in the same. Every candidate is trained five times,
in batches of 128 (with a quarter of the draws about as many steps as the recipe has). Printed: numbers that are stored, and the
error of the flux on draws of unseen base spectra. ``--autoencoder`` adds a small autoencoder generator, which takes longest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maury.emulate import PayneConfig
from maury.emulate.generator import train_generator
from maury.emulate.generator_config import PRESETS
from maury.emulate.payne import PayneEmulator
from maury.emulate.payne_training import train_payne
from maury.recipes import Recipe, load_recipe
from maury.recipes.dataset import TrainingSet, load_training_set
from maury.train.splits import k_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Train = Callable[[TrainingSet, Recipe], PayneEmulator]

RECIPE, DRAWS, FOLDS, BATCH = "gebran2024", 4000, 5, 128
CHOSEN = "silu (256, 256), 120 components"
"""The recipe's own."""


@dataclass(frozen=True)
class Score:
    """Errors of the flux of one candidate over all folds, in units of the continuum."""

    name: str
    n_parameters: int
    rms: float
    median: float
    percentile_99: float
    of_folds: FloatArray
    seconds: float


def payne(config: PayneConfig) -> Train:
    """Trains one Payne."""

    def train(stars: TrainingSet, recipe: Recipe) -> PayneEmulator:
        return train_payne(stars.spectra, recipe.labels, stars.values, config, groups=stars.stars).emulator

    return train


def autoencoder(stars: TrainingSet, recipe: Recipe) -> PayneEmulator:
    """The generator's preset silu, a fifth of its size."""
    preset = PRESETS["silu"]
    small = replace(
        preset,
        autoencoder=replace(preset.autoencoder, hidden=(128, 64)),
        label_network=replace(preset.label_network, hidden=(256, 256)),
    )
    return train_generator(stars.spectra, recipe.labels, stars.values, small, groups=stars.stars).emulator


def candidates(recipe: Recipe) -> dict[str, Train]:
    """By name; all but size and activation as the recipe has it."""
    assert recipe.experiment is not None  # it has
    own = recipe.experiment.small.to_config()
    own = replace(own, loop=replace(own.loop, batch_size=BATCH))
    sizes = (((64, 64), 40), ((128, 128), 80), ((256, 256), 120), ((256, 256), 0))
    out = {
        f"silu {hidden}, {f'{n} components' if n else 'pixels'}": payne(replace(own, hidden=hidden, components=n))
        for hidden, n in sizes
    }
    return out | {"leaky_relu (256, 256), 120 components": payne(replace(own, activation="leaky_relu"))}


def n_parameters(emulator: PayneEmulator) -> int:
    """Of the network as it is stored: weights, basis and mean spectrum."""
    sizes = [weight.size + bias.size for weight, bias in emulator.layers]
    return int(sum(sizes) + emulator.basis.size + emulator.mean.size)


def scored(name: str, train: Train, recipe: Recipe, stars: TrainingSet) -> Score:
    """Train five times and judge the draws that were left out."""
    started, errors, n = time.perf_counter(), [], 0
    for fold in k_folds(len(stars), FOLDS, recipe.validation.seed, stars.stars):
        emulator = train(stars[np.setdiff1d(np.arange(len(stars)), fold)], recipe)
        errors.append(stars.spectra.flux[fold] - emulator.predict_flux(stars.values[fold]))
        n = n_parameters(emulator)
    of_folds = np.array([np.sqrt(np.mean(error**2)) for error in errors])
    absolute = np.abs(np.concatenate(errors))
    median, high = (float(np.quantile(absolute, q)) for q in (0.5, 0.99))
    rms = float(np.sqrt(np.mean(np.square(absolute, dtype=np.float64))))
    return Score(name, n, rms, median, high, of_folds, time.perf_counter() - started)


def main(data: Path, with_autoencoder: bool, only: str) -> None:
    """Print one line for each candidate whose name has ``only`` in it, and which is the best."""
    recipe = load_recipe(RECIPE)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"only": DRAWS})})
    stars = load_training_set(recipe, data)
    assert recipe.experiment is not None  # it has
    test = k_folds(len(stars), round(1 / recipe.experiment.test_fraction), recipe.validation.seed, stars.stars)[0]
    kept = stars[np.setdiff1d(np.arange(len(stars)), test)]
    assert kept.stars is not None  # draws of base spectra
    print(f"{len(kept)} draws of {len(set(kept.stars))} base spectra; {len(test)} draws of the test's are left out", flush=True)
    print(f"{'':40} {'parameters':>10} {'rms':>9} {'median':>9} {'99 %':>9} {'std of folds':>13} {'s':>5}")
    found = []
    wanted = candidates(recipe) | ({"autoencoder, silu, small": autoencoder} if with_autoencoder else {})
    for name, train in ((name, train) for name, train in wanted.items() if only in name):
        score = scored(name, train, recipe, kept)
        found.append(score)
        errors = f"{score.rms:9.6f} {score.median:9.6f} {score.percentile_99:9.6f} {np.std(score.of_folds, ddof=1):13.6f}"
        print(f"{name:40} {score.n_parameters:10,d} {errors} {score.seconds:5.0f}", flush=True)
    best = min(found, key=lambda score: score.rms)
    print(f"lowest rms: {best.name}; the recipe has {CHOSEN}")
    own = [score.of_folds for score in found if score.name == CHOSEN]
    for score in found if own else ():
        change = score.of_folds / own[0] - 1
        error = np.std(change, ddof=1) / np.sqrt(FOLDS)
        print(f"  {score.name}: {100 * change.mean():+.1f} ± {100 * error:.1f} % of the recipe's rms, fold by fold")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--autoencoder", action="store_true", help="one candidate more")
    parser.add_argument("--only", default="", help="part of the names of the candidates to try")
    options = parser.parse_args()
    main(options.data, options.autoencoder, options.only)
