"""K-fold cross-validation of a whole training: labels of every star from a model that has not seen it."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

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

    Notes
    -----
    Folds run side by side in threads, one per core (numpy releases the lock); the result does not depend on their order.
    """

    def one(fold: IntArray) -> LabelEstimates:
        return train(np.setdiff1d(np.arange(len(spectra)), fold)).infer(spectra[fold])

    if progress is not None:
        progress(0, len(folds))
    # one thread per fold is all the parallelism: linear algebra that starts threads of its own would spin against the others
    with threadpool_limits(1), ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, len(folds))) as pool:
        pending = [pool.submit(one, fold) for fold in folds]
        for done, _ in enumerate(as_completed(pending), start=1):
            if progress is not None:
                progress(done, len(folds))
        parts = [future.result() for future in pending]
    order = np.argsort(np.concatenate(folds), kind="stable")
    # label sets of the folds differ in scaling, not in names: estimates are in label units, so they join
    return LabelEstimates.concatenate(parts)[order]
