"""K-fold cross-validation of a whole training: labels of every star from a model that has not seen it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from maury.estimates import LabelEstimates
from maury.protocols import Inferrer
from maury.spectra import Spectra

IntArray = NDArray[np.int64]
TrainInferrer = Callable[[IntArray], Inferrer]


def cross_validate(
    spectra: Spectra,
    train: TrainInferrer,
    folds: list[IntArray],
    progress: Callable[[int, int], None] | None = None,
    *,
    groups: Sequence[str] | None = None,
    side_by_side: bool = True,
) -> LabelEstimates:
    """Held-out estimates of the stars of the folds, in the order of ``spectra``.

    Parameters
    ----------
    spectra : prepared spectra, n_stars.
    train : (indices of the stars to train on) -> inferrer. Everything that is learned must be learned in here from these
        stars alone (covariances, weights, choices).
    folds : index arrays that hold every star to be judged once (:func:`maury.train.splits.k_folds`); stars in none of them are in
        every training set.
    groups : one entry per spectrum (a star's name): no spectrum of a held-out star is trained on, whatever its part.
    progress : called with (folds done, folds in all).
    side_by_side : whether ``train`` may run in several threads. Not if it draws random numbers that all threads share.

    Notes
    -----
    Folds run side by side in threads, one per core (numpy releases the lock); the result does not depend on their order.
    """

    def one(fold: IntArray) -> LabelEstimates:
        unseen = np.setdiff1d(np.arange(len(spectra)), fold)
        if groups is not None:
            held = {groups[i] for i in fold}
            unseen = np.array([i for i in unseen if groups[i] not in held], dtype=np.int64)
        return train(unseen).infer(spectra[fold])

    if progress is not None:
        progress(0, len(folds))
    # one thread per fold is all the parallelism: linear algebra that starts threads of its own would spin against the others
    workers = min(os.cpu_count() or 1, len(folds)) if side_by_side else 1
    with _one_thread_each(), ThreadPoolExecutor(max_workers=workers) as pool:
        pending = [pool.submit(one, fold) for fold in folds]
        for done, _ in enumerate(as_completed(pending), start=1):
            if progress is not None:
                progress(done, len(folds))
        parts = [future.result() for future in pending]
    order = np.argsort(np.concatenate(folds), kind="stable")
    # label sets of the folds differ in scaling, not in names: estimates are in label units, so they join
    return LabelEstimates.concatenate(parts)[order]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Linear algebra in one thread, torch's too; torch takes the setting into threads that start later."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    with threadpool_limits(1):
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
