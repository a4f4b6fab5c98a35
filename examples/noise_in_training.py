"""Noise in training against none (Passegger 2020 trains without): what each is worth on spectra with and without noise.

python examples/noise_in_training.py --data data

The recipe ``window-8800-cnn``, topology ``fast``, one network per label; once without noise and once with noise of S/N 50 to
300, anew in each epoch. A tenth of the base spectra, with all their draws, is kept from both and judges them: as computed, and
with white noise of S/N 150 and 50 per pixel. Printed: the mean absolute error of each label.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from maury.networks.topology import PRESETS
from maury.recipes import load_recipe
from maury.recipes.dataset import load_training_set
from maury.regress.cnn_training import train_cnn
from maury.regress.noise import with_noise
from maury.train.splits import k_folds

TRAINING: dict[str, tuple[float, float] | None] = {"none": None, "S/N 50-300": (50.0, 300.0)}
TEST_SNR = (np.inf, 150.0, 50.0)


def main(data: Path, epochs: int | None) -> None:
    """Train both and print one line for each and every S/N of the test."""
    recipe = load_recipe("window-8800-cnn")
    config = replace(recipe.train.cnn.to_config(), topology=PRESETS["fast"], members=1)
    if epochs is not None:
        config = replace(config, loop=replace(config.loop, max_epochs=epochs))
    stars = load_training_set(recipe, data)
    assert stars.stars is not None  # draws of base spectra
    test = k_folds(len(stars), 10, recipe.validation.seed, stars.stars)[0]
    rest = stars[np.setdiff1d(np.arange(len(stars)), test)]
    judge = stars[test]
    print(f"{len(rest)} spectra to learn from, {len(judge)} that judge; mean absolute errors")
    heads = [f"{label.name + ' ' + label.unit:>10}" for label in recipe.labels]
    print(f"{'noise in training':18} {'test S/N':>8} " + " ".join(heads))
    for name, snr in TRAINING.items():
        networks = train_cnn(rest.spectra, recipe.labels, rest.values, replace(config, snr=snr), groups=rest.stars).networks
        for test_snr in TEST_SNR:
            seen = with_noise(judge.spectra, None if np.isinf(test_snr) else (test_snr, test_snr), seed=1)
            found = networks.predict(seen.flux, seen.ivar > 0).mean(axis=1)
            errors = np.abs(found - judge.values).mean(axis=0)
            print(f"{name:18} {test_snr:8.0f} " + " ".join(f"{error:10.3f}" for error in errors), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, help="fewer, for a try")
    options = parser.parse_args()
    main(options.data, options.epochs)
