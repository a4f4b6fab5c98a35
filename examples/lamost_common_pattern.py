"""What LAMOST's red spectra have in common beyond synthetic ones, by release: the gap that a transfer has to close.

    python examples/lamost_common_pattern.py --data data

For each set of observed spectra of the recipe ``lamost-red-transfer``: the rms of the median residual from the nearest synthetic
spectra (:func:`maury.regress.noise.residuals_of`), and the median chi-square per pixel of the nearest ones, for the spectra as
they are and with that pattern taken away.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from maury.recipes import load_recipe
from maury.recipes.dataset import load_training_set
from maury.regress.noise import residuals_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    training_set = load_training_set(load_recipe("lamost-red-transfer"), parser.parse_args().data)
    observed, synthetic = training_set.observed, training_set.spectra
    assert observed is not None
    sets = np.asarray(observed.meta["set"])
    for name in np.unique(sets):
        some = observed[np.flatnonzero(sets == name)]
        together = residuals_of(some, synthetic)
        alone = np.concatenate([residuals_of(some[[row]], synthetic) for row in range(len(some))])
        pattern = np.median(together, axis=0)
        chi2 = [float(np.median((x**2 * some.ivar).mean(axis=1))) for x in (alone, together - pattern)]
        words = f"{name}: {len(some)} spectra, common pattern {pattern.std():.4f} rms"
        print(f"{words}; chi-square per pixel {chi2[0]:.2f} as they are, {chi2[1]:.2f} without it")


if __name__ == "__main__":
    sys.exit(main())
