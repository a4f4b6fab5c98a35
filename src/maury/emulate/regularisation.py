"""The strength of the L1 penalty (Casey+2016) chosen by cross-validation on the spectra themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.emulate.cannon import CannonConfig, train_cannon, training_objective
from maury.labels import Label
from maury.spectra import Spectra


def choose_l1(
    spectra: Spectra,
    labels: tuple[Label, ...],
    values: ArrayLike,
    config: CannonConfig,
    strengths: Sequence[float],
    folds: list[NDArray[np.int64]],
) -> tuple[float, dict[float, float]]:
    """The strength with the best prediction of stars that were not trained on.

    Parameters
    ----------
    strengths : candidates for ``config.l1``.
    folds : index arrays that hold every star once.

    Returns
    -------
    The best strength, and for each candidate the objective of METHODS 0.5 (-2 ln likelihood) summed over held-out stars and
    pixels: lower is better. One strength serves all pixels; Casey+2016 let it vary, which costs a search per pixel.
    """
    array = np.asarray(values, dtype=float)
    scores = {}
    for strength in strengths:
        total = 0.0
        for fold in folds:
            others = np.setdiff1d(np.arange(len(spectra)), fold)
            emulator = train_cannon(spectra[others], labels, array[others], replace(config, l1=float(strength)))
            total += float(training_objective(emulator, spectra[fold], array[fold]).sum())
        scores[float(strength)] = total
    return min(scores, key=scores.__getitem__), scores
