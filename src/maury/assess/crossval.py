"""K-fold cross-validation of a whole training: labels of every star from a model that has not seen it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from maury.estimates import LabelEstimates
from maury.protocols import Inferrer
from maury.spectra import Spectra

IntArray = NDArray[np.int64]
TrainInferrer = Callable[[IntArray], Inferrer]


def cross_validate(
    spectra: Spectra, train: TrainInferrer, folds: list[IntArray], progress: Callable[[int, int], None] | None = None
) -> LabelEstimates:
    """Held-out estimates of every star, in the order of ``spectra``.

    Parameters
    ----------
    spectra : prepared spectra, n_stars.
    train : (indices of the stars to train on) -> inferrer. Everything that is learned must be learned in here from these
        stars alone (covariances, weights, choices).
    folds : index arrays that hold every star once (:func:`maury.train.splits.k_folds`).
    progress : called with (folds done, folds in all).
    """
    parts = []
    for done, fold in enumerate(folds, start=1):
        if progress is not None:
            progress(done - 1, len(folds))
        parts.append(train(np.setdiff1d(np.arange(len(spectra)), fold)).infer(spectra[fold]))
        if progress is not None:
            progress(done, len(folds))
    order = np.argsort(np.concatenate(folds), kind="stable")
    # label sets of the folds differ in scaling, not in names: estimates are in label units, so they join
    return LabelEstimates.concatenate(parts)[order]
